"""Builds the collectors that a configuration asks for; shared by the command line, the hooks and Python hosts.

Promises: the same configuration gives the same collectors, in every kind of host. Leaves to others: what a
collector measures (`evidence/`), and deciding, signing and logging (`guard.py`). Imports no command line: the seal of
caches, trusted keys and the place where doubts are reported are arguments.

Read in this order: `requests.py` (requests without a command), `jobs.py` (jobs and artifacts), `configured.py` (all
that `Guard.from_config` needs), `denials.py` (denials that no rule made).
"""
