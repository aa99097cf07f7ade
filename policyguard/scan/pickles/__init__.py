"""Interprets pickles on abstract values: what they import, call and build. Runs nothing.

Promises: each opcode is read as CPython's readers do, and an import that is not listed is never clean.

Leaves the layouts around a pickle to `formats/zip_files.py`, `formats/torch_zip.py` and `formats/numpy_safetensors.py`.

Read in this order: `allowlist.py` (which imports are harmless), `machine.py` (the loop), `opcodes.py` (the table),
`stack.py`, `objects.py`, `literals.py` and `values.py` (what the opcodes do), `files.py` (joblib's and torch's files).
"""
