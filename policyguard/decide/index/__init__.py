"""The index finds the rules that a request can concern; a rule that it leaves out has the outcome FALSE, exactly.

Evaluates no condition. Read in this order: `tree.py` (look-ups), `keys.py` (what a condition requires), `rules.py` (the
trees of each role).
"""
