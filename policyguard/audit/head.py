"""The head file: the newest state of a log that a guard has seen, stored apart from the log.

A log can prove that it is consistent, but not that it is the newest state: an older copy, a fork or a new file is
consistent, too. The head file shows the difference. It contains the last signed checkpoint, the highest epoch of each
policy set and the highest sequence of the revocation lists, and is stored in the state folder under a name made of the
log's origin and file name. A log that was renamed has no head file under its new name; it is refused, because the log
itself records that it once had one.

    file   = slot slot                                  ; each SLOT_BYTES long, the newer one counts
    slot   = sha256-hex16 SP length SP json LF          ; the digest covers the JSON

Crash story, in the order of the writes:

1. The head file is created with an empty head and synced, with its folder, before the log is created. The first byte of
   the first head is written last: a crash leaves a file that counts as empty, or the whole head.
2. After each commit of the log, the new head is written to the slot that does not contain the newest one. A crash in
   the middle leaves the other slot intact: a head that is one commit old, which the log extends.
3. No receipt is returned before the head is written, so a killed process never leaves a head older than what it has
   acknowledged. The head is synced at least once a second. A power loss can lose the heads of the last second, but no
   log entries; only if the log lost exactly those entries as well would nobody notice until the next commit.

A head never moves backwards: writers hold a lock file and keep a newer head. Only a reset or a rotation, which increase
the generation, replace a head by one with fewer entries.
"""

# Annotations are values here: msgspec compiles each that is text when a process first decodes.

import errno
import hashlib
import os
import stat
import threading
import time
from collections.abc import Mapping
from typing import Self

import msgspec

from policyguard.audit.checkpoint import Checkpoint, read_checkpoint
from policyguard.errors import AuditError, ConfigurationError, VerificationError
from policyguard.fs.private_files import PRIVATE_FLAGS, FolderState, Locked, check_mode, identity_of, open_lock
from policyguard.fs.safe_open import open_plain, reason_of

SLOT_BYTES = 16_384
RESERVE_BYTES = 1024
"""The room that a new policy set or revocation key leaves free for longer checkpoints, epochs and sequences."""

SYNC_EVERY_S = 1.0
_RESET = "find out who changed it, verify the log, then `policyguard audit accept-reset --reason TEXT`"


class PolicyHead(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The highest epoch at which a policy set was used, and the first digest used at that epoch."""

    epoch: int
    digest: str


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the head file stores about a log; `note` is the newest checkpoint, None while the log is empty."""

    format: str = "policyguard head v1"
    generation: int = 0
    log: str = ""
    """The path of the log when the head was written, for messages."""
    note: str | None = None
    policies: Mapping[str, PolicyHead] = {}
    revocations: Mapping[str, int] = {}
    """The highest sequence of a revocation list, by the id of each key that trust pinned for it."""

    def checkpoint(self) -> Checkpoint | None:
        """Parse the stored checkpoint without verifying it; None for a log without entries."""
        return None if self.note is None else read_checkpoint(self.note.encode())


_DECODER = msgspec.json.Decoder(Head)
_ENCODER = msgspec.json.Encoder(order="sorted")


class HeadLocation(msgspec.Struct, frozen=True):
    """Where a head file is stored: the state folder, and the log's file name."""

    state_dir: str
    log_name: str

    @classmethod
    def of(cls, log: str | os.PathLike[str], state_dir: str | os.PathLike[str] | None = None) -> Self:
        """Build the location for the log at this path; the state folder defaults to the log's own folder."""
        folder, name = os.path.split(os.fspath(log))
        return cls(os.fspath(state_dir) if state_dir is not None else folder or ".", name)


def head_path(location: HeadLocation, origin: str) -> str:
    """Build the path of the head file for the log of this origin."""
    name = f"{origin}/{location.log_name}"
    readable = "".join(c if c.isascii() and (c.isalnum() or c in "-._") else "_" for c in name)[:48]
    return os.path.join(location.state_dir, f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:12]}.head")


class HeadFile:
    """An open head file. Not thread-safe; `Log` serializes the calls."""

    def __init__(self, path: str, handle: int, lock: int, help: str = _RESET) -> None:
        self.path = path
        self._help = help
        self._handle = handle
        self._lock = lock
        # The bytes of each slot that `_head` was parsed from; None for a slot that is empty or cut short.
        self._known: list[bytes | None] = [None, None]
        self._head: Head | None = None
        self._size = 0
        self._slot = 0
        self._synced = time.monotonic()
        self._timer: threading.Timer | None = None
        self._identity = identity_of(os.fstat(handle))
        self._folder = FolderState(os.path.dirname(path))
        self._path_checked = 0.0

    @classmethod
    def open(cls, location: HeadLocation, origin: str, *, help: str = _RESET) -> Self:
        """Open the head file of a log, creating it with mode 0600 if it does not exist.

        Args:
            location: where it is.
            origin: the log's name.
            help: what to do about a file that was changed.

        Raises:
            AuditError: the state folder or the file cannot be used, or others may read or change the file.
        """
        path = head_path(location, origin)
        handle = -1
        try:
            if not os.path.isdir(location.state_dir):
                os.mkdir(location.state_dir, 0o700)
            handle = os.open(path, PRIVATE_FLAGS, 0o600)
            _check_private(path, os.fstat(handle))
            return cls(path, handle, open_lock(path.removesuffix(".head") + ".lock"), help)
        except AuditError:
            os.close(handle)
            raise
        except OSError as problem:
            if handle >= 0:
                os.close(handle)
            raise AuditError(
                f"head file `{path}` cannot be opened: {reason_of(problem)}",
                help="let the guard's account write the state folder, or name another one with `stateDir:`",
            ) from None

    def read(self) -> tuple[Head | None, int]:
        """Return the newest head and the number of entries it covers; None and 0 for a new file.

        Raises:
            AuditError: the file was replaced or removed since it was opened, or neither slot can be read.
        """
        self.check_path()
        self._read_slots()
        return self._head, self._size

    def check_path(self) -> None:
        """Raise unless the path still leads to the open file.

        A folder above it that was renamed shows after a second.

        Raises:
            AuditError: the file was replaced or removed since it was opened.
        """
        if self._folder.is_unchanged() and time.monotonic() < self._path_checked + SYNC_EVERY_S:
            return
        begun = self._folder.begin()
        try:
            identity = identity_of(os.stat(self.path, follow_symlinks=False))
        except OSError as problem:
            raise AuditError(f"head file `{self.path}` is gone: {reason_of(problem)}", help=self._help) from None
        # INVARIANT I13: a head file that was put in the place of ours decides nothing.
        if identity != self._identity:
            raise AuditError(
                f"head file `{self.path}` was replaced, expected the file that this guard opened", help=self._help
            )
        self._folder.mark(begun)
        self._path_checked = time.monotonic()

    def _read_slots(self) -> None:
        first, second = self._known
        # What follows a whole slot says nothing: slots that begin as they did are the same.
        if (
            first is None
            or second is None
            or os.pread(self._handle, len(first), 0) != first
            or os.pread(self._handle, len(second), SLOT_BYTES) != second
        ):
            self._parse(os.pread(self._handle, 2 * SLOT_BYTES, 0))

    def _parse(self, data: bytes) -> None:
        parts = (data[:SLOT_BYTES], data[SLOT_BYTES:])
        slots = [_read_slot(part) for part in parts]
        order = [(-1, -1) if slot is None else (slot[0].generation, slot[1]) for slot in slots]
        newest = int(order[1] > order[0])
        chosen = slots[newest]
        # A slot without its first byte is the first head of a new file, which was never completed.
        if chosen is None and any(part[:1].strip(b"\0") for part in parts):
            raise AuditError(
                f"head file `{self.path}` is damaged, expected a head in one of its two slots",
                help=self._help,
            )
        before = (self._head.generation, self._size) if self._head is not None else (-1, -1)
        if max(order) < before:
            raise AuditError(
                f"head file `{self.path}` went back, expected generation and size of at least {before}", help=self._help
            )
        self._known = [
            b"".join(part.partition(b"\n")[:2]) if slot is not None else None
            for part, slot in zip(parts, slots, strict=True)
        ]
        self._slot = newest
        self._head, self._size = chosen if chosen is not None else (None, 0)

    def write(self, head: Head, size: int) -> Head:
        """Write a head, unless another process has already written a newer one; return the newest.

        The path is not checked again: `read` checked it in the same transaction, and a head file that is replaced in
        between is refused in the next one.

        Raises:
            AuditError: the file is damaged, cannot be written, or has no room for it.
        """
        try:
            with Locked(self._lock):
                newest = self._write(head, size)
        except OSError as problem:
            raise self._unwritable(problem) from None
        if newest is head:
            self._sync_in_time()
        return newest

    def _write(self, head: Head, size: int) -> Head:
        self._read_slots()
        newest = self._head
        if newest is not None and (newest.generation, self._size) > (head.generation, size):
            return newest
        slot = _slot_of(head)
        # `check_room` refuses it before anything is added; a longer one would reach into the other slot.
        if len(slot) > SLOT_BYTES:
            raise AuditError(f"head of {len(slot)} bytes is too large, expected at most {SLOT_BYTES}", help=self._help)
        at = 1 - self._slot if newest is not None else 0
        if newest is None:
            self._put(slot[1:], 1)
            os.fdatasync(self._handle)
            self._put(slot[:1], 0)
            _sync_folder(self.path)
        else:
            self._put(slot, at * SLOT_BYTES)
        # What the file holds now, so that our own head is not parsed again at the next read.
        self._known[at] = slot
        self._head, self._size, self._slot = head, size, at
        return head

    def _put(self, data: bytes, offset: int) -> None:
        if os.pwrite(self._handle, data, offset) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read_or_none(self) -> Head | None:
        """Return the newest head; None if the file is damaged."""
        try:
            return self.read()[0]
        except AuditError:
            return None

    def reset(self, head: Head, size: int) -> None:
        """Replace the stored head by one of a later generation, even with fewer entries, and sync the file.

        A crash in the middle leaves the old head; of a damaged file it leaves an empty one. Either refuses the log.

        Raises:
            AuditError: it cannot be written or synced.
        """
        if self.read_or_none() is None:
            try:
                with Locked(self._lock):
                    os.ftruncate(self._handle, 0)
                    self._known, self._head, self._size, self._slot = [None, None], None, 0, 1
            except OSError as problem:
                raise self._unwritable(problem) from None
        self.write(head, size)
        self.sync()

    def _unwritable(self, problem: OSError) -> AuditError:
        return AuditError(f"head file `{self.path}` cannot be written: {reason_of(problem)}")

    def _sync_in_time(self) -> None:
        """Sync now if the last sync was over a second ago, else schedule one within a second."""
        if self._timer is not None:
            return
        rest_s = self._synced + SYNC_EVERY_S - time.monotonic()
        if rest_s <= 0:
            self.sync()
            return
        self._timer = threading.Timer(rest_s, self._sync_late)
        self._timer.daemon = True
        self._timer.start()

    def _sync_late(self) -> None:
        self._timer = None
        try:
            self.sync()
        except AuditError:
            # The next write, or `close`, reports it; a thread has nobody to report to.
            self._synced = 0.0

    def sync(self) -> None:
        """Flush the head to disk.

        Raises:
            AuditError: it cannot be synced.
        """
        try:
            os.fdatasync(self._handle)
        except OSError as problem:
            raise AuditError(f"head file `{self.path}` cannot be synced: {reason_of(problem)}") from None
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and close the file."""
        if self._handle == -1:
            return
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        try:
            self.sync()
        finally:
            os.close(self._handle)
            os.close(self._lock)
            self._folder.close()
            self._handle = -1


def check_room(head: Head, reserve: int = RESERVE_BYTES) -> None:
    """Check, before anything is added to the log, that its head has room for these policy sets and revocation keys.

    Raises:
        ConfigurationError: it has none, with `reserve` bytes for longer checkpoints and numbers.
    """
    # INVARIANT I12: bounds at writing: a head that cannot be written would leave entries without receipts.
    if len(_slot_of(head)) > SLOT_BYTES - reserve:
        raise ConfigurationError(
            f"the head file of the log has no room for more: found {len(head.policies)} policy sets and "
            f"{len(head.revocations)} revocation keys, expected at most {SLOT_BYTES - reserve} bytes of them",
            help="nothing was added; keep one `metadata.name` for one set of policies, or name another log with `log:`",
        )


def _slot_of(head: Head) -> bytes:
    body = _ENCODER.encode(head)
    return b"%b %d %b\n" % (hashlib.sha256(body).hexdigest()[:16].encode(), len(body), body)


def read_head(location: HeadLocation, origin: str) -> Head | None:
    """Read a head without write access, for auditors; None if it does not exist or cannot be read."""
    return _read_path(head_path(location, origin))


def other_head(path: str, log: str) -> str | None:
    """Find a head file of another key or origin in the same folder that names this log; None if there is none."""
    folder = os.path.dirname(path)
    for name in sorted(os.listdir(folder)):
        other = os.path.join(folder, name)
        if name.endswith(".head") and other != path:
            head = _read_path(other)
            if head is not None and head.note is not None and head.log == log:
                return other
    return None


def _read_path(path: str) -> Head | None:
    try:
        # Never through a link, and never waiting for the other end of a FIFO.
        handle, _ = open_plain(path)
        try:
            data = os.pread(handle, 2 * SLOT_BYTES, 0)
        finally:
            os.close(handle)
    except OSError:
        return None
    slots = [slot for slot in (_read_slot(data[:SLOT_BYTES]), _read_slot(data[SLOT_BYTES:])) if slot is not None]
    return max(slots, key=lambda slot: (slot[0].generation, slot[1]))[0] if slots else None


def _sync_folder(path: str) -> None:
    # Only a new file pays for this import.
    from policyguard.fs.write import sync_folder

    sync_folder(os.path.dirname(path) or ".")


def _check_private(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise AuditError(f"head file `{path}` is not a regular file")
    check_mode(path, status, noun="head file ", advised="600")


def _read_slot(slot: bytes) -> tuple[Head, int] | None:
    """Parse a slot into head and number of entries; None if it is empty or was only partly written."""
    digest, _, rest = slot.partition(b" ")
    length, _, rest = rest.partition(b" ")
    # A slot's length has five digits at most; `int` refuses thousands of them.
    if not length.isdigit() or len(length) > 5:
        return None
    body = rest[: int(length)]
    if hashlib.sha256(body).hexdigest()[:16].encode() != digest:
        return None
    try:
        head = _DECODER.decode(body)
        checkpoint = head.checkpoint()
    except (msgspec.DecodeError, UnicodeDecodeError, VerificationError):
        return None
    return head, 0 if checkpoint is None else checkpoint.size
