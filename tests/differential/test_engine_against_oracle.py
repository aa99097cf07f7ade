"""Random decisions under random policies: the engine and the naive oracle agree on all that a decision says.

`POLICYGUARD_DECISIONS=2000000` compares two million, `POLICYGUARD_SEED` others.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from policyguard.analysis import oracle
from policyguard.analysis.plain import plain_facts, plain_policy
from policyguard.analysis.requests import Requests
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.policy import PolicySet
from policyguard.policy_store.folder import grants_of
from tests.differential.test_casbin_random_policies import world

DECISIONS = int(os.environ.get("POLICYGUARD_DECISIONS", "20000"))
SEED = int(os.environ.get("POLICYGUARD_SEED", "20261128"))
PARTS = 4
REQUESTS = 500
"""Requests under each policy set."""


def compare(policies: PolicySet, seed: int) -> Counter[str]:
    """Compare one policy set's decisions, by an index that is built at once and by one that grows; count outcomes."""
    outcomes: Counter[str] = Counter()
    plain = plain_policy(policies)
    cold, warm = (Snapshot.of(policies, grants_of(policies)) for _ in range(2))
    warm.build_indexes()
    for facts, now in Requests(policies, seed).take(REQUESTS):
        decision = Engine(warm).decide(facts, now)
        assert Engine(cold).decide(facts, now).reason_codes == decision.reason_codes, (seed, facts)
        expected = oracle.decide(plain, plain_facts(facts), now)
        said = {
            "allowed": decision.allowed,
            "determining": list(decision.determining),
            "errored": list(decision.errored),
            "requiring": list(decision.requiring),
            "unmet": sorted({unmet.quorum for unmet in decision.unmet_approvals}),
        }
        assert said == {name: expected[name] for name in said}, (seed, facts)
        outcomes["allow" if decision.allowed else "deny"] += 1
        outcomes["error"] += bool(decision.errored)
        outcomes["unmet"] += bool(decision.unmet_approvals)
    return outcomes


@pytest.mark.parametrize("part", range(PARTS))
def test_engine_and_oracle_agree(part: int) -> None:
    """The same outcome, rules, errors and unmet quorums, from both."""
    outcomes: Counter[str] = Counter()
    for number in range(DECISIONS // PARTS // REQUESTS):
        seed = SEED + number * PARTS + part
        outcomes += compare(world(seed), seed)
    assert min(outcomes[name] for name in ("allow", "deny", "error", "unmet")) > 0, outcomes
