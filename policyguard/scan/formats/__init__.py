"""File formats: one module for each, and `registry.py`, the table of all.

Promises: each reader walks its format to the last byte, by the tables of the format's specification, and records a
finding for everything that it does not understand. What is computed, such as a value in a table, is not decoded.

Leaves to others: archives are taken apart in `archives/`, pickles in `pickles/`; which reader is asked is in
`registry.py`.

Read in this order: `registry.py`, `numpy_safetensors.py` as the shortest reader, `containers.py` and `zip_files.py` for
files in files. Layouts are in `thrift.py` and `flatbuffer.py`; text that names code in `text.py`, `model_config.py`,
`chat_template.py` and `embedded_code.py`.
"""
