"""Builds inclusion and consistency proofs from a stored log; needs no key.

A store keeps with each leaf the hashes of the complete subtrees it closes, so a proof reads a handful of rows.
"""

from __future__ import annotations

from policyguard.audit.checkpoint import read_checkpoint
from policyguard.audit.merkle import HASH_BYTES, Subtree, consistency_path, inclusion_path
from policyguard.audit.receipt import Receipt
from policyguard.audit.stores import Row, Store
from policyguard.errors import AuditError, VerificationError
from policyguard.text import counted


def subtree_in(store: Store) -> Subtree:
    """Return a function that reads the hash of a complete subtree, by (level, index), from the store."""

    def subtree(level: int, index: int) -> bytes:
        last = ((index + 1) << level) - 1
        hash_ = row_at(store, last).hashes[level * HASH_BYTES : (level + 1) * HASH_BYTES]
        if len(hash_) != HASH_BYTES:
            raise AuditError(f"entry {last} lacks the hash of the subtree it closes", entry=last)
        return hash_

    return subtree


def row_at(store: Store, index: int) -> Row:
    """Read the row at this index.

    Raises:
        AuditError: the store has no such row.
    """
    for row in store.read(index, index + 1):
        return row
    last = store.last()
    size = 0 if last is None else last.entry + 1
    if index >= size:
        raise AuditError(f"no entry {index}: the log has {counted(size, 'entry')}, numbered from 0", entry=index)
    raise AuditError(f"entry {index} is missing", entry=index)


def latest_note(store: Store) -> bytes:
    """Read the newest signed checkpoint.

    Raises:
        AuditError: the log is empty, or its last entry has no checkpoint.
    """
    last = store.last()
    if last is None:
        raise AuditError("log is empty, expected at least one entry")
    if last.checkpoint is None:
        raise AuditError(
            f"entry {last.entry} carries no checkpoint, expected one after the last entry", entry=last.entry
        )
    return last.checkpoint


def prove_inclusion(store: Store, index: int, note: bytes | None = None) -> Receipt:
    """Build a receipt for the entry at `index`, under this checkpoint or the newest one.

    Args:
        store: the store of the log.
        index: the index of the entry.
        note: a signed checkpoint; None for the newest one.

    Raises:
        AuditError: the entry is not in the log.
    """
    note = latest_note(store) if note is None else note
    size = _size_of(note)
    if not 0 <= index < size:
        raise AuditError(f"entry {index} is not in the log, expected 0 to {size - 1}")
    return Receipt(note, index, inclusion_path(index, size, subtree_in(store)))


def prove_consistency(store: Store, old: int, new: int | None = None) -> tuple[bytes, ...]:
    """Compute the hashes that prove that the tree of `new` entries, or all, extends that of `old`.

    Args:
        store: the store of the log.
        old: the older size.
        new: the newer size; None for all entries.

    Raises:
        AuditError: the log is smaller than `old`.
    """
    size = _size_of(latest_note(store)) if new is None else new
    if not 0 <= old <= size:
        raise AuditError(f"log has {size} entries, expected at least {old}")
    return consistency_path(old, size, subtree_in(store))


def _size_of(note: bytes) -> int:
    try:
        return read_checkpoint(note).size
    except VerificationError as problem:
        raise AuditError(problem.message) from None
