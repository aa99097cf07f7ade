"""Unpacks zip, tar, 7z and compressed files, within limits.

Promises: yields each member with its bytes, and a finding for everything in which two readers could differ: two
headers, gaps, links, names that leave the folder. Only temporary data is written to disk.

Leaves the content of members to `formats/`.

Read in this order: `zip.py`, which holds the checks of names that all share, with `zip_members.py`; then `tar.py`,
`sevenzip.py` and `compressed.py`.
"""
