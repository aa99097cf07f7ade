"""Patterns of paths and ids: how they match, and whether two of them can match one id. Opens nothing.

What ids may contain is checked elsewhere, in `model/request.py`. Read in this order: `glob.py`, `id_pattern.py`,
`overlap.py`.
"""
