"""The policy language: reads YAML into one checked `PolicySet`, or reports every mistake with line and column.

Promises: a policy set that loads has every name resolved, every condition type-checked and no duplicate id. Only
`files.py` opens files. Leaves to others: the types and meaning of conditions (`conditions`), warnings (`lint`),
decisions (`decide`).

Read in this order: `files.py` (a folder to bytes), `reader.py` and `nodes.py` (bytes to nodes), `scalars.py` (types of
plain scalars), `problems.py` (errors), `binder.py` (nodes to fields, by table), `documents.py` (the envelope),
`schema.py`, `people.py`, `rules.py`, `tests.py` (one kind of document each), `conditions.py` (conditions of all rules),
`references.py` (checks across documents), `loader.py` (all of it in order), `bundle.py` (the signed compiled form).
"""
