"""Git server hooks, and the audit that compares a repository with the log.

Read in this order: `main.py` (the hooks) with `options.py`, `judge.py` (steps P1 to P6), `decision_store.py`,
`install.py` with `ineffective_rules.py`, then `audit.py` with `ref_history.py` and `baseline.py`.
"""
