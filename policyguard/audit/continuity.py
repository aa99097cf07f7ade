"""Rotation of a log to a new file, and acceptance of a log that does not match its head file.

Both add a link entry to the log that is used from then on, and increase the generation of the head file, so that an
older head can never replace the new one.

A reset, `accept_reset`:

    R1  Read the old head; with a witness, check its countersignature over that head. Nothing is written yet.
    R2  Append an entry with the old head, the reason and the countersigned note. After a crash here the log is still
        refused; run the verb again, which leaves two such entries.
    R3  Write the new head to the head file, with the policies that the old head listed, so that no older policies can
        be used afterwards.

A rotation, `rotate`:

    T1  Open the old log as a guard does, empty its WAL into the file, and take its write lock.
    T2  Create the new log as `PATH.next`, with one entry that names the head of the old log, and with the old log's
        claims (consumed approvals and open reservations). A crash leaves this file unused; the next rotation deletes
        it.
    T3  Write the head of the new log to the head file. From here until T4 guards refuse both files; after a crash, run
        the verb again to finish.
    T4  Rename the old files to the archive name and the new file to the old name, and sync the folder.

Guards that have the old file open refuse to append to it after a rotation; restart them.
"""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import structs

from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey, open_note
from policyguard.audit.approval_use import carry_claims
from policyguard.audit.checkpoint import parse_checkpoint
from policyguard.audit.head import Head, HeadFile, HeadLocation
from policyguard.audit.links import link_leaf, old_log
from policyguard.audit.log import Log
from policyguard.audit.policy_epochs import with_heads, with_sequences
from policyguard.audit.proofs import latest_note
from policyguard.audit.receipt import Receipt
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import AuditError, ConfigurationError, VerificationError
from policyguard.fs.private_files import DATABASE_FILES
from policyguard.fs.safe_open import reason_of
from policyguard.fs.write import sync_folder
from policyguard.text import quoted
from policyguard.values import Instant

MAX_REASON_CHARS = 2000


def accept_reset(
    path: str,
    key: PrivateKey,
    location: HeadLocation,
    *,
    reason: str,
    now: Instant,
    witness: NoteKey | None = None,
    countersigned: bytes | None = None,
) -> int:
    """Accept the log at this path, or start a new one, although the head file names a different state.

    Args:
        path, key, location: the log, created if it does not exist; its key; the location of its head file.
        reason, now: why and when it was reset; both are logged.
        witness, countersigned: the required witness, and its countersigned note over the old head's checkpoint.

    Returns:
        The index of the new entry.

    Raises:
        ConfigurationError: there is nothing to accept, no reason, or no countersignature.
        AuditError: the log at this path is not signed by this key, or cannot be written.
    """
    if not reason.strip() or len(reason) > MAX_REASON_CHARS:
        raise ConfigurationError(f"--reason: found {len(reason)} characters, expected 1 to {MAX_REASON_CHARS}")
    _check_needed(path, key, location)
    with SqliteStore.open(path, create_as=f"policyguard/{key.keyid[:16]}") as store:
        head_file = HeadFile.open(location, store.origin)
        try:
            old = head_file.read_or_none()  # R1
            note = _countersigned(old, store.origin, witness, countersigned)
            leaf = link_leaf("reset", old_log(old, store.origin), key, reason=reason, now=now, witness=note)
            log = Log.open(store, key, store.origin)
            receipt = log.append(leaf)  # R2
            head_file.reset(_head_after_reset(old, log, store.real_path, receipt), log.size)  # R3
            store.mark_head()
        finally:
            head_file.close()
    return receipt.index


def _head_after_reset(old: Head | None, log: Log, path: str, receipt: Receipt) -> Head:
    policies, revocations = ({}, {}) if old is None else (old.policies, old.revocations)
    return Head(
        generation=1 if old is None else old.generation + 1,
        log=path,
        note=receipt.checkpoint.decode(),
        policies=dict(with_heads(policies, log.policies_of_all())),
        revocations=dict(with_sequences(revocations, log.revocations)),
    )


def _check_needed(path: str, key: PrivateKey, location: HeadLocation) -> None:
    try:
        Log.open(path, key, state_dir=location.state_dir).close()
    except AuditError:
        return
    raise ConfigurationError(
        f"log `{path}` goes on from its head file, expected one that is refused: nothing to accept"
    )


def _countersigned(old: Head | None, origin: str, witness: NoteKey | None, note: bytes | None) -> str | None:
    """Check that the witness signed the old head and return its note as text; None without a witness."""
    if witness is None:
        return None
    wanted = old.checkpoint() if old is not None else None
    if note is None:
        text = "" if wanted is None else wanted.to_text().decode()
        raise ConfigurationError(
            f"--witness is missing, expected the checkpoint that `{witness.name}` has countersigned",
            help=f"have the witness sign the text {quoted(text)}, and give the note" if text else None,
        )
    try:
        signed = parse_checkpoint(open_note(note, (witness,))[0])
    except VerificationError as problem:
        raise ConfigurationError(f"--witness: {problem.message}") from None
    # INVARIANT I13: the witness has seen just the head that is given up.
    if signed.origin != origin or (wanted is not None and (signed.size, signed.root) != (wanted.size, wanted.root)):
        expected = f"{wanted.size} entries of {quoted(origin)}" if wanted is not None else quoted(origin)
        raise ConfigurationError(
            f"--witness: the note is about {signed.size} entries of {quoted(signed.origin)}, expected the old head of "
            f"{expected}"
        )
    return note.decode()


def rotate(
    path: str, key: PrivateKey, location: HeadLocation, *, archive: str | None, reason: str, now: Instant
) -> str:
    """Continue the log in a new file at the same path; the old file is renamed and linked from the first entry.

    Args:
        path: the log.
        key, location: the log's key, and the location of its head file.
        archive: the new path of the old log; by default its path and its number of entries.
        reason, now: why, and when; go into the link.

    Returns:
        The path of the old log.

    Raises:
        AuditError: the log is not what its head file names, is in use, or cannot be written.
        ConfigurationError: the archive's name is taken.
    """
    following = path + ".next"
    done = _finish(path, following, location, archive)
    if done is not None:
        return done
    with Log.open(path, key, state_dir=location.state_dir) as log:  # T1
        if not log.size:
            raise ConfigurationError(f"log `{path}` is empty, expected at least one entry to rotate")
        target = archive or f"{path}.{log.size}"
        _check_free(target)
        with log.held_still() as (head, head_file):
            leaf = link_leaf("rotated", old_log(head, log.verifier.name), key, reason=reason, now=now)
            note = _begin_log(following, log, key, leaf)  # T2
            head_file.reset(
                structs.replace(head, generation=head.generation + 1, log=os.path.abspath(path), note=note), 1
            )  # T3
            _move(path, following, target)  # T4
    return target


def _begin_log(path: str, before: Log, key: PrivateKey, link: bytes) -> str:
    """Make the log that follows another one, and return the checkpoint over its one entry, the link."""
    origin = before.verifier.name
    with SqliteStore.create(path, origin) as store:
        # INVARIANT I9: an approval that counted, and a reservation that holds, do so in the new log too.
        carry_claims(before.store, store)
        return Log.open(store, key, origin).append(link).checkpoint.decode()


def _finish(path: str, following: str, location: HeadLocation, archive: str | None) -> str | None:
    """Complete a rotation that crashed after step 3; None if there is none.

    What a crash before step 3 left is deleted.
    """
    if not os.path.lexists(following):
        return None
    with SqliteStore.open(following) as store:
        origin, note = store.origin, latest_note(store).decode() if store.last() is not None else None
    head_file = HeadFile.open(location, origin)
    try:
        head, _ = head_file.read()
    finally:
        head_file.close()
    if head is None or head.note != note or note is None:
        for suffix in DATABASE_FILES:
            Path(following + suffix).unlink(missing_ok=True)
        return None
    target = archive or path
    if os.path.lexists(path):
        with SqliteStore.open(path, read_only=True) as store:
            last = store.last()
        target = archive or f"{path}.{0 if last is None else last.entry + 1}"
        _check_free(target)
    _move(path, following, target)
    return target


def _check_free(target: str) -> None:
    for suffix in DATABASE_FILES:
        if os.path.lexists(target + suffix):
            raise ConfigurationError(f"{target + suffix}: exists already, expected a new path for the old log")


def _move(path: str, following: str, target: str) -> None:
    try:
        for suffix in DATABASE_FILES:
            if os.path.lexists(path + suffix):
                os.rename(path + suffix, target + suffix)
        os.rename(following, path)
        sync_folder(os.path.dirname(path) or ".")
    except OSError as problem:
        raise AuditError(
            f"log `{path}` cannot be moved to `{target}`: {reason_of(problem)}",
            help="run the rotation again",
        ) from None
