"""Compare three implementations on the same requests: the engine, a stock casbin enforcer and a naive oracle.

A difference from casbin counts as explained if it disappears when casbin's documented limit is removed. Any other
difference is a failure, and is reported with its request.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from policyguard.analysis import oracle
from policyguard.analysis.oracle_cel import Unsupported
from policyguard.analysis.plain import plain_facts, plain_policy
from policyguard.analysis.requests import Requests
from policyguard.casbin_compat.second_opinion import SecondOpinion
from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.facts import Facts
from policyguard.model.policy import PolicySet
from policyguard.values import Instant, format_instant

KNOWN = {
    "H11": "casbin follows nine links of a chain of roles; with the same roles held directly it agrees",
}
"""Hazards of casbin that account for a difference, by their number in `docs/casbin.md`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One request that the implementations decide differently.

    `hazard` names the limit of casbin that explains the difference; None means a failure.
    """

    facts: Facts
    now: Instant
    engine: bool
    casbin: bool
    oracle: bool | None
    what: str
    hazard: str | None = None

    def __str__(self) -> str:
        request = self.facts.request
        results = f"engine {_word(self.engine)}, casbin {_word(self.casbin)}, oracle {_word(self.oracle)}"
        cause = f" ({self.hazard}: {KNOWN[self.hazard]})" if self.hazard else ""
        tried = f"{request.subject.ref} {request.action} {request.resource.ref} at {format_instant(self.now)}"
        return f"{tried}: {self.what}: {results}{cause}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a comparison run; `unjudged` counts requests with a function that the oracle does not know."""

    requests: int
    allowed: int
    unjudged: int
    reached: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def ok(self) -> bool:
        """True if a known limit of casbin explains every difference."""
        return not self.failures

    @property
    def failures(self) -> tuple[Difference, ...]:
        return tuple(difference for difference in self.differences if difference.hazard is None)

    def to_text(self) -> str:
        """Format the report for a terminal, failures first, at most ten of them."""
        known = Counter(difference.hazard for difference in self.differences if difference.hazard)
        lines = [f"{self.requests} requests, {self.allowed} allowed, {len(self.reached)} rules took part"]
        lines += [
            f"{count} differences explained by {hazard}: {KNOWN[hazard]}" for hazard, count in sorted(known.items())
        ]
        lines += (
            [f"{self.unjudged} requests without the oracle, which lacks a function they use"] if self.unjudged else []
        )
        lines += [f"DIFFERENT {difference}" for difference in self.failures[:10]]
        lines.append("engine, casbin and oracle agree" if self.ok else f"{len(self.failures)} unexplained differences")
        return "\n".join(lines)


def check_engine(
    policy_set: PolicySet, *, requests: int = 1000, seed: int = 0, snapshot: Snapshot | None = None
) -> Report:
    """Compare the three implementations on random and boundary requests built from the policies' constants.

    `snapshot` is one compiled elsewhere, to be compared with these policies; by default it is compiled from them here.

    Args:
        policy_set: the policies.
        requests: how many requests to ask.
        seed: the seed of the random choices.
        snapshot: the compiled policies, if they exist already.
    """
    grants = assign_roles(policy_set.roles, policy_set.bindings, policy_set.exclusions, policy_set.persons)
    compiled = Snapshot.of(policy_set, grants) if snapshot is None else snapshot
    jury = _Jury(
        policy_set, compiled, SecondOpinion(policy_set, grants), SecondOpinion(policy_set, grants, expand_roles=True)
    )
    stream = Requests(policy_set, seed)
    stream.reached = jury.reached
    differences: list[Difference] = []
    for facts, now in stream.take(requests, jury.rare):
        differences += jury.differences(facts, now)
    return Report(
        requests=requests,
        allowed=jury.allowed,
        unjudged=jury.unjudged,
        reached=tuple(sorted(jury.reached)),
        differences=tuple(differences),
    )


class _Jury:
    def __init__(
        self, policy_set: PolicySet, snapshot: Snapshot, casbin: SecondOpinion, expanded: SecondOpinion
    ) -> None:
        self.plain = plain_policy(policy_set)
        self.snapshot = snapshot
        self.casbin = casbin
        self.expanded = expanded
        self.allowed = 0
        self.unjudged = 0
        self.reached: set[str] = set()

    def rare(self, facts: Facts, now: Instant) -> bool:
        """Return True if the engine allows the request, or if a rule fires that no earlier request reached."""
        decision = Engine(self.snapshot).decide(facts, now)
        return decision.allowed or not self.reached.issuperset(decision.determining)

    def differences(self, facts: Facts, now: Instant) -> list[Difference]:
        decision = Engine(self.snapshot).decide(facts, now)
        ours, casbins = decision.allowed, self.casbin.allows(facts, now)
        judged = self._judged(facts, now)
        self.allowed += ours
        self.reached |= {*decision.determining, *decision.errored, *decision.requiring}
        oracles = None if judged is None else bool(judged["allowed"])

        def difference(what: str, hazard: str | None = None) -> Difference:
            return Difference(
                facts=facts, now=now, engine=ours, casbin=casbins, oracle=oracles, what=what, hazard=hazard
            )

        differences = []
        if casbins != ours:
            differences.append(difference("casbin", "H11" if self.expanded.allows(facts, now) == ours else None))
        if judged is not None:
            results = {
                "allowed": ours,
                "determining": list(decision.determining),
                "errored": list(decision.errored),
                "requiring": list(decision.requiring),
                "unmet": sorted({gap.quorum for gap in decision.unmet_approvals}),
            }
            differences += [
                difference(f"oracle on `{name}`: {judged[name]}, engine: {value}")
                for name, value in results.items()
                if judged[name] != value
            ]
        return differences

    def _judged(self, facts: Facts, now: Instant) -> dict[str, Any] | None:
        try:
            return oracle.decide(self.plain, plain_facts(facts), now)
        except Unsupported:
            self.unjudged += 1
            return None


def _word(allowed: bool | None) -> str:
    return "silent" if allowed is None else "allows" if allowed else "denies"
