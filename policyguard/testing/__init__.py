"""Runs the tests of policies: documents of `kind: Tests`.

Promises: every test that is written is run, is skipped with its reason, or is an error with its place. Leaves to
others: reading policies (`policy/`) and deciding (`decide/`), which it uses as any guard does.

Read in this order: `cases.py` (documents to cases), `run.py` (cases to outcomes), `junit.py`; then `facts.py` and
`suppose.py` (what a test or a user supposes).
"""
