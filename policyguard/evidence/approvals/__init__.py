"""Collects approvals from folders, logs and git notes, and decides which of them count for a measured target.

Promises: an approval counts by signature, signer, time and target, wherever it was stored; each that does not
count is named with a reason code. Leaves the statement to `attest/approval.py` and quorums to `decide/quorum.py`.
Read `verify.py`, `collectors.py`; then `from_log.py`, `from_git_notes.py` and `artifact_collector.py`.
"""
