"""Measures a running job again: `watch.py` (steps W1 to W4), `policies.py` and `processes.py` (more checks)."""
