"""File formats: one module for each, and `registry.py`, the table of all.

Promises: each reader walks its format to the last byte, by the tables of the specification, and adds a finding for
everything it does not know. Plain data, such as the values of a table, is not decoded.

Leaves archives to `archives/` and pickles to `pickles/`; `registry.py` chooses the reader.

Read in this order: `registry.py`, `numpy_safetensors.py` as the shortest reader, `containers.py` and `zip_files.py` for
files in files. Layouts are in `thrift.py` and `flatbuffer.py`; text that names code in `text.py`, `model_config.py`,
`chat_template.py` and `embedded_code.py`.
"""
