"""Says who can do what by the rules, and checks the engine against casbin and an oracle that shares no code with it.

No decision depends on it. Read in this order: `questions.py` with `residual.py` (`policyguard who-can`, `can-i` and
`list`); `check_engine.py`, `requests.py` and `boundaries.py` (which requests are tried), `plain.py` and `oracle.py`
with `oracle_cel.py` (the procedure, in its simplest form).
"""
