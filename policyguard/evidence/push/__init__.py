"""Measures a push to a git server: what each update does, who signed it, and its approvals.

Promises: measurements come from objects that were hashed again, never from what the push claims; one push opens its
repository once. Leaves deciding and answering git to `hooks/git/`. Read `updates.py`, `session.py`, `objects.py`,
`measure.py`, `collector.py`; then `certificate.py` and `nonce.py`.
"""
