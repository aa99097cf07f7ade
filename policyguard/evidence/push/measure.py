"""Measures what a push does to one reference, from the git objects and never from the push's own claims.

Every new commit is read: its authors, its signer, the paths it changes. A path counts as changed if it differs between
the trees before and after, or if any commit in between changed it, so that a change which a later commit reverts is
reported, too.
"""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.attest.signers import Signers
from policyguard.errors import EvidenceError
from policyguard.evidence.approvals.from_git_notes import note_approvals
from policyguard.evidence.contributors import MAX_CONFLICTS, Commit, contributions_of
from policyguard.evidence.push.objects import Trees
from policyguard.evidence.push.updates import Change, MeasuredUpdate, RefUpdate
from policyguard.git.gpg import Keyring
from policyguard.git.objects import ObjectReader
from policyguard.git.refs import References
from policyguard.git.trees import GITLINK, SYMLINK, Entry
from policyguard.text import printable_name

MAX_PATHS = 50_000
"""A push that changes more paths than this is refused."""

MAX_COMMITS = 200_000
MAX_UNSIGNED = 1_000

_LFS = b"version https://git-lfs.github.com/spec/v1\n"
_MAX_POINTER_BYTES = 1_024


class UpdateMeasurer:
    """Measures the updates of one push, in memory that does not grow with the number of commits."""

    def __init__(
        self,
        references: References,
        reader: ObjectReader,
        signers: Signers,
        keyring: Keyring | None,
        *,
        signed_only: bool = False,
    ) -> None:
        self._references, self._reader, self._signers, self._keyring = references, reader, signers, keyring
        self._signed_only = signed_only
        self._trees = Trees(reader)

    def measure(self, update: RefUpdate, *, deep: bool) -> MeasuredUpdate:
        """Measure one update; without `deep`, only ids, tree and kind of change.

        Raises:
            EvidenceError: an object is missing or damaged, the push is too large, or git took too long.
        """
        old = None if update.old is None else self._peeled(update.old)
        if update.new is None:
            return MeasuredUpdate(update=update, change="delete", old_commit=old)
        new = self._peeled(update.new)
        change, tree = self._change(update, old, new), self._commit(new).tree
        measured = MeasuredUpdate(update=update, change=change, old_commit=old, commit=new, tree=tree)
        if not deep:
            return measured
        base = old if old is not None else self._base(new)
        before = None if base is None else self._commit(base).tree
        for path, was, now in self._trees.changed(before, tree):
            self._note(measured, path, was, now)
        for oid in self._entering(new, base):
            self._note_commit(measured, self._commit(oid))
        measured.submitted.extend(note_approvals(self._references, self._reader, (new, tree)))
        return measured

    def _change(self, update: RefUpdate, old: str | None, new: str) -> Change:
        if old is None:
            return "create"
        # INVARIANT I19: a rewrite is found by ancestry, never by a flag; a tag that moves at all is rewritten.
        if update.ref.startswith("refs/tags/"):
            return "rewrite"
        beyond = next(iter(self._reader.lines("rev-list", "--max-count=1", old, f"^{new}")), None)
        return "update" if beyond is None else "rewrite"

    def _peeled(self, oid: str) -> str:
        """Follow annotated tags to the commit they point to."""
        for _ in range(8):
            kind, _ = self._reader.info(oid)
            if kind == "commit":
                return oid
            if kind != "tag":
                raise EvidenceError(f"object `{oid}`: found a {kind}, expected a commit or a tag of one")
            oid = self._reader.read(oid, "tag").split(b"\n", 1)[0].partition(b" ")[2].decode("ascii", "replace")
        raise EvidenceError(f"object `{oid}`: tags of tags, expected a commit")

    def _base(self, new: str) -> str | None:
        """Return the commit where a new reference leaves the main branch; None if they share no history."""
        try:
            main, _ = self._references.head()
        except EvidenceError:
            return None
        bases = list(self._reader.lines("merge-base", new, main, accepted=(0, 1)))
        return bases[0].decode() if bases else None

    def _entering(self, new: str, base: str | None) -> Iterator[str]:
        limits = ["rev-list", new] if base is None else ["rev-list", new, f"^{base}"]
        for number, line in enumerate(self._reader.lines(*limits)):
            if number >= MAX_COMMITS:
                raise EvidenceError(f"found more than {MAX_COMMITS} commits in one push")
            yield line.decode("ascii", "replace")

    def _commit(self, oid: str) -> Commit:
        return Commit(oid, self._reader.read(oid, "commit"))

    def _note_commit(self, measured: MeasuredUpdate, commit: Commit) -> None:
        measured.commits += 1
        contributions = contributions_of(commit, self._signers, signed_only=self._signed_only, keyring=self._keyring)
        measured.accounts.update(contributions.accounts)
        measured.signers.update(contributions.signers)
        measured.conflicts.extend(contributions.conflicts[: MAX_CONFLICTS - len(measured.conflicts)])
        if len(measured.unsigned) <= MAX_UNSIGNED:
            measured.unsigned.update(contributions.unsigned)
        for path, was, now in self._touched(commit):
            self._note(measured, path, was, now)

    def _touched(self, commit: Commit) -> Iterator[tuple[bytes, Entry | None, Entry | None]]:
        """Yield each path that differs from all parents; for a merge, only what the merge itself changed."""
        parents: list[str | None] = [self._commit(parent).tree for parent in commit.parents]
        parents = parents or [None]
        others = [{path for path, _, _ in self._trees.changed(parent, commit.tree)} for parent in parents[1:]]
        for path, was, now in self._trees.changed(parents[0], commit.tree):
            if all(path in other for other in others):
                yield path, was, now

    def _note(self, measured: MeasuredUpdate, path: bytes, was: Entry | None, now: Entry | None) -> None:
        name = printable_name(path)
        modes = {entry.mode for entry in (was, now) if entry is not None}
        if GITLINK in modes:
            measured.submodules.add(name)
        if SYMLINK in modes:
            measured.links.add(name)
        if name in measured.paths:
            return
        measured.paths.add(name)
        if len(measured.paths) > MAX_PATHS:
            raise EvidenceError(f"found more than {MAX_PATHS} changed paths in one push, `{name}` among them")
        if any(self._is_pointer(entry) for entry in (was, now)):
            measured.pointers.add(name)

    def _is_pointer(self, entry: Entry | None) -> bool:
        if entry is None or entry.mode in (GITLINK, SYMLINK):
            return False
        content = self._reader.read_short_blob(entry.oid, _MAX_POINTER_BYTES)
        return content is not None and content.startswith(_LFS)
