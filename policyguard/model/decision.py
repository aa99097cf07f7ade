"""The answer: allow or deny, why, and what was missing. Data, and deliberately not a truth value."""

from __future__ import annotations

from typing import NoReturn, Protocol

import msgspec

from policyguard.model.facts import Facts

DEFAULT_LIFETIME_S = 900
"""Long enough to reach a worker and start, short enough that a revert cannot outlive it (incident step 9)."""

DEFAULT_AUDIENCE = "local"
"""Whom decisions are for where nobody says."""


class Gap(msgspec.Struct, frozen=True):
    """A quorum that is not met: how many more persons, from which roles and domain, and why others do not count."""

    quorum: str
    rule: str
    needed: int
    roles: tuple[str, ...]
    domain: str
    because: tuple[str, ...] = ()


class Explainer(Protocol):
    """What can put a decision into words: the snapshot that made it."""

    @property
    def policy_digest(self) -> str: ...

    @property
    def epoch(self) -> int: ...

    def explain(self, decision: Decision, *, full: bool = False, viewer: str | None = None) -> str: ...


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What was decided, and from what.

    `determining` are the ids of the rules that made it so (firing denies, or firing allows); `errored` those whose
    condition could not be evaluated; `requiring` the quorum rules that applied. All sorted, without duplicates.
    `reason_codes` is never empty. A decision has no truth value: ask `.allowed`.
    """

    allowed: bool
    reason_codes: tuple[str, ...]
    determining: tuple[str, ...]
    errored: tuple[str, ...]
    requiring: tuple[str, ...]
    gaps: tuple[Gap, ...]
    obligations: tuple[str, ...]
    facts: Facts
    now: int
    explainer: Explainer

    def __bool__(self) -> NoReturn:
        raise TypeError("a Decision is not a truth value, use `.allowed`")

    def explain(self, *, full: bool = False, viewer: str | None = None) -> str:
        """Return the decision in words: what, why, which fact with which assurance, what would change it, whom to ask.

        Args:
            full: add every candidate rule with each atom of its condition.
            viewer: the subject, `type:id`, whom the caller has authenticated and shows this to. One who holds a role
                of `trace` sees what the schema keeps for them; any other sees neither that nor a full explanation.
        """
        return self.explainer.explain(self, full=full, viewer=viewer)

    @property
    def policy_digest(self) -> str:
        return self.explainer.policy_digest

    @property
    def epoch(self) -> int:
        return self.explainer.epoch
