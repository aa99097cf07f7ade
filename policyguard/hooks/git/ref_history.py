"""Replays logged decisions to find where references can be, and compares a repository with that.

Every decision names a reference, its value at that time, and the value it may move to. So a log is a series of signed
observations of each reference: the value in a decision must be one that earlier decisions allowed. An accepted update
may not have happened, because git can refuse it after the hook; it can happen until its decision expires.

Pure: reads no repository, no log and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policyguard.values import Instant

NOTHING = "none"
"""The value of a reference that does not exist, as decisions write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one logged decision says about a reference; `entry` is its index in the log.

    `allowed` is also False if another decision on the same push denies: then none of its references moved.
    """

    entry: int
    ref: str
    old: str
    new: str
    allowed: bool
    issued_at: Instant
    expires: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One difference that no decision explains; `entry` is the related decision, None if there is none."""

    code: str
    ref: str
    text: str
    entry: int | None = None


@dataclass(slots=True)
class _Reference:
    """The last known value of a reference, and the accepted updates since then.

    `moves` begin at the last known value; `late` ones began at a value before that, and have not expired.
    """

    at: str
    entry: int | None = None
    moves: list[Observation] = field(default_factory=list)
    late: list[Observation] = field(default_factory=list)

    def reachable(self) -> list[str]:
        """List every value that the accepted updates can lead to, the most likely one last."""
        values = [self.at]
        for value in values:
            values += [move.new for move in (*self.moves, *self.late) if move.old == value and move.new not in values]
        return values

    def unmade(self, value: str, now: Instant) -> list[Observation]:
        """List the accepted updates that did not happen, or were undone, if the reference has this value now."""
        return [move for move in self.moves if move.old == value and move.expires <= now]

    def observe(self, record: Observation) -> None:
        others = [move for move in self.moves if move.old != record.old]
        self.late = [
            move for move in (*self.late, *others) if move.new != record.old and move.expires > record.issued_at
        ]
        self.moves = [move for move in self.moves if move.old == record.old and move.expires > record.issued_at]
        self.at, self.entry = record.old, record.entry
        if record.allowed and record.old != record.new:
            self.moves.append(record)


class History:
    """The references of one repository by its decisions; memory grows with references, not with log entries."""

    def __init__(self, begin: Mapping[str, str] | None) -> None:
        """Start from the values of a baseline; without one, the first observation is accepted."""
        self._references = {ref: _Reference(value) for ref, value in (begin or {}).items()}
        self._has_baseline = begin is not None
        self._findings: list[Finding] = []

    def add(self, record: Observation) -> None:
        """Add the next decision, in log order."""
        reference = self._references.get(record.ref)
        if reference is None:
            reference = self._references[record.ref] = _Reference(NOTHING if self._has_baseline else record.old)
            if not self._has_baseline and record.old != NOTHING:
                text = f"was at {record.old} before the first decision, entry {record.entry}; no decision covers that"
                self._findings.append(Finding(code="uncovered-before", ref=record.ref, text=text, entry=record.entry))
        self._findings += _unexplained(reference, record.ref, record.old, record.entry)
        self._findings += _unmade(reference, record.ref, record.old, record.issued_at, f"entry {record.entry} found")
        reference.observe(record)

    def compare(self, present: Mapping[str, str], now: Instant) -> list[Finding]:
        """List findings within the log, and findings about the present values of the references."""
        findings = list(self._findings)
        for ref in sorted({*present, *self._references}):
            value, reference = present.get(ref, NOTHING), self._references.get(ref)
            if reference is None:
                text = f"is at {value}, and no decision is about it"
                findings.append(Finding(code="uncovered", ref=ref, text=text))
                continue
            findings += _unexplained(reference, ref, value, None)
            findings += _unmade(reference, ref, value, now, "it is")
        return findings


def _unexplained(reference: _Reference, ref: str, value: str, entry: int | None) -> list[Finding]:
    """Report a reference with a value that no accepted update leads to."""
    reachable = reference.reachable()
    # INVARIANT I19: a reference is only where its newest observation, or an accepted move from there, left it.
    if value in reachable:
        return []
    since = "the baseline" if reference.entry is None else f"entry {reference.entry}"
    expected = f"{since} and what was accepted since leave it at {' or '.join(reversed(reachable))}"
    if entry is not None:
        return [Finding(code="moved", ref=ref, text=f"entry {entry} found it at {value}, {expected}", entry=entry)]
    if value == NOTHING:
        return [Finding(code="vanished", ref=ref, text=f"is gone, {expected}", entry=reference.entry)]
    return [Finding(code="moved", ref=ref, text=f"is at {value}, {expected}", entry=reference.entry)]


def _unmade(reference: _Reference, ref: str, value: str, now: Instant, observer: str) -> list[Finding]:
    return [
        Finding(
            code="taken-back",
            ref=ref,
            entry=move.entry,
            text=f"entry {move.entry} accepted its move to {move.new}, and {observer} at {value} as before: "
            "somebody took the move back, or git refused it after the hook",
        )
        for move in reference.unmade(value, now)
    ]
