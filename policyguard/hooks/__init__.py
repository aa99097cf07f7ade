"""Enforcement points: programs and blocks of code that run only under a signed allow.

Promises: an error denies, and every refusal is signed and logged if key and log can be used. Leaves to others:
measuring (`evidence/`), deciding and logging (`guard.py`).

Read in this order: `stdio.py` (any program), `launcher/` (jobs), `watch/` (running jobs), `git/` (pushes),
`in_process/` (Python code, advisory).
"""
