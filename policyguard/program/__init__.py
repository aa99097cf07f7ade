"""Follows a command line to the program that will really run, through interpreters and the wrappers that people use.

Promises: a command line is parsed by the grammar of its interpreter or wrapper; one that cannot be parsed is `unknown`,
with the reason, and never counts as harmless. Leaves to others: where the program comes from (`evidence/`).

Read in this order: `grammar.py`, `interpreters.py`, `wrappers.py`, `follow.py`; then `launchers.py` and `counts.py`
(how many nodes, ranks and GPUs a command line asks for), and `outside.py` (programs that start work elsewhere).
"""
