"""Keys, signatures and signed statements, and which signers are trusted. Pure.

Promises: one value has one encoding, a parser refuses every other, and only a verified object leaves a `verify`. Leaves
to others: key files (`keyfiles.py`), the log (`audit/`), collecting approvals (`evidence/approvals/`). Read `keys.py`,
`dsse.py`, `statement.py` with `long_values.py`, `hidden_values.py` and `differences.py`, `trust.py`, `revocation.py`,
`note.py`; then `sshsig.py`, `signers.py`, `approval.py`, `manifest_statement.py`, `vsa.py`.
"""
