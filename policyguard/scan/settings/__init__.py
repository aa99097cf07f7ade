"""Judges settings: JSON, YAML, TOML or INI from which a loader may build objects or call functions.

Promises: every entry is checked, at any depth and also under a repeated key; nothing is imported, evaluated or opened;
bad input is a finding. Settings are clean if no listed loader runs anything for them.

Leaves to `formats/text.py` which text is settings, and chat templates to `formats/chat_template.py`.

Read in this order: `tree.py` (what the readers produce), `json_tree.py`, `yaml_tree.py`, `flat_tree.py`, then
`judge.py` (the walk), `rules.py` (the registry of entries that name code), `shapes.py` (maps known by several entries),
`names.py` (dotted names) and `expressions.py` (text that is evaluated).
"""
