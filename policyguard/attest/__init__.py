"""Keys, signatures and signed statements, and which signers are trusted. Pure.

Promises: one value has one encoding, a parser refuses every other, and only a verified object leaves a `verify`.
Leaves to others: key files (`keyfiles.py`), the log (`audit/`), collecting approvals (`evidence/approvals/`).
Read `keys.py`, `dsse.py`, `statement.py`, `trust.py`; then `sshsig.py`, `signers.py`, `approval.py`.
"""
