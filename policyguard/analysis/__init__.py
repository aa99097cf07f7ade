"""Check the engine against two others: casbin, and an oracle that shares no code with it.

For tests and `policyguard check-engine` only. Read in this order: `check_engine.py`, `requests.py` and
`boundaries.py` (which requests are tried), `plain.py` and `oracle.py` with `oracle_cel.py` (the procedure, in its
simplest form).
"""
