"""Unpacks zip, tar, 7z and compressed files, within limits.

Promises: each member with its bytes, and a finding for everything in which two readers could differ: two headers, gaps,
links, names that leave the folder. Nothing is written to disk but temporary data.

Leaves to others: what the members are (`formats/`).

Read in this order: `zip.py`, which holds the checks of names that all share, then `tar.py`, `sevenzip.py` and
`compressed.py`.
"""
