"""Generated requests: repeatable, near the constants of the policies, and of every rule."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from policyguard.analysis.requests import STRANGER, Requests
from policyguard.model.facts import Facts
from policyguard.model.policy import PolicySet
from policyguard.policy.loader import load

POLICIES = b"""\
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources: {job: {id: "team/{team}/**", actions: [submit], attributes: {gpus: {type: int}, kind: {type: string}}}}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs, owner: platform}
rules:
  - id: small
    effect: allow
    subjects: ["user:alice"]
    actions: [job:submit]
    resources: {type: job}
    when: resource.gpus <= 64 && resource.kind == "debug"
"""


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    return load({"policies.yaml": POLICIES})


def values(taken: Iterator[tuple[Facts, int]], path: str) -> set[object]:
    return {facts.entries[path].value for facts, _ in taken if path in facts.entries}


def test_one_seed_gives_the_same_requests(policies: PolicySet) -> None:
    """A difference that was reported can be asked again; another seed asks other requests."""
    first, again, other = (list(Requests(policies, seed).take(50)) for seed in (1, 1, 2))
    assert first == again != other


def test_the_constants_of_conditions_and_their_neighbours_are_tried(policies: PolicySet) -> None:
    """A wrong `<=` shows at 64 and 65, a wrong comparison of texts at the text itself."""
    requests = Requests(policies)
    assert {63, 64, 65} <= values(requests.take(2000), "resource.gpus")
    assert "debug" in values(requests.take(500), "resource.kind")


def test_named_subjects_and_strangers_ask(policies: PolicySet) -> None:
    """The subjects of rules, and somebody whom no document names."""
    assert {"user:alice", STRANGER} <= {facts.request.subject.ref for facts, _ in Requests(policies).take(300)}


def test_rare_requests_are_drawn_again(policies: PolicySet) -> None:
    """Most random requests are denied; with `rare`, several times as many are of the kind that is asked for."""

    def is_rare(facts: Facts, _: int) -> bool:
        kind = facts.entries.get("resource.kind")
        return facts.request.subject.ref == "user:alice" and kind is not None and kind.value == "debug"

    counts = [sum(is_rare(*pair) for pair in Requests(policies).take(400, rare)) for rare in (None, is_rare)]
    assert counts[1] > 2 * counts[0] > 0
