"""Patterns of paths and ids: matching, and whether two of them can match the same id. Opens nothing.

What ids may contain is checked elsewhere, in `model/ids.py`. Read in this order: `glob.py`, `id_pattern.py`,
`overlap.py`.
"""
