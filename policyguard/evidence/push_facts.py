"""One reference update as facts: which path holds what was measured before, and how well it is known."""

from __future__ import annotations

from collections.abc import Iterable

from policyguard.errors import EvidenceError
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.evidence.push import RefUpdate, Seen, contributors
from policyguard.evidence.push_certificate import Signed
from policyguard.evidence.push_people import People
from policyguard.model.facts import Approval, Assurance, Fact
from policyguard.model.request import Request
from policyguard.values import Instant, Value

REF, CHANGE, OLD, COMMIT, TREE = "resource.ref", "resource.change", "resource.old", "resource.commit", "resource.tree"
PATHS, COMMITS = "resource.changed_paths", "resource.commits"
SUBMODULES, LINKS, POINTERS = "resource.submodules", "resource.links", "resource.lfs_pointers"
SIGNATURE, SIGNER = "resource.signature", "resource.signer"
SIGNERS, UNSIGNED = "resource.commit_signers", "resource.unsigned_commits"
TRANSPORT = "context.transport"

MAX_LISTED = 1_000


class PushCollector:
    """Supplies what is known of one update: its facts, its contributors, and the approvals given for its tree.

    `seen` is an `EvidenceError` where the push could not be measured: then every fact is missing for that reason.
    """

    name = "push"
    declares = (REF, CHANGE, OLD, COMMIT, TREE, PATHS, COMMITS, SUBMODULES, LINKS, POINTERS, SIGNATURE, SIGNER, SIGNERS,
                UNSIGNED, TRANSPORT)  # fmt: skip

    def __init__(
        self, update: RefUpdate, seen: Seen | EvidenceError, signed: Signed, people: People, transport: str,
        approvals: Iterable[Approval] = (),
    ) -> None:  # fmt: skip
        self._update, self._seen, self._signed, self._people = update, seen, signed, people
        self._transport, self._approvals = transport, tuple(approvals)

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Return the facts of the update.

        Raises:
            EvidenceError: it could not be measured.
        """
        if isinstance(self._seen, EvidenceError):
            raise self._seen
        seen = self._seen
        bound = bound_facts(seen)
        values: dict[str, Value] = {COMMITS: seen.commits}
        missing = {}
        if seen.commit is None or seen.tree is None:
            reason = "the reference is deleted, nothing comes in its place"
            missing = dict.fromkeys((COMMIT, TREE, PATHS, SUBMODULES, LINKS, POINTERS, SIGNERS, UNSIGNED), reason)
        else:
            values |= {PATHS: _sorted(seen.paths), SUBMODULES: _sorted(seen.submodules), LINKS: _sorted(seen.links)}
            values |= {
                POINTERS: _sorted(seen.pointers),
                SIGNERS: _sorted(filter(None, map(self._people.account, seen.signers))),
            }
            if len(seen.unsigned) <= MAX_LISTED:
                values[UNSIGNED] = _sorted(seen.unsigned)
            else:
                missing[UNSIGNED] = f"more than {MAX_LISTED} commits are not signed by anybody known"
        entries = {path: Fact(value, Assurance.MEASURED, self.name, now, bound=True) for path, value in bound.items()}
        entries |= {path: Fact(value, Assurance.MEASURED, self.name, now) for path, value in values.items()}
        entries |= self._who(now)
        accounts = contributors(seen, self._people, request.subject.ref)
        if self._signed.status == "good" and (signer := self._signer()):
            accounts = tuple(sorted({*accounts, signer}))
        return Collected(entries=entries, missing=missing, approvals=self._approvals, contributors=accounts)

    def _who(self, now: Instant) -> dict[str, Fact]:
        level, source = self._signed.assurance, f"push certificate{': ' if self._signed.why else ''}{self._signed.why}"
        return {
            SIGNATURE: Fact(self._signed.status, level, source, now),
            SIGNER: Fact(self._signer(), level, source, now),
            TRANSPORT: Fact(self._transport, Assurance.OBSERVED, f"transport {self._transport}", now),
        }

    def _signer(self) -> str:
        """Return the signer's account; empty unless the certificate is good and somebody known made it."""
        return (self._people.account(self._signed.signer) or "") if self._signed.status == "good" else ""


def bound_facts(seen: Seen) -> dict[str, Value]:
    """Return what a decision on this update is bound to, by path; whoever moves the reference measures it again."""
    # INVARIANT I146: the decision is bound to the ref, both ids and the tree; it covers no other update.
    bound: dict[str, Value] = {REF: seen.update.ref, CHANGE: seen.change, OLD: seen.update.old or "none"}
    if seen.commit is not None and seen.tree is not None:
        bound |= {COMMIT: seen.commit, TREE: seen.tree}
    return bound


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
