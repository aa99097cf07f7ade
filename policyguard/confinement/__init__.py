"""Confines a job with Linux Landlock: what it may read, write, execute and signal.

Promises: a process restricts itself only to what a `Profile` lists, finds out that the kernel really refuses the rest,
and never starts a program if it does not. Leaves to others: who decides that a job is confined (`evidence/`, `hooks/`).
See landlock(7) and the kernel's Documentation/userspace-api/landlock.rst.

Read in this order: `profile.py` (pure), `landlock.py` and `limits.py` (the system calls), `start.py`.
"""
