"""Collects a job's code, its contributors and the approvals of exactly that code in one measurement.

One collector supplies code, contributors and approvals, so that approvals are compared with exactly the tree of the
decision, and HEAD cannot move in between. The review files are read at each decision, so that a revoked key stops
counting at the next one.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from policyguard.attest.approval import ApprovalTarget, command_digest
from policyguard.attest.revocation import APPROVAL, APPROVER, KEY, RevocationList, revoked_ids
from policyguard.attest.signers import MAX_SIGNERS_BYTES, Signers, parse_allowed_signers, parse_revoked
from policyguard.errors import ConfigurationError, EvidenceError, PolicyGuardError
from policyguard.evidence.accepted_history import ACCEPTED_HISTORY, AcceptedHistory, accepted_fact
from policyguard.evidence.approvals.from_git_notes import note_approvals
from policyguard.evidence.approvals.from_log import logged_approvals
from policyguard.evidence.approvals.verify import RejectedApproval, SubmittedApproval, examine, folder_approvals
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.evidence.contributors import Contributions, contributions_since
from policyguard.evidence.identity import account_name
from policyguard.evidence.repository import CODE, measure_code
from policyguard.evidence.uncommitted import UNCOMMITTED
from policyguard.fs.safe_open import open_resolved, read_all
from policyguard.git.directory import find_gitdir
from policyguard.git.gpg import Keyring
from policyguard.git.objects import ObjectReader, open_objects
from policyguard.git.refs import References
from policyguard.model.facts import Assurance, Fact
from policyguard.model.policy import Person
from policyguard.model.request import Request
from policyguard.text import printable_name
from policyguard.values import FrozenMap, Instant

COMMIT_SIGNERS, UNSIGNED_COMMITS = "resource.commit_signers", "resource.unsigned_commits"

MAX_ACCEPTED = 100_000
MAX_UNSIGNED = 1_000
"""The maximum number of unsigned commits that the fact lists; rules ask whether there are any."""

UNCONFIGURED = "no approval is read: neither `approvals:` nor `approvalLog:` is configured"


class ReviewFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's files for reviews: approvals, allowed signers, keyrings; None means not configured.

    `reviewed_commits` lists ids of reviewed commits or trees, one on each line: contributors are those since
    then.
    """

    approvals: Path | None = None
    approval_log: Path | None = None
    allowed_signers: Path | None = None
    revoked_keys: Path | None = None
    gpg_keyring: Path | None = None
    reviewed_commits: Path | None = None
    signed_only: bool = False
    """True if a commit without a good signature counts as the work of an unknown person."""

    @property
    def keeps_approvals(self) -> bool:
        """True if a folder or a log of approvals is configured."""
        return self.approvals is not None or self.approval_log is not None

    def submitted(self) -> Iterator[SubmittedApproval | RejectedApproval]:
        """Yield the approvals in the configured folder and in the configured log."""
        if self.approvals is not None:
            yield from folder_approvals(str(self.approvals))
        if self.approval_log is not None:
            yield from logged_approvals(self.approval_log)


def is_reviewed(persons: Sequence[Person], files: ReviewFiles) -> bool:
    """Return True if anything says who signs: the operator's files, or keys in `Persons`."""
    return files != ReviewFiles() or any(person.keys for person in persons)


class ReviewedRepositoryCollector:
    """Supplies the facts of `RepositoryCollector`, the contributors and the approvals.

    Use it in place of `RepositoryCollector`, for actions that contain somebody's work. `persons` are those of the
    policies in force.
    """

    name = "repository"
    declares = (CODE, UNCOMMITTED, ACCEPTED_HISTORY, COMMIT_SIGNERS, UNSIGNED_COMMITS)

    def __init__(
        self,
        persons: Sequence[Person],
        files: ReviewFiles,
        *,
        repositories: Sequence[AcceptedHistory] = (),
        timeout_s: float = 15.0,
        owners: Collection[int] | None = None,
        uid: int | None = None,
    ) -> None:
        self._repositories = tuple(repositories)
        self._uid = os.getuid() if uid is None else uid
        self._persons, self._files = tuple(persons), files
        self._timeout_s = timeout_s
        self._owners = frozenset(owners) if owners is not None else frozenset({os.geteuid(), 0})

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:
        """Collect the code record, and the contributors and approvals of this commit."""
        deadline = time.monotonic() + self._timeout_s
        code = measure_code(inputs, self._owners, deadline)
        measured = code.collected(self.name, now)
        accepted = accepted_fact(code.record, request, self._repositories, self._owners, deadline, now)
        try:
            review = self._review(request, inputs, code.record, now, deadline)
        except PolicyGuardError as problem:
            # INVARIANT I2: where review cannot be measured, nobody is independent and nothing is approved.
            review = Collected(unusable=(f"approval.unreadable: {problem}",), contributors_unknown=True)
        return msgspec.structs.replace(
            review,
            entries={**review.entries, **measured.entries, **accepted.entries},
            missing={**review.missing, **measured.missing, **accepted.missing},
        )

    def _review(
        self, request: Request, inputs: JobInputs, record: FrozenMap, now: Instant, deadline: float
    ) -> Collected:
        signers = load_signers(self._persons, self._files)
        accepted = accepted_ids(self._files.reviewed_commits)
        # An approval names the job as it was submitted, whether it starts in the work tree or from the commit.
        git = find_gitdir(inputs.submitted.directory, self._owners)
        commit = str(record["commit"])
        target = job_target(request, inputs.submitted, record, git.root)
        with open_objects(git, commit, deadline) as reader:
            contributions, problems = self._contributions(reader, commit, signers, accepted, deadline)
            submitted = list(self._files.submitted())
            submitted += note_approvals(References(git), reader, (commit, str(record["tree"])))
        examined = examine(submitted, signers, target, now)
        if contributions is None:
            missing = dict.fromkeys((COMMIT_SIGNERS, UNSIGNED_COMMITS), problems[0])
            lines = (*problems, *examined.lines)
            return Collected(approvals=examined.approvals, unusable=lines, missing=missing, contributors_unknown=True)
        return Collected(
            entries=_signature_facts(contributions, self.name, now),
            approvals=examined.approvals,
            contributors=(*contributions.accounts, *runner_account(self._uid, signers)),
            unusable=(*contributions.conflicts, *examined.lines),
        )

    def _contributions(
        self, reader: ObjectReader, commit: str, signers: Signers, accepted: frozenset[str], deadline: float
    ) -> tuple[Contributions | None, tuple[str, ...]]:
        try:
            keyring = load_keyring(self._persons, self._files, deadline)
            return contributions_since(
                reader, commit, signers, accepted, signed_only=self._files.signed_only, keyring=keyring
            ), ()
        except EvidenceError as problem:
            return None, (f"approval.contributors_unknown: {problem}",)


def _signature_facts(contributions: Contributions, source: str, now: Instant) -> dict[str, Fact]:
    """Build the facts about signatures; the commit is bound, and these follow from it and from the known keys."""
    named = {COMMIT_SIGNERS: contributions.signers, UNSIGNED_COMMITS: contributions.unsigned[:MAX_UNSIGNED]}
    return {path: Fact(value, Assurance.MEASURED, source, now) for path, value in named.items()}


class RequestReviewCollector:
    """Supplies approvals of exactly this request, for actions that carry no one's work.

    `actions` are those. For them the requester is the only contributor. For any other action this collector
    supplies nothing.
    """

    name = "review"
    declares: tuple[str, ...] = ()

    def __init__(
        self, persons: Sequence[Person], files: ReviewFiles, actions: Collection[str], *, uid: int | None = None
    ) -> None:
        self._persons, self._files, self._actions = tuple(persons), files, frozenset(actions)
        self._uid = os.getuid() if uid is None else uid

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Collect the approvals of exactly this request; the requester is the only contributor."""
        if request.action not in self._actions:
            return Collected()
        try:
            signers = load_signers(self._persons, self._files)
        except PolicyGuardError as problem:
            # INVARIANT I2: where review cannot be measured, nobody is independent and nothing is approved.
            return Collected(unusable=(f"approval.unreadable: {problem}",), contributors_unknown=True)
        examined = examine(self._files.submitted(), signers, ApprovalTarget(request=request), now)
        contributors = (request.subject.ref, *runner_account(self._uid, signers))
        lines = examined.lines if self._files.keeps_approvals else (UNCONFIGURED,)
        return Collected(approvals=examined.approvals, contributors=contributors, unusable=lines)


def job_target(request: Request, inputs: JobInputs, record: Mapping[str, object], root: str) -> ApprovalTarget:
    """Build what an approval of this job must name: the measured tree and the command.

    Where nobody knows the command, as in a hook, an approval counts that is for any command.

    Args:
        request: what is asked.
        inputs: what is about to run.
        record: the measured code record.
        root: the top folder of the repository.
    """
    digests = {"tree": str(record["tree"])}
    if inputs.argv:
        directory = os.path.relpath(os.path.realpath(inputs.directory), root)
        argv = tuple(printable_name(word) for word in inputs.argv)
        digests["command"] = command_digest(
            argv, printable_name(directory), tuple(printable_name(name) for name in inputs.files)
        )
    # INVARIANT I9: what is measured as work is approved by tree and command, whatever its quorum is `of`.
    return ApprovalTarget(request=request, measured_digests=digests, required_subjects=("command", "tree"))


def runner_account(uid: int, signers: Signers) -> tuple[str, ...]:
    """Return the account of this process if it belongs to a person; None for a service account."""
    # INVARIANT I8: the account that really runs the launcher is no independent approver, whatever the request says.
    runner = f"user:{account_name(uid)}"
    return (runner,) if runner in signers.by_account else ()


def load_signers(
    persons: Sequence[Person], files: ReviewFiles, revocations: RevocationList | None = None, now: Instant = 0
) -> Signers:
    """Load the keys whose approvals count now.

    Args:
        persons: `Persons` of the policies.
        files: where signers and revoked keys are.
        revocations: the verified list of what is revoked, where the caller has one.
        now: the current time, for that list.

    Raises:
        ConfigurationError, EvidenceError: a file is missing, has a mistake in it, or everybody may write to it.
    """
    lines = revoked = None
    if files.allowed_signers is not None:
        lines = parse_allowed_signers(read_pinned(files.allowed_signers, MAX_SIGNERS_BYTES))
    if files.revoked_keys is not None:
        revoked = parse_revoked(read_pinned(files.revoked_keys, MAX_SIGNERS_BYTES))
    if revocations is None:
        return Signers(persons, lines or (), revoked or frozenset())
    return Signers(
        persons,
        lines or (),
        (revoked or frozenset()) | revoked_ids(revocations, KEY, now),
        revoked_accounts=revoked_ids(revocations, APPROVER, now),
        revoked_approvals=revoked_ids(revocations, APPROVAL, now),
    )


def load_keyring(persons: Sequence[Person], files: ReviewFiles, deadline: float | None = None) -> Keyring | None:
    """Load the pinned GPG keys; None if no keyring is configured.

    Args:
        persons: `Persons` of the policies.
        files: where the keyring is.
        deadline: a time of `time.monotonic()` after which git is stopped.
    """
    return None if files.gpg_keyring is None else Keyring(str(files.gpg_keyring), persons, deadline=deadline)


def accepted_ids(path: Path | None) -> frozenset[str]:
    """Read commit ids from a file, one per line, `#` for comments; empty without a file.

    Raises:
        ConfigurationError: a line is not an id.
    """
    if path is None:
        return frozenset()
    ids: set[str] = set()
    for number, line in enumerate(read_pinned(path, MAX_ACCEPTED * 80).split(b"\n"), 1):
        word = line.partition(b"#")[0].strip().decode("ascii", "replace")
        if word and (len(word) not in (40, 64) or set(word) - set("0123456789abcdef")):
            raise ConfigurationError(f"{path}: line {number}: expected a commit or tree id of 40 or 64 hex digits")
        ids |= {word} if word else set()
    return frozenset(ids)


def read_pinned(path: Path, limit_bytes: int) -> bytes:
    """Read a file of trusted keys; refuse one that somebody else can change.

    Raises:
        EvidenceError: it is too large, cannot be read, or everybody may write to it.
    """
    fd, status, _ = open_resolved(str(path))
    try:
        # INVARIANT I8: a file that everybody may write to pins nobody.
        if stat.S_IMODE(status.st_mode) & stat.S_IWOTH:
            raise EvidenceError(
                f"`{printable_name(str(path))}`: everybody may write to it, expected the operator alone"
            )
        if status.st_size > limit_bytes:
            raise EvidenceError(
                f"`{printable_name(str(path))}`: found {status.st_size} bytes, expected at most {limit_bytes}"
            )
        content = bytearray()
        read_all(fd, status, str(path), content.extend)
        return bytes(content)
    finally:
        os.close(fd)
