"""Verifies a complete log without trusting its operator, and names the first entry that is wrong.

Entries are read in order, in constant memory. How each kind of damage shows:

    bytes of an entry changed             leaf hash differs from the stored one
    bytes and hashes changed alike        root differs from the one the log signed after that entry
    entry deleted, or moved               a number is missing, or the root differs
    entries cut off at the end            only a checkpoint from elsewhere shows it: pass it in `earlier`
    history rewritten with the log's key  likewise: another root at the kept size (a split view)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from policyguard.attest.note import NoteKey
from policyguard.audit.checkpoint import Checkpoint, open_checkpoint, read_checkpoint
from policyguard.audit.entries import APPROVAL_ENTRY, HANDOVER_ENTRY
from policyguard.audit.handover import read_handover
from policyguard.audit.links import check_link, is_rotated
from policyguard.audit.merkle import HASH_BYTES, Range, leaf_hash, range_of
from policyguard.audit.proofs import subtree_in
from policyguard.audit.stores import Row
from policyguard.audit.stores.interface import Store
from policyguard.errors import AuditError, VerificationError
from policyguard.text import counted

_PAGE = 512


class LogSummary(msgspec.Struct, frozen=True):
    """The summary of a consistent log: its newest checkpoint, and the numbers of checkpoints and approvals."""

    checkpoint: Checkpoint
    note: bytes
    checkpoints: int
    approvals: int = 0


class RotatedLogError(AuditError):
    """The log is consistent but begins after a rotation, and an earlier checkpoint may belong to the older log."""


def check_log(
    store: Store, logs: Sequence[NoteKey] | None, earlier: Sequence[bytes] = (), *, head: bytes | None = None
) -> LogSummary:
    """Check every entry, hash and checkpoint of a log, and summarize it.

    Args:
        logs: trusted log keys; every checkpoint must be signed by one. None checks that the log agrees with itself, and
            not who signed it.
        earlier: checkpoints (signed notes) that were seen earlier; the log must still contain each of those trees.
        head: the checkpoint of the log's head file, likewise.

    Raises:
        RotatedLogError: all adds up, but a tree in `earlier` is not in this log, which begins after a rotation.
        AuditError: `.entry` is the first entry that does not add up, where one can be named.
    """
    trees = _RequiredTrees(logs, earlier, head, store)
    tree = Range()
    newest: Checkpoint | None = None
    note, count, covered, approvals = b"", 0, 0, 0
    for row in _rows(store):
        _check_row(row, tree)
        approvals += APPROVAL_ENTRY.matches(row.leaf)
        trees.check(tree)
        if row.checkpoint is not None:
            newest, note = _check_checkpoint(row.checkpoint, tree, logs, covered), row.checkpoint
            count, covered = count + 1, tree.size
        if HANDOVER_ENTRY.matches(row.leaf):
            logs = _follow_handover(row, logs)
    if newest is None and not tree.size:
        raise AuditError("log is empty, expected at least one entry")
    if newest is None or covered != tree.size:
        raise AuditError(f"entries {covered} to {tree.size - 1} are under no signed checkpoint", entry=covered)
    trees.check_end(tree.size)
    return LogSummary(newest, note, count, approvals)


class _RequiredTrees:
    """The trees that a log must contain, by size: those of earlier checkpoints, and that of its head file."""

    def __init__(
        self, logs: Sequence[NoteKey] | None, earlier: Sequence[bytes], head: bytes | None, store: Store
    ) -> None:
        self._head = {} if head is None else _checkpoints_by_size(logs, (head,))
        self._earlier = _checkpoints_by_size(logs, earlier)
        self._is_rotated = is_rotated(store)
        self._elsewhere: set[int] = set()
        """Sizes of trees that are in an older log, which this one continues."""

    def check(self, tree: Range) -> None:
        """Compare the tree after an entry with the kept one of its size, if there is one."""
        if tree.size in self._head:
            _check_root(self._head.pop(tree.size), tree, "the head file")
        if tree.size in self._earlier:
            checkpoint = self._earlier.pop(tree.size)
            if not self._is_rotated:
                _check_root(checkpoint, tree, "a kept checkpoint")
            elif checkpoint.root != tree.root():
                self._elsewhere.add(tree.size)

    def check_end(self, size: int) -> None:
        """Check that no kept tree is larger than the log."""
        _check_end(size, self._head, "the head file")
        if self._is_rotated and (self._earlier or self._elsewhere):
            missing = min({*self._earlier, *self._elsewhere})
            raise RotatedLogError(
                f"this log was rotated: give --previous FILE, the log before it, which may contain the tree of "
                f"{counted(missing, 'entry')} that a kept checkpoint names"
            )
        _check_end(size, self._earlier, "a kept checkpoint")


def _check_end(size: int, wanted: Mapping[int, Checkpoint], source: str) -> None:
    if wanted:
        raise AuditError(
            f"log has {counted(size, 'entry')}, {source} says {min(wanted)}: the end was cut off", entry=size
        )


def _follow_handover(row: Row, logs: Sequence[NoteKey] | None) -> Sequence[NoteKey] | None:
    """Return the keys to trust after a handover entry; the old and the new key must both have signed it."""
    try:
        handover = read_handover(row.leaf)
        if row.checkpoint is None:
            raise VerificationError("V2", "handover of the log carries no checkpoint, expected one of both keys")
        for key in (handover.old, handover.new):
            open_checkpoint(row.checkpoint, (key,))
    except VerificationError as problem:
        raise AuditError(f"entry {row.entry}: {problem.message}", entry=row.entry) from None
    if logs is None:
        return None
    # INVARIANT I10: only a key that signs this log now appoints its successor, and then signs no more.
    if handover.old not in logs:
        raise AuditError(
            f"entry {row.entry}: the log is handed over by `{handover.old.text}`, which is no trusted key of it now",
            entry=row.entry,
        )
    return (*(key for key in logs if key not in (handover.old, handover.new)), handover.new)


def check_chain(
    stores: Sequence[Store],
    logs: Sequence[NoteKey] | None,
    earlier: Sequence[bytes] = (),
    *,
    head: bytes | None = None,
) -> LogSummary:
    """Check rotated logs, oldest first: each must begin with the head of the one before.

    Args:
        stores: the logs; one alone is checked as `check_log` does.
        logs, earlier, head: as for `check_log`; some log must contain each earlier tree, and the newest that of `head`.

    Returns:
        The summary of the newest log.

    Raises:
        AuditError: a log does not add up, does not begin with the head of the one before, or lacks a kept tree.
    """
    if len(stores) == 1:
        return check_log(stores[0], logs, earlier, head=head)
    open_notes = [_checkpoints_by_size(logs, (note,)) for note in earlier]
    before: LogSummary | None = None
    for store in stores:
        summary = check_log(store, logs, head=head if store is stores[-1] else None)
        if before is not None:
            check_link(next(iter(store.read(0, 1))).leaf, before.checkpoint)
        before = summary
        open_notes = [wanted for wanted in open_notes if not _contains(store, summary.checkpoint.size, wanted)]
    if open_notes:
        size = next(iter(open_notes[0]))
        raise AuditError(f"none of {len(stores)} logs contains the tree of {size} entries that a kept checkpoint names")
    if before is None:
        raise AuditError("found no log, expected at least one")
    return before


def _contains(store: Store, size: int, wanted: Mapping[int, Checkpoint]) -> bool:
    trees = subtree_in(store)
    return all(
        count <= size and range_of(count, trees).root() == checkpoint.root for count, checkpoint in wanted.items()
    )


def _rows(store: Store) -> Iterator[Row]:
    """Yield every row that existed at the start, in pages, so that writers never wait long."""
    start = 0
    last = store.last()
    while last is not None and start <= last.entry:
        yield from store.read(start, start + _PAGE)
        start += _PAGE


def _check_row(row: Row, tree: Range) -> None:
    """Add one row to the tree and check its stored hashes."""
    entry = tree.size
    if row.entry != entry:
        raise AuditError(f"entry {entry} is missing, found entry {row.entry} in its place", entry=entry)
    computed = leaf_hash(row.leaf)
    if row.hashes[:HASH_BYTES] != computed:
        raise AuditError(
            f"entry {entry}: leaf hash is `{computed.hex()[:16]}`, expected `{row.hashes.hex()[:16]}`; "
            "its bytes or its stored hash were changed",
            entry=entry,
        )
    if b"".join(tree.append(computed)) != row.hashes:
        raise AuditError(
            f"entry {entry}: the stored subtree hashes do not follow from the entries up to it", entry=entry
        )


def _check_checkpoint(note: bytes, tree: Range, logs: Sequence[NoteKey] | None, covered: int) -> Checkpoint:
    """Check that the checkpoint after a row is signed and matches the tree so far."""
    entry = tree.size - 1
    try:
        checkpoint = read_checkpoint(note)
        if (checkpoint.size, checkpoint.root) == (tree.size, tree.root()):
            return checkpoint if logs is None else open_checkpoint(note, logs)
    except VerificationError as problem:
        raise AuditError(f"entry {entry}: its checkpoint does not hold: {problem.message}", entry=entry) from None
    where = f"entry {covered}" if covered == entry else f"one of entries {covered} to {entry}"
    raise AuditError(
        f"{where} was changed, moved, added or removed: the tree of {tree.size} entries has root "
        f"`{tree.root().hex()[:16]}`, the log signed `{checkpoint.root.hex()[:16]}` for {checkpoint.size}",
        entry=covered,
    )


def _checkpoints_by_size(logs: Sequence[NoteKey] | None, earlier: Sequence[bytes]) -> dict[int, Checkpoint]:
    wanted: dict[int, Checkpoint] = {}
    for note in earlier:
        try:
            checkpoint = read_checkpoint(note) if logs is None else open_checkpoint(note, logs)
        except VerificationError as problem:
            raise AuditError(f"kept checkpoint: {problem.message}") from None
        other = wanted.setdefault(checkpoint.size, checkpoint)
        if other.root != checkpoint.root:
            raise AuditError(f"two kept checkpoints of {checkpoint.size} entries have different roots: a split view")
    wanted.pop(0, None)
    return wanted


def _check_root(checkpoint: Checkpoint, tree: Range, source: str) -> None:
    # INVARIANT I13: a log that differs from a checkpoint kept elsewhere does not add up, even if it is signed.
    if checkpoint.root != tree.root():
        raise AuditError(
            f"the first {tree.size} entries have root `{tree.root().hex()[:16]}`, {source} says "
            f"`{checkpoint.root.hex()[:16]}`: history was rewritten or shown differently (a split view)"
        )
