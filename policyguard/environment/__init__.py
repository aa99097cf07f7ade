"""Compares an installed environment with a signed baseline, and byte code with its source.

Promises: nothing of the measured environment is run, imported or unmarshalled, and what cannot be compared is not
equal. Knows no requests and no facts; `evidence/environment_collector.py` makes facts of the report.
Read `report.py`, `listing.py`, `bytecode.py`; then `compilers.py` and `marshal_reader.py`.
"""
