"""An index over rules: finds those that can apply to a request. A rule it leaves out would evaluate to FALSE.

Evaluates no condition. Read in this order: `tree.py` (look-ups), `keys.py` (what a condition requires), `rules.py` (the
trees of each role).
"""
