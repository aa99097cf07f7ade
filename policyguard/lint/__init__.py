"""Lint: reports mistakes and dangerous rules in policies. Pure: texts in, a report out.

Promises: a rule that is unsure reports nothing; no policy can add rules, suppress a load error or forge a line of a
report. Leaves to others: loading (`policy`), queries on conditions (`conditions/queries.py`), files and exit codes
(`cli`), proofs over all requests (`analysis`).

Read in this order: `rule.py` (the types), `rules/` (one rule, one file), `catalogue.py` (all of them), `context.py`,
`stars.py`, `bounds.py` and `vocabulary.py` (what rules use), `comments.py` and `suppressions.py`, `runner.py` (a run),
`report.py`, `baseline.py`, `formats/`.
"""
