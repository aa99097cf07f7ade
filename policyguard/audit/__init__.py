"""The decision log: an RFC 9162 Merkle tree of envelopes with signed checkpoints, and its stores.

Promises: nothing is acknowledged before it is durable, and a changed, removed or reordered entry is noticed.
An approval that counts once is consumed in the transaction that logs the allow. Leaves deciding and signing of
statements to `issuer.py`.

Read in this order: `merkle.py`, `checkpoint.py`, `log.py`, `group_commit.py` with `batch.py`, `proofs.py`,
`receipt.py`, `check.py` (the tree), `head.py`, `continuity.py`, `links.py`, `policy_epochs.py` with
`policy_epoch_scan.py`, `revocation_lists.py` (what a guard remembers of its log), `entries.py`, `approvals.py`,
`handover.py`, `job_end.py` (entries beside decisions), then `approval_use.py` with `approval_use_scan.py`,
`reservation_events.py`, `reservations.py` and `job_reservation.py` (what an entry takes), and `check_claims.py`.
"""
