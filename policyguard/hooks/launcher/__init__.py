"""Starts a job only under a signed allow: `launch.py` (steps L1 to L5), `supervise.py` (the process), `refusals.py`."""
