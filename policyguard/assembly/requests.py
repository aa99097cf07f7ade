"""Builds the collectors for a request without a command: the platform's observations and approvals.

Actions whose every quorum is `of: request` are approved by the digest of the request. Any other action is work: its
repository is measured, and an approval must cover `any_command`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from policyguard.decide.snapshot import Snapshot
from policyguard.evidence.accepted_history import AcceptedHistory
from policyguard.evidence.approvals.collectors import (
    RequestReviewCollector,
    ReviewedRepositoryCollector,
    ReviewFiles,
    is_reviewed,
)
from policyguard.evidence.collector import Collector, CollectorsFor, JobInputs
from policyguard.evidence.identity import IdentityCollector
from policyguard.evidence.platform import ChannelCollector
from policyguard.evidence.repository import RepositoryCollector
from policyguard.model.request import Request


def request_collectors(
    files: ReviewFiles,
    observed: Collection[str] = (),
    *,
    measure: bool = False,
    identity: IdentityCollector | None = None,
    repositories: Sequence[AcceptedHistory] = (),
) -> CollectorsFor:
    """Return the function that chooses collectors for requests without a command.

    Args:
        files: where approvals are, and whose signatures count.
        observed: paths of attributes that the calling platform observed itself.
        measure: also measure the identity of this process and the repository in the current folder.
        identity: says who this process is; by default without accounts that the operator lists.
        repositories: those whose history the operator accepts.
    """
    fixed: list[Collector] = [ChannelCollector(observed)] if observed else []
    if measure:
        fixed.append(identity or IdentityCollector())

    def collectors(snapshot: Snapshot, request: Request, inputs: JobInputs | None) -> Sequence[Collector]:  # noqa: ARG001
        request_only = snapshot.request_only_actions
        chosen = [*fixed, RequestReviewCollector(snapshot.people, files, request_only)]
        # Nobody contributed to a request alone, so that a folder without a repository leaves nobody unknown.
        if measure and (not is_reviewed(snapshot.people, files) or request.action in request_only):
            chosen.append(RepositoryCollector(repositories=repositories))
        elif measure:
            chosen.append(ReviewedRepositoryCollector(snapshot.people, files, repositories=repositories))
        return chosen

    return collectors


def merge_collectors(first: CollectorsFor, second: CollectorsFor) -> CollectorsFor:
    """Combine two functions that choose collectors; for collectors of one name, the second function wins."""

    def collectors(snapshot: Snapshot, request: Request, inputs: JobInputs | None) -> Sequence[Collector]:
        chosen = (*first(snapshot, request, inputs), *second(snapshot, request, inputs))
        return tuple({collector.name: collector for collector in chosen}.values())

    return collectors
