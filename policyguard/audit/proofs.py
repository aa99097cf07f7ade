"""Builds inclusion and consistency proofs from a stored log, and the proofs of newly appended leaves; needs no key.

With each leaf, a store keeps the hashes of the complete subtrees that it closes, so a proof reads only a few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from policyguard.audit.checkpoint import read_checkpoint
from policyguard.audit.merkle import (
    HASH_BYTES,
    Range,
    Subtree,
    complete_subtrees,
    consistency_path,
    inclusion_path,
    inclusion_paths,
    leaf_hash,
)
from policyguard.audit.receipt import Receipt
from policyguard.audit.stores import Row
from policyguard.errors import AuditError, VerificationError
from policyguard.text import counted

if TYPE_CHECKING:
    from policyguard.audit.stores.interface import Store


class Tail(msgspec.Struct, frozen=True):
    """The end of the tree when it was last read, identified by its checkpoint note."""

    note: bytes | None
    size: int
    nodes: tuple[bytes, ...]


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


def grow(
    tail: Tail, leaves: Sequence[bytes], sign: Callable[[int, bytes], bytes]
) -> tuple[list[Row], Tail, tuple[Receipt, ...]]:
    """Compute the rows that add these leaves, the end of the tree after them, and a receipt for each leaf.

    Args:
        tail: the end of the tree before.
        leaves: what is added; one at least.
        sign: signs the checkpoint of a size and root.
    """
    first = tail.size
    tree = Range(first, tail.nodes)
    hashes = [tree.append(leaf_hash(leaf)) for leaf in leaves]
    note = sign(tree.size, tree.root())
    after = Tail(note, tree.size, tuple(tree.nodes))
    if len(leaves) == 1:
        # The newest leaf's siblings are the complete subtrees that were there before, smallest first.
        return [Row(first, leaves[0], b"".join(hashes[0]), note)], after, (Receipt(note, first, tail.nodes[::-1]),)
    rows = [
        Row(index, leaf, b"".join(completed), None if index < tree.size - 1 else note)
        for index, (leaf, completed) in enumerate(zip(leaves, hashes, strict=True), first)
    ]
    paths = inclusion_paths(first, tree.size, _subtree_of(tail, hashes))
    return rows, after, tuple([Receipt(note, index, path) for index, path in enumerate(paths, first)])


def _subtree_of(tail: Tail, hashes: Sequence[Sequence[bytes]]) -> Subtree:
    """Return a function that looks up subtree hashes, old and new, for the proofs of new leaves."""
    known = dict(zip(complete_subtrees(0, tail.size), tail.nodes, strict=True))

    def subtree(level: int, index: int) -> bytes:
        last = ((index + 1) << level) - 1
        return hashes[last - tail.size][level] if last >= tail.size else known[level, index]

    return subtree
