"""Follows a command line to the program that will really run, through interpreters and the wrappers that people use.

Promises: what is followed is followed by the grammar of the interpreter or wrapper itself; what cannot be followed is
`unknown`, with the reason, and never something harmless. Leaves to others: where the program comes from (`evidence/`).

Read in this order: `grammar.py`, `interpreters.py`, `wrappers.py`, `follow.py`.
"""
