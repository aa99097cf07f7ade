"""Collectors for requests without a command: what the platform saw, approvals, and the repository only for work."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyguard.assembly.requests import merge_collectors, request_collectors
from policyguard.decide.snapshot import Snapshot
from policyguard.evidence.approvals.collectors import ReviewFiles
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.repository import RepositoryCollector
from policyguard.model.request import Request
from policyguard.policy_store.folder import snapshot_of_text

POLICIES = """
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources: {grant: {actions: [use]}, job: {actions: [submit]}}
---
apiVersion: policyguard/v1
kind: Roles
roles: [{name: lead}]
---
apiVersion: policyguard/v1
kind: Quorums
quorums: [{id: one, of: request, approvers: [{roles: [lead], count: 1}]}]
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: all, owner: platform}
rules:
  - {id: use, effect: allow, actions: ["grant:use"], resources: {type: grant}}
  - {id: asked, effect: require, actions: ["grant:use"], resources: {type: grant}, quorum: one}
  - {id: submit, effect: allow, actions: ["job:submit"], resources: {type: job}}
"""


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return snapshot_of_text(POLICIES)


GRANT = Request.of("user:alice", "grant:use", "grant:x")
JOB = Request.of("user:alice", "job:submit", "job:x")


@pytest.mark.parametrize(
    ("request_", "files", "observed", "measure", "names"),
    [
        (JOB, ReviewFiles(), (), False, ["review"]),
        (JOB, ReviewFiles(), ("context.ticket",), False, ["channel", "review"]),
        (JOB, ReviewFiles(), (), True, ["identity", "review", "repository"]),
        (JOB, ReviewFiles(approvals=Path("approvals")), (), True, ["identity", "review", "repository"]),
        (GRANT, ReviewFiles(approvals=Path("approvals")), (), True, ["identity", "review", "repository"]),
    ],
)
def test_collectors_are_chosen_for_the_request(
    snapshot: Snapshot,
    request_: Request,
    files: ReviewFiles,
    observed: tuple[str, ...],
    measure: bool,
    names: list[str],
) -> None:
    """In this order; without `measure` nothing of this process or its folder is a fact."""
    chosen = request_collectors(files, observed, measure=measure)(snapshot, request_, None)
    assert [collector.name for collector in chosen] == names


def test_a_request_that_is_approved_by_itself_needs_no_contributors(snapshot: Snapshot) -> None:
    """The reviewed repository names contributors; a request alone has none, so only the plain one measures."""
    choose = request_collectors(ReviewFiles(approvals=Path("approvals")), measure=True)
    assert type(choose(snapshot, GRANT, None)[-1]) is RepositoryCollector
    assert type(choose(snapshot, JOB, None)[-1]) is not RepositoryCollector


def test_the_second_of_two_collectors_with_one_name_stays(snapshot: Snapshot) -> None:
    """Merged collectors keep the order of their names."""

    class Named:
        declares: tuple[str, ...] = ()

        def __init__(self, name: str) -> None:
            self.name = name

        def collect(self, *_: object) -> None:
            raise NotImplementedError

    first, second = [[Named(name) for name in names] for names in (("a", "b"), ("b", "c"))]

    def chosen(collectors: list[Named]) -> object:
        return lambda _snapshot, _request, _inputs: collectors

    merged: list[object] = list(
        merge_collectors(chosen(first), chosen(second))(snapshot, JOB, JobInputs())  # type: ignore[arg-type]
    )
    assert merged == [first[0], second[0], second[1]]
