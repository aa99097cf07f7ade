"""The catalogue: one rule, one file, found by looking into this package. `lint/rule.py` says what a file declares."""
