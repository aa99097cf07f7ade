"""Starts a job only under a signed allow.

Promises: what starts is what was decided, and a refusal is signed and logged wherever key and log can be used. Read
`launch.py` (steps L1 to L5), `job_environment.py`, `confined.py`, `start_check.py` (the start), `supervise.py` with
`guardian.py`, `process_tree.py` and `running_job.py` (the process), `refusals.py`.
"""
