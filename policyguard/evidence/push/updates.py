"""What a push does to one reference: measured from the objects themselves, whatever the push says of itself.

Every commit that would enter the reference is read: who wrote it, who signed it, which paths it touches. A path counts
as changed if the trees before and after differ in it, or if any commit on the way touched it, so that a change which a
later commit takes back is seen as well. Shallow, grafted and replaced histories are refused: they show another past
than the commits tell.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from policyguard.attest.signers import Signers
from policyguard.errors import EvidenceError
from policyguard.evidence.approvals.from_git_notes import note_approvals
from policyguard.evidence.approvals.verify import RejectedApproval, SubmittedApproval
from policyguard.evidence.contributors import Commit, commit_accounts, signature_account
from policyguard.evidence.push.nonce import Nonces, nonces_of
from policyguard.evidence.push.objects import Trees, find_store, shallow_file
from policyguard.fs.safe_open import read_small
from policyguard.git.directory import MAX_PACKED_REFS_BYTES, GitDir
from policyguard.git.gpg import Keyring
from policyguard.git.objects import GITLINK, SYMLINK, Entry, ObjectReader, open_objects
from policyguard.git.refs import head, history_overrides, in_reftable, ref_id
from policyguard.text import printable_name

MAX_UPDATES = 1_000
MAX_PATHS = 50_000
"""A push that changes more paths is judged by nobody: the fact is absent and says so."""
MAX_COMMITS = 200_000
MAX_UNSIGNED = 1_000
MAX_REF_BYTES = 400

Change: TypeAlias = Literal["create", "update", "rewrite", "delete"]
_REFUSED = frozenset({"shallow", "grafts", "replace_refs", "partial"})
_LFS = b"version https://git-lfs.github.com/spec/v1\n"
_MAX_POINTER_BYTES = 1_024
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True, kw_only=True)
class RefUpdate:
    """One line of a push: from which object to which the reference moves; None is "does not exist"."""

    old: str | None
    new: str | None
    ref: str


@dataclass(slots=True, kw_only=True)
class MeasuredUpdate:
    """What was measured of one update. `tree` is None where the reference is deleted."""

    update: RefUpdate
    change: Change
    old_commit: str | None = None
    commit: str | None = None
    tree: str | None = None
    commits: int = 0
    paths: set[str] = field(default_factory=set)
    submodules: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    pointers: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)
    signers: set[str] = field(default_factory=set)
    unsigned: set[str] = field(default_factory=set)
    submitted: list[SubmittedApproval | RejectedApproval] = field(default_factory=list)


def parse_updates(text: bytes) -> tuple[RefUpdate, ...]:
    """Return the updates that git hands to a hook: update = old SP new SP ref LF.

    Raises:
        EvidenceError: anything else, no line at all, a reference twice, or a name that is not one line of text.
    """
    updates = [parse_update(*line.split(b" ", 2)) for line in text.splitlines() if line.count(b" ") >= 2]
    if not updates or len(updates) != len(text.splitlines()) or len(updates) > MAX_UPDATES:
        raise EvidenceError(f"found {len(text.splitlines())} lines, expected 1 to {MAX_UPDATES} of `OLD NEW REF`")
    if len({update.ref for update in updates}) != len(updates):
        raise EvidenceError("found a reference twice in one push")
    return tuple(updates)


def parse_update(old: bytes, new: bytes, ref: bytes) -> RefUpdate:
    """Return one update from its three words; an id of zeros, 40 or 64, says that the reference does not exist."""
    ids = [_object_id(word) for word in (old, new)]
    if len(old) != len(new) or (ids[0] is None and ids[1] is None):
        raise EvidenceError(
            f"found the update `{printable_name(old[:80])} {printable_name(new[:80])}`, "
            f"expected two object ids of one hash"
        )
    name = printable_name(ref)
    if not ref.startswith(b"refs/") or len(ref) > MAX_REF_BYTES:
        raise EvidenceError(f"found the reference `{name[:80]}`, expected `refs/...`")
    return RefUpdate(old=ids[0], new=ids[1], ref=name)


def _object_id(word: bytes) -> str | None:
    text = word.decode("ascii", "replace")
    if len(text) not in (40, 64) or not set(text) <= _HEX:
        raise EvidenceError(f"found `{printable_name(word[:80])}`, expected an object id of 40 or 64 hex digits")
    return text if text.strip("0") else None


class PushReader:
    """Measures the updates of one push. Holds a path set and a few trees, whatever the number of commits."""

    def __init__(
        self,
        directory: str,
        environment: Mapping[str, str],
        owners: Collection[int],
        signers: Signers,
        *,
        keyring: Keyring | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        self._directory, self._environment, self._owners = directory, environment, owners
        self._signers, self._keyring, self._timeout_s = signers, keyring, timeout_s

    def measure(self, updates: tuple[RefUpdate, ...], *, deep: bool = True) -> tuple[MeasuredUpdate, ...]:
        """Return what each update does; without `deep` only ids, tree and kind of change, no commit on the way.

        Raises:
            EvidenceError: the history can show another past, an object is missing or damaged, or git took too long.
        """
        git, quarantine = find_store(self._directory, self._environment, self._owners)
        self._refuse_other_histories(git)
        some = next(oid for update in updates for oid in (update.new, update.old) if oid is not None)
        with open_objects(git, some, time.monotonic() + self._timeout_s, quarantine=quarantine) as reader:
            measurer = _UpdateMeasurer(git, reader, self._signers, self._keyring)
            return tuple([measurer.measure(update, deep=deep) for update in updates])

    def current(self, ref: str) -> str | None:
        """Return the object a reference points to now, None if it does not exist."""
        git, _ = find_store(self._directory, self._environment, self._owners)
        return ref_id(git, os.fsencode(ref))

    def stays_packed_after_delete(self, ref: str, oid: str) -> bool:
        """Return whether a reference keeps this value when its own file goes: it is packed, and stays so.

        `git pack-refs` writes the packed file, unlocks it, and then deletes each reference's own file; a deletion holds
        the lock of the packed file while it asks the hook.
        """
        git, _ = find_store(self._directory, self._environment, self._owners)
        packed = os.path.join(git.shared, "packed-refs")
        if in_reftable(git) or os.path.lexists(packed + ".lock") or not os.path.lexists(packed):
            return False
        return f"{oid} {ref}".encode() in read_small(packed, MAX_PACKED_REFS_BYTES).split(b"\n")

    def nonces(self, max_age_s: int) -> Nonces:
        """Return what the nonces of this repository are made from."""
        git, _ = find_store(self._directory, self._environment, self._owners)
        return nonces_of(git, max_age_s=max_age_s)

    def read_blob(self, oid: str, limit_bytes: int) -> bytes | None:
        """Return a blob of the push or the repository, None if it is longer; a push certificate, say."""
        git, quarantine = find_store(self._directory, self._environment, self._owners)
        with open_objects(git, oid, time.monotonic() + self._timeout_s, quarantine=quarantine) as reader:
            return reader.read_small_blob(oid, limit_bytes)

    def _refuse_other_histories(self, git: GitDir) -> None:
        # INVARIANT I142: a shallow, grafted, replaced or partial history is refused, never judged.
        doors = sorted(_REFUSED.intersection(history_overrides(git)))
        if shallow_file(self._directory, self._environment):
            doors.append("shallow push")
        if doors:
            raise EvidenceError(
                f"`{printable_name(git.shared)}`: can show another history than its commits tell ({', '.join(doors)})",
                help="push from a full clone to a repository without shallow, graft and replace entries",
            )


class _UpdateMeasurer:
    def __init__(self, git: GitDir, reader: ObjectReader, signers: Signers, keyring: Keyring | None) -> None:
        self._git, self._reader, self._signers, self._keyring = git, reader, signers, keyring
        self._trees = Trees(reader)

    def measure(self, update: RefUpdate, *, deep: bool) -> MeasuredUpdate:
        old = None if update.old is None else self._peeled(update.old)
        if update.new is None:
            return MeasuredUpdate(update=update, change="delete", old_commit=old)
        new = self._peeled(update.new)
        seen = MeasuredUpdate(update=update, change=self._change(update, old, new), old_commit=old, commit=new)
        seen.tree = self._commit(new).tree
        if not deep:
            return seen
        base = old if old is not None else self._base(new)
        before = None if base is None else self._commit(base).tree
        for path, was, now in self._trees.changed(before, seen.tree):
            self._note(seen, path, was, now)
        for oid in self._entering(new, base):
            self._note_commit(seen, self._commit(oid))
        seen.submitted.extend(note_approvals(self._git, self._reader, (new, seen.tree)))
        return seen

    def _change(self, update: RefUpdate, old: str | None, new: str) -> Change:
        if old is None:
            return "create"
        # INVARIANT I143: a rewrite is found by ancestry, never by a flag; a tag that moves at all is rewritten.
        if update.ref.startswith("refs/tags/"):
            return "rewrite"
        beyond = next(iter(self._reader.lines("rev-list", "--max-count=1", old, f"^{new}")), None)
        return "update" if beyond is None else "rewrite"

    def _peeled(self, oid: str) -> str:
        """Return the commit that an object is or, through annotated tags, points to."""
        for _ in range(8):
            kind, _ = self._reader.info(oid)
            if kind == "commit":
                return oid
            if kind != "tag":
                raise EvidenceError(f"object `{oid}`: found a {kind}, expected a commit or a tag of one")
            oid = self._reader.read(oid, "tag").split(b"\n", 1)[0].partition(b" ")[2].decode("ascii", "replace")
        raise EvidenceError(f"object `{oid}`: tags of tags, expected a commit")

    def _base(self, new: str) -> str | None:
        """Return where a new reference leaves the repository's main branch, None if it shares nothing with it."""
        try:
            main, _ = head(self._git)
        except EvidenceError:
            return None
        found = list(self._reader.lines("merge-base", new, main, accepted=(0, 1)))
        return found[0].decode() if found else None

    def _entering(self, new: str, base: str | None) -> Iterator[str]:
        limits = ["rev-list", new] if base is None else ["rev-list", new, f"^{base}"]
        for number, line in enumerate(self._reader.lines(*limits)):
            if number >= MAX_COMMITS:
                raise EvidenceError(f"found more than {MAX_COMMITS} commits in one push")
            yield line.decode("ascii", "replace")

    def _commit(self, oid: str) -> Commit:
        return Commit(oid, self._reader.read(oid, "commit"))

    def _note_commit(self, seen: MeasuredUpdate, commit: Commit) -> None:
        seen.commits += 1
        seen.accounts |= commit_accounts(commit, self._signers, keyring=self._keyring)
        signer = self._signer(commit)
        if signer is not None:
            seen.signers.add(signer)
        elif len(seen.unsigned) <= MAX_UNSIGNED:
            seen.unsigned.add(commit.oid)
        for path, was, now in self._touched(commit):
            self._note(seen, path, was, now)

    def _signer(self, commit: Commit) -> str | None:
        signatures = commit.values(b"gpgsig", b"gpgsig-sha256")
        return signature_account(commit, signatures[0], self._signers, self._keyring) if len(signatures) == 1 else None

    def _touched(self, commit: Commit) -> Iterator[tuple[bytes, Entry | None, Entry | None]]:
        """Yield what this commit does that none of its parents had: of a merge, only what the merge itself changed."""
        parents: list[str | None] = [self._commit(parent).tree for parent in commit.parents]
        parents = parents or [None]
        others = [{path for path, _, _ in self._trees.changed(parent, commit.tree)} for parent in parents[1:]]
        for path, was, now in self._trees.changed(parents[0], commit.tree):
            if all(path in other for other in others):
                yield path, was, now

    def _note(self, seen: MeasuredUpdate, path: bytes, was: Entry | None, now: Entry | None) -> None:
        name = printable_name(path)
        modes = {entry.mode for entry in (was, now) if entry is not None}
        if GITLINK in modes:
            seen.submodules.add(name)
        if SYMLINK in modes:
            seen.links.add(name)
        if name in seen.paths:
            return
        seen.paths.add(name)
        if len(seen.paths) > MAX_PATHS:
            raise EvidenceError(f"found more than {MAX_PATHS} changed paths in one push, `{name}` among them")
        if any(self._is_pointer(entry) for entry in (was, now)):
            seen.pointers.add(name)

    def _is_pointer(self, entry: Entry | None) -> bool:
        if entry is None or entry.mode in (GITLINK, SYMLINK):
            return False
        content = self._reader.read_short_blob(entry.oid, _MAX_POINTER_BYTES)
        return content is not None and content.startswith(_LFS)
