"""Compares a repository with the decision log, and reports references that no signed decision explains.

This finds what hooks cannot see, such as files edited under `refs/`. The whole log is verified first, and then read
again for the decisions about this repository. Memory grows only with the number of references.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from policyguard.attest.dsse import parse
from policyguard.attest.statement import FactRecord, Predicate
from policyguard.attest.trust import Trust
from policyguard.audit.check import check_log
from policyguard.audit.stores import Row
from policyguard.audit.stores.interface import Store
from policyguard.errors import AuditError, EvidenceError, VerificationError
from policyguard.evidence.push.collector import NEW, OLD, REF
from policyguard.git.directory import GitDir
from policyguard.git.refs import References
from policyguard.hooks.git.baseline import Baseline
from policyguard.hooks.git.ref_history import Finding, History, Observation
from policyguard.patterns.glob import glob
from policyguard.values import Instant, canonical, parse_instant, sha256_digest
from policyguard.verify import verify_envelope

_PAGE = 512
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """The result of an audit; no findings means that every reference is where the decisions left it."""

    findings: tuple[Finding, ...]
    references: int
    decisions: int
    entries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What to audit: a resource of the log, patterns of its references (empty: all), and the baseline to start from."""

    resource: str
    patterns: tuple[str, ...] = ()
    since: Baseline | None = None

    def covers(self, ref: str) -> bool:
        return not self.patterns or any(glob(ref, pattern) for pattern in self.patterns)


def audit(
    git: GitDir, store: Store, trust: Trust, subject: Subject, *, now: Instant, known_checkpoints: Sequence[bytes] = ()
) -> Audited:
    """Find every reference that no decision explains.

    Args:
        git: the repository.
        store: the decision log.
        trust: the keys that may have signed decisions and checkpoints.
        subject: what to audit.
        now: the current time.
        known_checkpoints: checkpoints from elsewhere that the log must still contain, see `check_log`.

    Raises:
        EvidenceError: the references cannot be read, or change faster than the log can be read.
    """
    notes = [
        *known_checkpoints,
        *([subject.since.checkpoint.encode()] if subject.since and subject.since.checkpoint else []),
    ]
    for _ in range(_ATTEMPTS):
        # References first: a later move is explained by decisions that are not read yet, and is checked again.
        present = _present(git, subject)
        try:
            size = check_log(store, trust.logs, notes).checkpoint.size if notes or store.last() is not None else 0
        except AuditError as problem:
            finding = Finding(code="log", ref="", text=f"the log does not add up: {problem}", entry=problem.entry)
            return Audited(findings=(finding,), references=len(present), decisions=0, entries=0)
        result = _compare_with_log(store, trust, subject, present, size, now)
        if not result.findings or _present(git, subject) == present:
            return result
    raise EvidenceError("the references change faster than the log can be read, try again later")


def _present(git: GitDir, subject: Subject) -> dict[str, str]:
    return {ref: value for ref, value in References(git).all().items() if subject.covers(ref)}


def _compare_with_log(
    store: Store, trust: Trust, subject: Subject, present: Mapping[str, str], size: int, now: Instant
) -> Audited:
    start = 0 if subject.since is None else subject.since.size
    begin = None if subject.since is None else subject.since.refs
    history = History(None if begin is None else {ref: value for ref, value in begin.items() if subject.covers(ref)})
    names = {_long_name(ref): ref for ref in present}
    findings: list[Finding] = []
    decisions = 0
    for group in _transactions(store, start, size):
        for observation in _observations(group, trust, subject.resource, names, findings):
            if subject.covers(observation.ref):
                history.add(observation)
                decisions += 1
    findings += history.compare(present, now)
    return Audited(findings=tuple(findings), references=len(present), decisions=decisions, entries=size)


def _transactions(store: Store, start: int, size: int) -> Iterator[list[Row]]:
    """Yield the entries from `start` on, grouped by transaction: a push is one transaction."""
    group: list[Row] = []
    for page in range(start, size, _PAGE):
        for row in store.read(page, min(page + _PAGE, size)):
            group.append(row)
            if row.checkpoint is not None:
                yield group
                group = []


def _observations(
    group: Sequence[Row], trust: Trust, resource: str, names: Mapping[str, str], findings: list[Finding]
) -> list[Observation]:
    """Read the decisions of one push; if one is a denial, none of its references moved."""
    decided = []
    for row in group:
        try:
            predicate = _decision(row, trust, resource)
        except VerificationError as problem:
            text = f"entry {row.entry} is about this repository and does not verify: {problem}"
            findings.append(Finding(code="untrusted", ref="", text=text, entry=row.entry))
            continue
        if predicate is not None:
            decided.append((row.entry, predicate))
    # INVARIANT I11: only a verified, enforcing allow explains a move, and only if nothing in its push was denied.
    moved = all(predicate.allowed and predicate.mode == "enforcing" for _, predicate in decided)
    observations = (_observation(entry, predicate, names, moved) for entry, predicate in decided)
    return [observation for observation in observations if observation is not None]


class _Resource(msgspec.Struct, frozen=True):
    resource: str


class _Named(msgspec.Struct, frozen=True):
    predicate: _Resource


def _decision(row: Row, trust: Trust, resource: str) -> Predicate | None:
    """Verify a decision about this resource; None for another resource, which is checked first because it is cheap."""
    try:
        envelope = parse(row.leaf)
        named = msgspec.json.decode(envelope.payload, type=_Named).predicate.resource
    except (VerificationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return verify_envelope(envelope, trust)[0] if named == resource else None


def _observation(entry: int, predicate: Predicate, names: Mapping[str, str], moved: bool) -> Observation | None:
    """Read the statement of a decision about a reference; None if it is not about a measured update."""
    facts = predicate.facts
    if not predicate.action.startswith("repo:") or not {REF, OLD, NEW} <= facts.keys():
        return None
    ref, old, new = (_text(facts[path]) for path in (REF, OLD, NEW))
    return Observation(
        entry=entry,
        ref=names.get(ref, ref),
        old=old,
        new=new,
        allowed=moved,
        issued_at=parse_instant(predicate.issued_at),
        expires=parse_instant(predicate.expires),
    )


def _text(fact: FactRecord) -> str:
    """Return the text of a fact; for a long one, the statement has only its digest."""
    if isinstance(fact.value, msgspec.Raw):
        value = msgspec.json.decode(fact.value)
        return value if isinstance(value, str) else str(value)
    return f"(sha256:{fact.digest})"


def _long_name(ref: str) -> str:
    return f"(sha256:{sha256_digest(canonical(ref))})"
