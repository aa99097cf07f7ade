"""What the logged decisions say about where references may stand, and where a repository differs from it.

Every decision names a reference, the object it was seen at, and the object it may move to. So a log is a row of signed
looks at each reference: what one decision found must be what the decisions before it can have left there. An accepted
move need not have been made, git may have refused it after us; it can be made until its decision expires.

Pure: reads no repository, no log and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policyguard.values import Instant

NOTHING = "none"
"""The value of a reference that does not exist; decisions spell it so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one logged decision says of one reference; `entry` is its place in the log.

    `allowed` is False as well where another decision on the same push denies: then none of its references moved.
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
    """One thing that no decision explains; `entry` is the decision it is about, None if there is none."""

    code: str
    ref: str
    text: str
    entry: int | None = None


@dataclass(slots=True)
class _Reference:
    """Where a reference was last seen, and the accepted moves that may have been made since.

    `moves` begin where it was last seen; `late` ones began where it stood before that, and have not expired.
    """

    at: str
    entry: int | None = None
    moves: list[Look] = field(default_factory=list)
    late: list[Look] = field(default_factory=list)

    def reachable(self) -> list[str]:
        """Return every value that the accepted moves can have given it, the likeliest last."""
        found = [self.at]
        for value in found:
            found += [move.new for move in (*self.moves, *self.late) if move.old == value and move.new not in found]
        return found

    def unmade(self, value: str, now: Instant) -> list[Look]:
        """Return the accepted moves that were not made, or were taken back, if it stands at this value now."""
        return [move for move in self.moves if move.old == value and move.expires <= now]

    def see(self, look: Look) -> None:
        others = [move for move in self.moves if move.old != look.old]
        self.late = [move for move in (*self.late, *others) if move.new != look.old and move.expires > look.issued_at]
        self.moves = [move for move in self.moves if move.old == look.old and move.expires > look.issued_at]
        self.at, self.entry = look.old, look.entry
        if look.allowed and look.old != look.new:
            self.moves.append(look)


class History:
    """The references of one repository as its decisions tell them; memory grows with references, not with entries."""

    def __init__(self, begin: Mapping[str, str] | None) -> None:
        """Begin with what stood where at a baseline; None where there is none, then the first look is believed."""
        self._references = {ref: _Reference(value) for ref, value in (begin or {}).items()}
        self._has_baseline = begin is not None
        self._findings: list[Finding] = []

    def add(self, look: Look) -> None:
        """Take in the next decision, in the order of the log."""
        reference = self._references.get(look.ref)
        if reference is None:
            reference = self._references[look.ref] = _Reference(NOTHING if self._has_baseline else look.old)
            if not self._has_baseline and look.old != NOTHING:
                text = f"stood at {look.old} before the first decision, entry {look.entry}; nothing covers that"
                self._findings.append(Finding(code="uncovered-before", ref=look.ref, text=text, entry=look.entry))
        self._findings += _unexplained(reference, look.ref, look.old, look.entry)
        self._findings += _unmade(reference, look.ref, look.old, look.issued_at, f"entry {look.entry} found")
        reference.see(look)

    def compare(self, present: Mapping[str, str], now: Instant) -> list[Finding]:
        """Return every finding: those of the log itself, and those of what stands in the repository now."""
        found = list(self._findings)
        for ref in sorted({*present, *self._references}):
            value, reference = present.get(ref, NOTHING), self._references.get(ref)
            if reference is None:
                text = f"stands at {value}, and no decision speaks of it"
                found.append(Finding(code="uncovered", ref=ref, text=text))
                continue
            found += _unexplained(reference, ref, value, None)
            found += _unmade(reference, ref, value, now, "it stands")
        return found


def _unexplained(reference: _Reference, ref: str, value: str, entry: int | None) -> list[Finding]:
    """Return a finding if no accepted move leads to where the reference is."""
    reachable = reference.reachable()
    # INVARIANT I19: a reference stands only where the newest look at it, or an accepted move from there, left it.
    if value in reachable:
        return []
    since = "the baseline" if reference.entry is None else f"entry {reference.entry}"
    left = f"{since} and what was accepted since leave it at {' or '.join(reversed(reachable))}"
    if entry is not None:
        return [Finding(code="moved", ref=ref, text=f"entry {entry} found it at {value}, {left}", entry=entry)]
    if value == NOTHING:
        return [Finding(code="vanished", ref=ref, text=f"is gone, {left}", entry=reference.entry)]
    return [Finding(code="moved", ref=ref, text=f"stands at {value}, {left}", entry=reference.entry)]


def _unmade(reference: _Reference, ref: str, value: str, now: Instant, seen: str) -> list[Finding]:
    return [
        Finding(
            code="taken-back",
            ref=ref,
            entry=move.entry,
            text=f"entry {move.entry} accepted its move to {move.new}, and {seen} at {value} as before: "
            "somebody took the move back, or git refused it after the hook",
        )
        for move in reference.unmade(value, now)
    ]
