"""Measures a job again while it runs.

Promises: a change since the decision is reported as a signed denial in the log. Read `watch.py` (steps W1 to W5), then
`policies.py`, `processes.py` with `commands.py`, and `growth.py` (more checks), `drift.py` with `diff.py`, `alerts.py`
and `gaps.py` (reports).
"""
