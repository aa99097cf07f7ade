"""The decision log: an RFC 9162 Merkle tree of envelopes with signed checkpoints, and the stores that hold it.

Promises: nothing is acknowledged before it is durable, and a changed, removed or reordered entry is noticed.
An approval that counts once is consumed in the transaction that logs the allow. Leaves deciding and signing of
statements to `guard.py`. Read `merkle.py`, `log.py`, `receipt.py`, `check.py`; then `approval_use.py`.
"""
