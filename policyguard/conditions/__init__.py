"""Conditions in CEL: checked against a schema, compiled, evaluated and queried.

Promises: a condition that the checker accepts evaluates to TRUE, FALSE or an error, the same on every host, in bounded
time, without I/O and without a clock. Only `check.py` imports the CEL checker and protobuf, only `functions.py` RE2.
Leaves to others: the nodes (`model/expression.py`), where conditions come from (`policy`), what an error does to a
decision (`decide`).

Read in this order: `profile.py` (what is allowed), `check.py` (text to nodes; it uses `entities.py`, `lexing.py`,
`templates.py`, `wire.py`, `decoding.py`, `signatures.py`, `checked_types.py`, `macros.py`, `literals.py`,
`checker_messages.py`, `problems.py`), `exact.py` (the meaning of a node) with `functions.py`, `times.py`,
`addresses.py`, `cost.py`; then `ast.py`, `canonical.py`, `wellformed.py` and `codegen.py` (conditions in a snapshot),
`polarity.py` and `queries.py` (for the loader and lint), `rendering.py` and `former_names.py`.
"""
