"""Reads git repositories without trusting them: directory, references, objects, working tree, GPG signatures.

Promises: each object is hashed again, no filter, hook or configuration of the repository has an effect, and git runs in
an environment that is built here. Knows no requests and no facts; `evidence/` does. Read `directory.py`, `refs.py`,
`program.py`, `objects.py`, `trees.py`, `worktree.py`; then `configuration.py`, `reftable.py`, `gpg.py`, `export.py`.
"""
