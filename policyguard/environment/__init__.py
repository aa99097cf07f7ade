"""Compares an installed environment with a signed baseline, and byte code with its source.

Promises: no code of the measured environment is run, imported or unmarshalled, and a file that cannot be compared does
not count as equal. Knows no requests and no facts; `evidence/environment_collector.py` turns the report into facts.
Read `report.py`, `listing.py`, `bytecode.py`; then `compilers.py` and `marshal_reader.py`.
"""
