"""Collects approvals from folders, logs and git notes, and decides which of them count for a measured target.

Promises: an approval counts by its signature, signer, time and target, wherever it was stored; every other one gets a
reason code. Leaves the statement to `attest/approval.py` and quorums to `decide/quorum.py`. Read `verify.py`,
`collectors.py`; then `from_log.py`, `from_git_notes.py` and `artifact_collector.py`.
"""
