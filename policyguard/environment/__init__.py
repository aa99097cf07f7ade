"""Compares an installed environment with a signed baseline, and byte code with its source.

Promises: no code of the measured environment is run, imported or unmarshalled, and a file that cannot be compared does
not count as equal. Knows no requests and no facts; `evidence/environment_collector.py` turns the report into facts.
Read `report.py`, `listing.py` with `cache.py`, `owners.py`, `startup.py` and `outside.py` with `finders.py` (what runs
or loads by itself), `bytecode.py` and `stray.py`; then `compilers.py`, `compiler.py`, `compiler_worker.py` and
`marshal_reader.py`.
"""
