"""Loads snapshots from a policy folder or a compiled, signed file. Reads files and keeps none open.

Parsing is left to `policy`, deciding to `decide`. Read `load.py`, then `folder.py` and `signed_by_persons.py`.
"""
