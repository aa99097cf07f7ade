"""The decision log: an append-only Merkle tree over envelopes, with a signed checkpoint after every transaction.

A receipt is returned only after its entry, and the checkpoint that covers it, are durable in the store. Threads that
arrive while a transaction is under way share the next one. Other processes may append to the same store: the last row
is read again under the store's lock and must carry our own checkpoint.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

import msgspec

from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey, add_signature, split_note
from policyguard.audit.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from policyguard.audit.handover import handover_leaf, is_handover, read_handover
from policyguard.audit.merkle import Range, Subtree, complete_subtrees, inclusion_paths, leaf_hash, range_of
from policyguard.audit.proofs import subtree_in
from policyguard.audit.receipt import Receipt
from policyguard.audit.stores import Row, Store
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import AuditError, VerificationError
from policyguard.text import quoted
from policyguard.values import Instant

MAX_GROUP = 4096
"""Entries of one transaction at most; more arrivals wait for the next."""


class _Tail(msgspec.Struct, frozen=True):
    """The end of the tree when it was last read; the note identifies it."""

    note: bytes | None
    size: int
    nodes: tuple[bytes, ...]


class _Waiter:
    __slots__ = ("leaves", "problem", "receipts")

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = leaves
        self.receipts: tuple[Receipt, ...] | None = None
        self.problem: BaseException | None = None


class Log:
    """An open log. Any number of threads may append."""

    def __init__(self, store: Store, key: PrivateKey, origin: str) -> None:
        self._store = store
        self._opened: SqliteStore | None = None
        self._key = key
        self.verifier = NoteKey(origin, key.public)
        """The key, with the log's name, that readers pin: `log.verifier.text` goes into trust files."""
        self._tail = _Tail(None, 0, ())
        self._successor: NoteKey | None = None
        self._queue: list[_Waiter] = []
        self._queue_lock = threading.Lock()
        self._commit_lock = threading.Lock()

    @classmethod
    def open(
        cls,
        where: Store | str | os.PathLike[str],
        key: PrivateKey,
        origin: str | None = None,
        *,
        create: bool = False,
    ) -> Log:
        """Open the log in a store or an SQLite file, and verify its last checkpoint with our own key.

        Args:
            origin: the log's name; None takes the name in the file, or for a new one `policyguard/` and the key id.
            create: make the file if it is not there.

        Raises:
            AuditError: the store is of another origin, its last entries do not add up to a tree that we signed, or
                the file cannot be opened for writing.
            ConfigurationError: `origin` cannot name a log.
        """
        if isinstance(where, str | os.PathLike):
            name = origin or f"policyguard/{key.keyid[:16]}"
            NoteKey(name, key.public)
            store = SqliteStore.open(where, origin=origin, create_as=name if create else None)
            try:
                log = cls.open(store, key, origin or store.origin)
            except BaseException:
                store.close()
                raise
            log._opened = store
            return log
        origin = origin or where.origin
        if where.origin != origin:
            raise AuditError(f"log is of origin {quoted(where.origin)}, expected {quoted(origin)}")
        log = cls(where, key, origin)
        log._follow(where.last())
        return log

    def close(self) -> None:
        """Close the file, if `open` opened it. Every returned receipt is already durable."""
        with self._commit_lock:
            if self._opened is not None:
                self._opened.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def size(self) -> int:
        """The number of entries when the log was last read or written here."""
        return self._tail.size

    def append(self, leaf: bytes) -> Receipt:
        """Append a leaf and return its receipt once it is durable. On `AuditError` it is not in the log."""
        return self.append_many((leaf,))[0]

    def append_many(self, leaves: Sequence[bytes]) -> tuple[Receipt, ...]:
        """Append leaves under one checkpoint; return a receipt for each, in order, once all are durable.

        All or nothing: on `AuditError` none of them is in the log.
        """
        if not leaves:
            return ()
        waiter = _Waiter(leaves)
        with self._queue_lock:
            self._queue.append(waiter)
        with self._commit_lock:
            while waiter.receipts is None and waiter.problem is None:
                self._lead()
        if waiter.receipts is None:
            raise AuditError(f"{waiter.problem}", entry=getattr(waiter.problem, "entry", None)) from waiter.problem
        return waiter.receipts

    def append_after(
        self, read: Callable[[Store, int, int], None], build: Callable[[], Sequence[bytes]]
    ) -> tuple[Receipt, ...]:
        """Append leaves that depend on every entry before them; return their receipts once they are durable.

        Args:
            read: gets the entries from one index to before another: first those that are there, while other processes
                may still append, and then, inside the transaction, those that came since.
            build: makes the leaves, inside the transaction.

        Raises:
            AuditError: as `append_many`. What `read` and `build` raise is passed on, and nothing was added.
        """
        with self._commit_lock:
            before = _size(self._store.last())
            read(self._store, 0, before)

            def build_in_transaction(last: Row | None) -> Sequence[bytes]:
                # INVARIANT I9: no process or thread appends between the last reading of the log and the append.
                read(self._store, before, _size(last))
                return build()

            return self._commit(build_in_transaction)

    def hand_over(self, new: PrivateKey, now: Instant) -> Receipt:
        """Append the entry that hands this log over to a new key; afterwards this object, and its key, append nothing.

        Raises:
            ConfigurationError: it is the same key.
            AuditError: as `append`.
        """
        leaf = handover_leaf(self.verifier.name, self._key, new, now)
        successor = NoteKey(self.verifier.name, new.public)
        with self._commit_lock:

            def sign(size: int, root: bytes) -> bytes:
                return add_signature(self._sign(size, root), successor, new)

            receipt = self._commit(lambda _: (leaf,), sign)[0]
            self._successor = successor
        return receipt

    def _lead(self) -> None:
        """Commit what is waiting in one transaction, and give each waiter its receipts or the error."""
        with self._queue_lock:
            group = _first_group(self._queue)
            del self._queue[: len(group)]
        try:
            leaves = [leaf for waiter in group for leaf in waiter.leaves]
            receipts = self._commit(lambda _: leaves)
        except BaseException as problem:
            for waiter in group:
                waiter.problem = problem
            if not isinstance(problem, AuditError):
                raise
            return
        at = 0
        for waiter in group:
            waiter.receipts = receipts[at : at + len(waiter.leaves)]
            at += len(waiter.leaves)

    def _commit(
        self, build: Callable[[Row | None], Sequence[bytes]], sign: Callable[[int, bytes], bytes] | None = None
    ) -> tuple[Receipt, ...]:
        """Append the leaves that `build` makes after the last row, in one transaction."""
        if self._successor is not None:
            raise _handed_over(self._successor)
        grown: list[tuple[_Tail, tuple[Receipt, ...]]] = []

        def grow(last: Row | None) -> Sequence[Row]:
            tail = self._follow(last)
            rows, after, receipts = _grow(tail, build(last), sign or self._sign)
            grown.append((after, receipts))
            return rows

        self._store.append(grow)
        # INVARIANT I12: nothing is acknowledged before it is durable: the store has returned.
        self._tail, receipts = grown[0]
        return receipts

    def _sign(self, size: int, root: bytes) -> bytes:
        return sign_checkpoint(Checkpoint(self.verifier.name, size, root), self.verifier, self._key)

    def _follow(self, last: Row | None) -> _Tail:
        """Read the tail of the store again if another process has appended."""
        tail = self._tail
        if last is not None and last.checkpoint == tail.note and last.entry + 1 == tail.size:
            return tail
        size = _size(last)
        if size <= tail.size and (size or tail.size):
            raise AuditError(f"log shrank or changed: it has {size} entries, expected {tail.size} that we have seen")
        if last is not None:
            self._tail = self._reload(last, size)
        return self._tail

    def _reload(self, last: Row, size: int) -> _Tail:
        # INVARIANT I13: we sign on top of a tree only if our own signature under exactly that tree is in the store.
        if last.checkpoint is None:
            raise AuditError(
                f"entry {last.entry} carries no checkpoint, expected one after the last entry", entry=last.entry
            )
        try:
            checkpoint = open_checkpoint(last.checkpoint, (self.verifier,))
        except VerificationError as problem:
            raise AuditError(
                f"entry {last.entry}: {problem.message}; a new key takes over a log by `policyguard keys rotate`",
                entry=last.entry,
            ) from None
        # INVARIANT I10: the key that handed the log over appends nothing after that entry.
        # The checkpoint of a handover has a second signature; stores do not read the leaf of the last row.
        if len(split_note(last.checkpoint)[1]) > 1:
            self._check_not_handed_over(last.entry)
        tree = range_of(size, subtree_in(self._store))
        if (checkpoint.size, checkpoint.root) != (size, tree.root()):
            raise AuditError(
                f"the last {size} entries do not add up to the tree of {checkpoint.size} that the log signed",
                entry=last.entry,
            )
        return _Tail(last.checkpoint, size, tuple(tree.nodes))

    def _check_not_handed_over(self, entry: int) -> None:
        for row in self._store.read(entry, entry + 1):
            if not is_handover(row.leaf):
                continue
            try:
                handover = read_handover(row.leaf)
            except VerificationError as problem:
                raise AuditError(f"entry {entry}: {problem.message}", entry=entry) from None
            if handover.old == self.verifier:
                raise _handed_over(handover.new)


def _handed_over(successor: NoteKey) -> AuditError:
    return AuditError(f"log was handed over to `{successor.text}`, expected that key; configure it as `key:`")


def _size(last: Row | None) -> int:
    return 0 if last is None else last.entry + 1


def _grow(
    tail: _Tail, leaves: Sequence[bytes], sign: Callable[[int, bytes], bytes]
) -> tuple[list[Row], _Tail, tuple[Receipt, ...]]:
    """Compute the rows that add these leaves to the tree, the tail after them, and a receipt for each."""
    first = tail.size
    tree = Range(first, tail.nodes)
    hashes = [tree.append(leaf_hash(leaf)) for leaf in leaves]
    note = sign(tree.size, tree.root())
    after = _Tail(note, tree.size, tuple(tree.nodes))
    if len(leaves) == 1:
        # The newest leaf's siblings are the complete subtrees that were there before, smallest first.
        return [Row(first, leaves[0], b"".join(hashes[0]), note)], after, (Receipt(note, first, tail.nodes[::-1]),)
    rows = [
        Row(index, leaf, b"".join(completed), None if index < tree.size - 1 else note)
        for index, (leaf, completed) in enumerate(zip(leaves, hashes, strict=True), first)
    ]
    paths = inclusion_paths(first, tree.size, _subtree_of(tail, hashes))
    return rows, after, tuple([Receipt(note, index, path) for index, path in enumerate(paths, first)])


def _subtree_of(tail: _Tail, hashes: Sequence[Sequence[bytes]]) -> Subtree:
    """Look up subtrees for the proofs of new leaves: those complete before, and those completed since."""
    known = dict(zip(complete_subtrees(0, tail.size), tail.nodes, strict=True))

    def subtree(level: int, index: int) -> bytes:
        last = ((index + 1) << level) - 1
        return hashes[last - tail.size][level] if last >= tail.size else known[level, index]

    return subtree


def _first_group(queue: Sequence[_Waiter]) -> list[_Waiter]:
    group: list[_Waiter] = []
    count = 0
    for waiter in queue:
        count += len(waiter.leaves)
        if group and count > MAX_GROUP:
            break
        group.append(waiter)
    return group
