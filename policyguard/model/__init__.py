"""The data model: frozen values that the other packages exchange. Opens nothing, reads no clock.

Promises: values do not change after they are built, and equality ignores where in a file something was written.
Leaves to others: building policies (`policy`), collecting facts (`evidence`), deciding (`decide`).

Read in this order: `request.py` (who asks for what), `facts.py` (what is known about it), `policy.py` and
`expression.py` (the rules and their conditions), `decision.py` (the answer) with `static_explanation.py`; then `ids.py`
with `id_characters.py`, `secret_arguments.py` and `former_names.py`.
"""
