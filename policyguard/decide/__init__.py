"""Decides requests from facts and policies: pure, without I/O and without casbin.

Reads no files and verifies no signatures; `policy_store` and `policy` do. Read in this order: `evaluate.py` (the
procedure), `combine.py` (its last step), `engine.py` (the entry), `admission.py` with `conversion.py` (facts to
values), `compiled_form.py`, `compiled_rule.py` and `compiled_check.py` (policies as data), `snapshot.py` (all of them),
`index/` (which rules to visit), `quorum.py`, `assign_roles.py` with `role_grants.py`, `role_closure.py` and
`separation_of_duty.py`, and `explain.py` with `redaction.py`.
"""
