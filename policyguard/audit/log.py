"""The decision log: an append-only Merkle tree over envelopes, with a signed checkpoint after every transaction.

A receipt is returned only when its entry, and the checkpoint that covers it, are durable in the store. Threads that
arrive during a transaction share the next one. Other processes may append to the same store.

The steps of one transaction, and what a crash after each leaves:

1. The store takes its write lock, so that no other process appends until the commit. A crash releases the lock.
2. The path of the log must still lead to the open file, which must not have shrunk (`stores/sqlite.py`).
3. The last row must have a checkpoint, signed by our own key, over exactly the tree in the store (`_follow`).
4. The head file must name a state that this tree contains (`_check_head`); a log that is older than its head, or a
   different one, is refused.
5. The policies that decided must not be older than those that the log has seen (`policy_epochs.py`).
6. The leaves are built and hashed, and the checkpoint is signed. A crash here leaves the log unchanged.
7. Rows and checkpoint are committed and synced. A crash here leaves entries without receipts.
8. The new checkpoint is written to the head file (`head.py`). A crash before this leaves a head one transaction old.
9. The receipts are returned.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey, add_signature, split_note
from policyguard.audit.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from policyguard.audit.group_commit import Waiter, WaitingLeaves, admit, hand_out
from policyguard.audit.head import RESERVE_BYTES, Head, HeadFile, HeadLocation, PolicyHead, check_room, other_head
from policyguard.audit.merkle import Range, range_of
from policyguard.audit.policy_epochs import PolicyUse, SeenEntries, check_use, is_edited, with_use
from policyguard.audit.proofs import Tail, grow, subtree_in
from policyguard.audit.receipt import Receipt
from policyguard.audit.stores import Row
from policyguard.audit.stores.sqlite import SqliteStore, is_blank
from policyguard.errors import AuditError, VerificationError
from policyguard.fs.open_databases import BUSY_TIMEOUT_S
from policyguard.text import quoted
from policyguard.values import Instant

if TYPE_CHECKING:
    from policyguard.audit.stores.interface import Store

RESET = "find out where the newest log is; to go on with this one: `policyguard audit accept-reset --reason TEXT`"


class _File:
    """The file that `Log.open` opened, and its head file."""

    def __init__(self, store: SqliteStore, head: HeadFile) -> None:
        self.store = store
        self.head = head


class Log:
    """An open decision log. Thread-safe."""

    def __init__(self, store: Store, key: PrivateKey, origin: str, file: _File | None = None) -> None:
        self._store = store
        self._file = file
        self._checked: Head | None = None
        """The head that was last compared with the log."""
        self._seen = SeenEntries()
        self._fitting: tuple[Mapping[str, PolicyHead], Mapping[str, int]] = ({}, {})
        """The policies and revocation lists for which the head file was found to have room."""
        self._key = key
        self.verifier = NoteKey(origin, key.public)
        """The key, with the log's name, that readers pin: `log.verifier.text` goes into trust files."""
        self._tail = Tail(None, 0, ())
        self._own: Tail | None = None
        """The tail for which this process wrote the head last."""
        self._successor: NoteKey | None = None
        self._queue = WaitingLeaves()
        self._commit_lock = threading.Lock()

    @classmethod
    def open(
        cls,
        where: Store | str | os.PathLike[str],
        key: PrivateKey,
        origin: str | None = None,
        *,
        create: bool = False,
        state_dir: str | os.PathLike[str] | None = None,
        wait_s: float = BUSY_TIMEOUT_S,
    ) -> Log:
        """Open the log in this store or SQLite file, and verify its last checkpoint with our own key.

        Args:
            where: the store, or the path of an SQLite file, which is compared with its head file.
            key: signs the checkpoints.
            origin: the log's name; None takes the name in the file, or for a new one `policyguard/` and the key id.
            create: make the file if it is not there.
            state_dir: the folder of the head file of an SQLite file; by default the folder of the log.
            wait_s: how long a transaction waits for other processes.

        Raises:
            AuditError: the store is of another origin, its last entries do not add up to a tree that we signed, it is
                not the log that its head file names, or the file cannot be opened for writing.
            ConfigurationError: `origin` cannot name a log.
        """
        if isinstance(where, str | os.PathLike):
            location = HeadLocation.of(where, state_dir)
            return _open_file(cls, os.fspath(where), key, origin, create=create, location=location, wait_s=wait_s)
        origin = origin or where.origin
        if where.origin != origin:
            raise AuditError(f"log is of origin {quoted(where.origin)}, expected {quoted(origin)}")
        log = cls(where, key, origin)
        log._follow(where.last())
        return log

    def close(self) -> None:
        """Close the store and the head file. Every returned receipt is already durable."""
        with self._commit_lock:
            if self._file is not None:
                self._file.store.close()
                self._file.head.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def store(self) -> Store:
        """The store that holds the entries."""
        return self._store

    @property
    def size(self) -> int:
        """The number of entries when this process last read or wrote the log."""
        return self._tail.size

    def is_edited(self, policies: PolicyUse) -> bool:
        """Return True if the log has seen other policies under this name and epoch.

        Raises:
            ConfigurationError: the log has seen newer ones, or a signed snapshot has another digest.
        """
        return is_edited(policies, self._seen.policies)

    def append(self, leaf: bytes) -> Receipt:
        """Append one leaf and return its receipt once it is durable; raises `AuditError` if nothing was released."""
        return self.append_many((leaf,))[0]

    def append_many(self, leaves: Sequence[bytes], policies: PolicyUse | None = None) -> tuple[Receipt, ...]:
        """Append leaves in order under one checkpoint; return their receipts once all are durable.

        Args:
            leaves: the entries.
            policies: those that decided, if the leaves are decisions.

        Raises:
            AuditError: all or nothing: no receipt is released. `PoliciesMovedOn` asks to make the statements again.
            ConfigurationError: the log has seen newer policies.
        """
        waiter = Waiter(leaves, policies)
        self._queue.add(waiter)
        with self._commit_lock:
            while not waiter.is_answered:
                self._lead()
        return waiter.answer()

    def append_after(
        self,
        read: Callable[[Store, int, int], None],
        build: Callable[[], Sequence[bytes]],
        policies: PolicyUse | None = None,
    ) -> tuple[Receipt, ...]:
        """Append leaves that depend on all earlier entries; return their receipts once they are durable.

        Args:
            read: gets the entries from one index to before another: first those that are there, while other processes
                may still append, and then, inside the transaction, those that came since.
            build: makes the leaves, inside the transaction.
            policies: those that decide.

        Raises:
            AuditError: as `append_many`. What `read` and `build` raise is passed on, and nothing was added.
        """
        with self._commit_lock:
            before = _size(self._store.last())
            read(self._store, 0, before)

            def build_in_transaction(last: Row | None) -> Sequence[bytes]:
                # INVARIANT I9: no process or thread appends between the last reading of the log and the append.
                read(self._store, before, _size(last))
                if policies is not None:
                    check_use(policies, self._seen.policies)
                    self._check_room(with_use(policies, self._seen.policies), self._seen.revocations)
                return build()

            return self._commit(build_in_transaction, () if policies is None else (policies,))

    def remember_list(self, keys: Sequence[str], sequence: int, now: Instant) -> int:
        """Record that a revocation list was used; only a newer one than before becomes an entry.

        Args:
            keys: the ids of the keys that trust pins for the list.
            sequence: of the list.
            now: the current time.

        Returns:
            The highest sequence that this log has seen of a list of these keys, this one included.

        Raises:
            AuditError: as `append`.
        """
        # Only where trust names a list is this imported.
        from policyguard.audit.revocation_lists import highest_sequence, is_known, list_leaf, with_list

        def build(_: Row | None) -> Sequence[bytes]:
            known = self._seen.revocations
            if sequence < highest_sequence(keys, known) or is_known(keys, sequence, known):
                return ()
            self._check_room(self._seen.policies, with_list(keys, sequence, self._seen.revocations))
            return (list_leaf(keys, sequence, now, self._key),)

        def remember() -> None:
            self._seen.revocations = with_list(keys, sequence, self._seen.revocations)

        with self._commit_lock:
            self._commit(build, when_durable=remember)
            return max(sequence, highest_sequence(keys, self._seen.revocations))

    def hand_over(self, new: PrivateKey, now: Instant) -> Receipt:
        """Append the entry that hands this log over to a new key; this object cannot append afterwards.

        Raises:
            ConfigurationError: it is the same key.
            AuditError: as `append`.
        """
        # Only a change of keys pays for this import.
        from policyguard.audit.handover import handover_leaf

        leaf = handover_leaf(self.verifier.name, self._key, new, now)
        successor = NoteKey(self.verifier.name, new.public)
        with self._commit_lock:

            def sign(size: int, root: bytes) -> bytes:
                return add_signature(self._sign(size, root), successor, new)

            receipt = self._commit(lambda _: (leaf,), sign=sign)[0]
            self._successor = successor
        return receipt

    def _lead(self) -> None:
        """Commit the waiting leaves in one transaction, and give each waiter its receipts or its error."""
        group = self._queue.take_group()
        admitted: list[Waiter] = []
        uses: list[PolicyUse] = []

        def build(_: Row | None) -> Sequence[bytes]:
            nonlocal admitted
            admitted = admit(
                group, self._seen.policies, lambda policies: self._check_room(policies, self._seen.revocations)
            )  # Step 5.
            uses[:] = [waiter.policies for waiter in admitted if waiter.policies is not None]
            return [leaf for waiter in admitted for leaf in waiter.leaves]

        try:
            receipts = self._commit(build, uses)
        except BaseException as problem:
            for waiter in group:
                waiter.problem = waiter.problem or problem
            if not isinstance(problem, AuditError):
                raise
            return
        hand_out(receipts, admitted)

    def _commit(
        self,
        build: Callable[[Row | None], Sequence[bytes]],
        uses: Sequence[PolicyUse] = (),
        sign: Callable[[int, bytes], bytes] | None = None,
        when_durable: Callable[[], None] | None = None,
    ) -> tuple[Receipt, ...]:
        """Append the leaves that `build` returns in one transaction, by the numbered steps above."""
        if self._successor is not None:
            # Only a change of keys pays for this import.
            from policyguard.audit.handover import handed_over

            raise handed_over(self._successor)
        grown: list[tuple[Tail, tuple[Receipt, ...]]] = []

        def rows_after(last: Row | None) -> Sequence[Row]:
            # Steps 1 and 2 are the store's.
            tail = self._follow(last)
            self._check_head(tail)
            self._seen.read(self._store, tail.size)
            self._check_room(self._seen.policies, self._seen.revocations, RESERVE_BYTES // 2)
            leaves = build(last)
            if not leaves:
                grown.append((tail, ()))
                return ()
            rows, after, receipts = grow(tail, leaves, sign or self._sign)
            grown.append((after, receipts))
            return rows

        self._store.append(rows_after)
        # INVARIANT I12: nothing is acknowledged before it is durable: the store has returned.
        self._tail, receipts = grown[0]
        if receipts:
            if when_durable is not None:
                when_durable()
            self._seen.add_policies(uses, self._tail.size)
            if self._file is not None:
                self._write_head(self._file)
        return receipts

    def _check_head(self, tail: Tail) -> None:
        """Check that the log contains the state that the head file names. Step 4."""
        if self._file is not None:
            if tail is self._own:
                # Nobody has appended since this process wrote the head.
                self._file.head.check_path()
            else:
                self._compare(self._file, *self._file.head.read(), tail)

    def _compare(self, file: _File, head: Head | None, size: int, tail: Tail) -> None:
        if head is None or head is self._checked:
            return
        checkpoint = head.checkpoint()
        # INVARIANT I13: a log that is shorter than its head, or another one, is not continued.
        if size > tail.size:
            raise AuditError(
                f"log `{file.store.path}` has {tail.size} entries, expected at least {size}, as head file "
                f"`{file.head.path}` says of `{head.log}`: it was replaced by an older or a new one",
                help=RESET,
            )
        if checkpoint is not None and (head.note or "").encode() != tail.note:
            tree = Range(size, tail.nodes) if size == tail.size else range_of(size, subtree_in(self._store))
            if tree.root() != checkpoint.root:
                raise AuditError(
                    f"the first {size} entries of log `{file.store.path}` are not those that head file "
                    f"`{file.head.path}` names: it is a fork of `{head.log}`, or another log",
                    help=RESET,
                )
        self._seen.add_head(head, size)
        self._checked = head

    def policies_of_all(self) -> dict[str, PolicyHead]:
        """Return the newest epoch and digest of every policy set that the entries name."""
        self._seen.read(self._store, self._tail.size)
        return dict(self._seen.policies)

    @property
    def revocations(self) -> Mapping[str, int]:
        """The highest sequence of revocation lists that this log has seen, by key id."""
        return self._seen.revocations

    @contextmanager
    def held_still(self) -> Iterator[tuple[Head, HeadFile]]:
        """Lock the file against writers, with its WAL empty; yield the head and the head file.

        Raises:
            AuditError: the log is in use, or is not what its head file names.
        """
        with self._commit_lock:
            if self._file is None:
                raise AuditError("log is not in a file of its own, expected one")
            with self._file.store.held_still() as last:
                self._check_head(self._follow(last))
                self._seen.read(self._store, self._tail.size)
                yield self._write_head(self._file), self._file.head

    def _check_room(
        self, policies: Mapping[str, PolicyHead], revocations: Mapping[str, int], reserve: int = RESERVE_BYTES
    ) -> None:
        """Refuse, before the commit, what the head file has no room for; mappings that fitted are not encoded."""
        if self._file is not None and not (policies is self._fitting[0] and revocations is self._fitting[1]):
            check_room(self._head(self._file, policies, revocations), reserve)
            self._fitting = policies, revocations

    def _head(self, file: _File, policies: Mapping[str, PolicyHead], revocations: Mapping[str, int]) -> Head:
        note = self._tail.note
        return Head(
            generation=self._checked.generation if self._checked is not None else 0,
            log=file.store.real_path,
            note=None if note is None else note.decode(),
            policies=policies,
            revocations=revocations,
        )

    def _write_head(self, file: _File) -> Head:
        """Write the new checkpoint to the head file. Step 8; an error leaves entries without receipts."""
        head = self._head(file, self._seen.policies, self._seen.revocations)
        newest = file.head.write(head, self._tail.size)
        self._checked = head
        self._own = self._tail if newest is head else None
        return newest

    def _sign(self, size: int, root: bytes) -> bytes:
        return sign_checkpoint(Checkpoint(self.verifier.name, size, root), self.verifier, self._key)

    def _follow(self, last: Row | None) -> Tail:
        """Return the current end of the tree, and reload it if another process has appended."""
        tail = self._tail
        if last is not None and last.checkpoint == tail.note and last.entry + 1 == tail.size:
            return tail
        size = _size(last)
        if size <= tail.size and (size or tail.size):
            raise AuditError(f"log shrank or changed: it has {size} entries, expected {tail.size} that we have seen")
        if last is not None:
            self._tail = self._reload(last, size)
        return self._tail

    def _reload(self, last: Row, size: int) -> Tail:
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
            # Only a change of keys pays for this import.
            from policyguard.audit.handover import check_not_handed_over

            check_not_handed_over(self._store, last.entry, self.verifier)
        tree = range_of(size, subtree_in(self._store))
        if (checkpoint.size, checkpoint.root) != (size, tree.root()):
            raise AuditError(
                f"the last {size} entries do not add up to the tree of {checkpoint.size} that the log signed",
                entry=last.entry,
            )
        return Tail(last.checkpoint, size, tuple(tree.nodes))


def _open_file(
    kind: type[Log],
    path: str,
    key: PrivateKey,
    origin: str | None,
    *,
    create: bool,
    location: HeadLocation,
    wait_s: float,
) -> Log:
    """Open an SQLite file as a log and compare it with its head file.

    A log that is to be there and is not is never made anew: step 1 of the crash story of `head.py` comes first.
    """
    name = origin or f"policyguard/{key.keyid[:16]}"
    NoteKey(name, key.public)
    head: HeadFile | None = None
    store: SqliteStore | None = None
    try:
        if create and is_blank(path):
            head = _head_of_new(path, location, name)
        store = SqliteStore.open(path, origin=origin, create_as=name if create else None, wait_s=wait_s)
        if head is None:
            head = HeadFile.open(location, store.origin)
        file = _File(store, head)
        log = kind(store, key, origin or store.origin, file)
        # The head before the log: another process may append between the two, and the log is ahead of its head then.
        seen = head.read()
        log._follow(store.last())
        _adopt(log, file)
        log._compare(file, *seen, log._tail)
        log._seen.read(store, log._tail.size)
    except BaseException:
        if store is not None:
            store.close()
        if head is not None:
            head.close()
        raise
    return log


def _head_of_new(path: str, location: HeadLocation, origin: str) -> HeadFile:
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise AuditError(f"log `{path}` cannot be created: no such file or directory")
    head = HeadFile.open(location, origin)
    try:
        _check_new(head, path)
    except BaseException:
        head.close()
        raise
    return head


def _check_new(head: HeadFile, path: str) -> None:
    """Refuse to create a log that the head file says exists; otherwise write an empty head."""
    last, size = head.read()
    # INVARIANT I13: a log that was moved or deleted is not begun again in silence.
    if size and last is not None:
        raise AuditError(
            f"log `{path}` is gone, expected the {size} entries that head file `{head.path}` names of `{last.log}`",
            help=RESET,
        )
    other = other_head(head.path, os.path.abspath(path))
    if other is not None:
        raise AuditError(
            f"log `{path}` is gone, expected the one of another key or origin that head file `{other}` names",
            help=RESET,
        )
    if last is None:
        head.write(Head(log=os.path.abspath(path)), 0)
        head.sync()


def _adopt(log: Log, file: _File) -> None:
    """Create the head file of a log of version 0.1.0, which has none yet."""
    store, head = file.store, file.head
    last, _ = head.read()
    if last is not None:
        return
    if store.has_head and log.size:
        raise AuditError(
            f"log `{store.path}` has {log.size} entries and no head file, expected `{head.path}`: "
            "that was removed, or the log is a copy",
            help=RESET,
        )
    log._seen.read(store, log.size)
    log._write_head(file)
    head.sync()
    store.mark_head()


def _size(last: Row | None) -> int:
    return 0 if last is None else last.entry + 1
