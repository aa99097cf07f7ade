"""The decision: allow or deny, the reasons, and what was missing. `bool()` of it raises on purpose."""

from __future__ import annotations

import warnings
from typing import NoReturn, Protocol

import msgspec

from policyguard.model.facts import Facts

DEFAULT_LIFETIME_S = 900
"""Long enough to reach a worker and start, short enough that a revert cannot outlive it (incident step 9)."""

MAX_LIFETIME_S = 366 * 86_400
"""The longest lifetime of a decision or grant, so that each one ends."""

DEFAULT_AUDIENCE = "local"
"""The audience of a decision if none is configured."""


MAX_AUDIENCE_CHARS = 512
AUDIENCE = "a name without spaces, at most 512 printable ASCII characters"
"""What an audience is, for errors."""


def is_audience(text: str) -> bool:
    """Return True for a name that decisions can be for: printable ASCII without spaces, 1 to 512 characters."""
    return 0 < len(text) <= MAX_AUDIENCE_CHARS and text.isascii() and text.isprintable() and " " not in text


class UnmetQuorum(msgspec.Struct, frozen=True):
    """A quorum that is not met: how many persons are missing, from which roles, and rejected approvals."""

    quorum: str
    rule: str
    needed: int
    roles: tuple[str, ...]
    domain: str
    because: tuple[str, ...] = ()


class Explainer(Protocol):
    """The interface of what explains a decision: the snapshot that made it."""

    @property
    def policy_digest(self) -> str: ...

    @property
    def epoch(self) -> int: ...

    def explain(self, decision: Decision, *, full: bool = False, viewer: str | None = None) -> str: ...


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A decision and the facts behind it.

    `determining` are the ids of the rules that made the decision (the denies that fired, or else the allows);
    `errored` those whose condition could not be evaluated; `requiring` the quorum rules that applied. All are sorted,
    without duplicates. `reason_codes` is never empty. A decision has no truth value: use `.allowed`.
    """

    allowed: bool
    reason_codes: tuple[str, ...]
    determining: tuple[str, ...]
    errored: tuple[str, ...]
    requiring: tuple[str, ...]
    unmet_approvals: tuple[UnmetQuorum, ...]
    obligations: tuple[str, ...]
    facts: Facts
    now: int
    explainer: Explainer

    def __bool__(self) -> NoReturn:
        raise TypeError("a Decision is not a truth value, use `.allowed`")

    def explain(self, *, full: bool = False, viewer: str | None = None) -> str:
        """Explain the decision: why, from which facts with which assurance, what would change it, and who can help.

        Args:
            full: add every candidate rule with each atom of its condition.
            viewer: the authenticated subject, `type:id`, that will read the text. A holder of a role listed under
                `trace` sees the values that the schema reserves for these roles; others see neither those values nor
                the full explanation.
        """
        return self.explainer.explain(self, full=full, viewer=viewer)

    @property
    def gaps(self) -> tuple[UnmetQuorum, ...]:
        """The name that `unmet_approvals` had in 0.1.0; removed after one release."""
        warnings.warn("`Decision.gaps` is now `Decision.unmet_approvals`", DeprecationWarning, stacklevel=2)
        return self.unmet_approvals

    @property
    def policy_digest(self) -> str:
        return self.explainer.policy_digest

    @property
    def epoch(self) -> int:
        return self.explainer.epoch


def denial_without_rules(
    facts: Facts, reason_codes: tuple[str, ...], now: int, explainer: Explainer, *, obligations: tuple[str, ...] = ()
) -> Decision:
    """Build a denial that no rule made, such as an alert or a refused start.

    Args:
        facts: of the denied request.
        reason_codes: sorted, at least one.
        now: the time of the decision.
        explainer: explains it to people.
        obligations: what the denial obliges to.
    """
    return Decision(
        allowed=False,
        reason_codes=reason_codes,
        determining=(),
        errored=(),
        requiring=(),
        unmet_approvals=(),
        obligations=obligations,
        facts=facts,
        now=now,
        explainer=explainer,
    )
