"""What a hook looks at of people: where approvals are kept, whose keys count, and which requests they approve alone.

A hook has a request and no command. Actions whose every quorum is `of: request` are approved by the request's digest;
any other is work, for which a tree must be looked at, and `any_command` approved.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from policyguard.decide.snapshot import Snapshot
from policyguard.evidence.approvals.collectors import RequestReviewCollector, ReviewedRepositoryCollector, ReviewFiles
from policyguard.evidence.collector import Collector
from policyguard.evidence.identity import IdentityCollector
from policyguard.evidence.platform import ChannelCollector
from policyguard.evidence.repository import RepositoryCollector
from policyguard.guard import CollectorsFor


def hook_collectors(files: ReviewFiles, observed: Collection[str] = (), *, look: bool = False) -> CollectorsFor:
    """Return what supplies facts to whoever asks with a request alone.

    Args:
        observed: paths that the calling platform vouches for.
        look: measure identity and repository here, too.
    """
    plain: list[Collector] = [ChannelCollector(observed)] if observed else []
    if look:
        plain.append(IdentityCollector())

    def collectors(snapshot: Snapshot) -> Sequence[Collector]:
        alone = snapshot.approved_alone
        found = [*plain, RequestReviewCollector(snapshot.people, files, alone)]
        if look and files == ReviewFiles():
            found.append(RepositoryCollector())
        elif look:
            found.append(ReviewedRepositoryCollector(snapshot.people, files, apart=alone))
        return found

    return collectors


def both(first: CollectorsFor, second: CollectorsFor) -> CollectorsFor:
    """Return what looks as the one and as the other, each collector once."""

    def collectors(snapshot: Snapshot) -> Sequence[Collector]:
        found = {each.name: each for each in (*first(snapshot), *second(snapshot))}
        return tuple(found.values())

    return collectors
