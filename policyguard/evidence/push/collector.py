"""Facts about one reference update, from its measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from policyguard.attest.approval import ApprovalTarget
from policyguard.attest.signers import Signers
from policyguard.errors import EvidenceError
from policyguard.evidence.approvals.verify import ApprovalResults, RejectedApproval, SubmittedApproval, examine
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.evidence.push.certificate import Signed
from policyguard.evidence.push.measure import MAX_UNSIGNED
from policyguard.evidence.push.updates import MeasuredUpdate
from policyguard.model.facts import Assurance, Fact
from policyguard.model.request import Request
from policyguard.values import Instant, Value

REF, CHANGE, OLD, NEW = "resource.ref", "resource.change", "resource.old", "resource.new"
COMMIT, TREE = "resource.commit", "resource.tree"
PATHS, COMMITS = "resource.changed_paths", "resource.commits"
SUBMODULES, LINKS, POINTERS = "resource.submodules", "resource.links", "resource.lfs_pointers"
SIGNATURE, SIGNER = "resource.signature", "resource.signer"
SIGNERS, UNSIGNED = "resource.commit_signers", "resource.unsigned_commits"
TRANSPORT = "context.transport"

# INVARIANT I19: every decision on a push that was measured says which reference it moves, from which object to which.
RECORDED = (REF, CHANGE, OLD, NEW)


class PushCollector:
    """Supplies the facts about one update, its contributors, and the approvals of its tree.

    `measured` is an `EvidenceError` where the push could not be measured: then every fact is missing for that reason.
    """

    name = "push"
    declares = (
        REF,
        CHANGE,
        OLD,
        NEW,
        COMMIT,
        TREE,
        PATHS,
        COMMITS,
        SUBMODULES,
        LINKS,
        POINTERS,
        SIGNATURE,
        SIGNER,
        SIGNERS,
        UNSIGNED,
        TRANSPORT,
    )

    def __init__(
        self,
        measured: MeasuredUpdate | EvidenceError,
        signed: Signed,
        signers: Signers,
        transport: str,
        submitted: Callable[[], Iterable[SubmittedApproval | RejectedApproval]] = tuple,
    ) -> None:
        self._measured, self._signed, self._signers = measured, signed, signers
        self._transport, self._submitted = transport, submitted

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Collect the facts about the update.

        Raises:
            EvidenceError: it could not be measured.
        """
        if isinstance(self._measured, EvidenceError):
            raise self._measured
        measured = self._measured
        bound = bound_facts(measured)
        values, missing = _unbound_facts(measured)
        entries = {path: Fact(value, Assurance.MEASURED, self.name, now, bound=True) for path, value in bound.items()}
        entries |= {path: Fact(value, Assurance.MEASURED, self.name, now) for path, value in values.items()}
        signer = self._signer(request.subject.ref)
        entries |= self._who(signer, now)
        # INVARIANT I8: pusher, signer, authors, committers and co-authors all count as contributors.
        accounts = tuple(
            sorted({request.subject.ref, *measured.accounts, *measured.signers} | ({signer} if signer else set()))
        )
        examined = self._approved(measured, request, now)
        return Collected(
            entries=entries,
            missing=missing,
            approvals=examined.approvals,
            contributors=accounts,
            unusable=(*measured.conflicts, *examined.lines),
        )

    def _approved(self, measured: MeasuredUpdate, request: Request, now: Instant) -> ApprovalResults:
        """Collect the approvals of exactly this reference, old value and new tree."""
        if measured.tree is None:
            return ApprovalResults()
        submitted = [*measured.submitted, *self._submitted()]
        target = ApprovalTarget(
            request=request,
            measured_digests={"tree": measured.tree},
            required_subjects=("tree",),
            target_ref=measured.update.ref,
            from_id=measured.old_commit or "",
            target_id=measured.tree,
        )
        return examine(submitted, self._signers, target, now)

    def _who(self, signer: str, now: Instant) -> dict[str, Fact]:
        source = f"push certificate{': ' if self._signed.reason else ''}{self._signed.reason}"
        level = Assurance.ATTESTED if signer else Assurance.MEASURED
        return {
            SIGNATURE: Fact(self._signed.status, level, source, now),
            SIGNER: Fact(signer, level, source, now),
            TRANSPORT: Fact(self._transport, Assurance.OBSERVED, f"transport {self._transport}", now),
        }

    def _signer(self, asking: str) -> str:
        """Return the signer's account, preferring the pusher's if both are one person's; empty if unknown."""
        person = self._signed.signer
        if person is None or not person.accounts:
            return ""
        return asking if asking in person.accounts else person.accounts[0]


def bound_facts(measured: MeasuredUpdate) -> dict[str, Value]:
    """Build the facts that the decision is bound to; the next hook measures them again."""
    # INVARIANT I15: the decision is bound to the ref, both ids and the tree; it covers no other update.
    bound: dict[str, Value] = {REF: measured.update.ref, CHANGE: measured.change}
    bound |= {OLD: measured.update.old or "none", NEW: measured.update.new or "none"}
    if measured.commit is not None and measured.tree is not None:
        bound |= {COMMIT: measured.commit, TREE: measured.tree}
    return bound


def _unbound_facts(measured: MeasuredUpdate) -> tuple[dict[str, Value], dict[str, str]]:
    """Build the other facts of this update, and the reasons of those that are missing."""
    values: dict[str, Value] = {COMMITS: measured.commits}
    if measured.commit is None or measured.tree is None:
        reason = "the reference is deleted, nothing comes in its place"
        return values, dict.fromkeys((COMMIT, TREE, PATHS, SUBMODULES, LINKS, POINTERS, SIGNERS, UNSIGNED), reason)
    values |= {
        PATHS: _sorted(measured.paths),
        SUBMODULES: _sorted(measured.submodules),
        LINKS: _sorted(measured.links),
        POINTERS: _sorted(measured.pointers),
        SIGNERS: _sorted(measured.signers),
    }
    if len(measured.unsigned) > MAX_UNSIGNED:
        return values, {UNSIGNED: f"more than {MAX_UNSIGNED} commits are not signed by anybody known"}
    return {**values, UNSIGNED: _sorted(measured.unsigned)}, {}


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
