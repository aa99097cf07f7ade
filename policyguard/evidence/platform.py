"""Properties of the request that the calling platform writes itself and vouches for.

A Slurm controller knows `submit_uid`, an API server `userInfo`. The operator lists those paths in the configuration of
the hook; a request cannot.
"""

from __future__ import annotations

from collections.abc import Collection

from policyguard.evidence.collector import Collected, JobInputs
from policyguard.model.facts import Assurance, Fact, claims
from policyguard.model.request import Request
from policyguard.values import Instant


class ChannelCollector:
    """Supplies the named properties of the request as observed, and no others."""

    name = "channel"
    measures_contributors = False

    def __init__(self, paths: Collection[str]) -> None:
        self.declares = tuple(sorted(set(paths)))

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Collect each named property; those that the request lacks are missing."""
        claimed = claims(request, now)
        # INVARIANT I1: only paths that the operator named rise from claimed to observed.
        present = [path for path in self.declares if path in claimed]
        entries = {path: Fact(claimed[path].value, Assurance.OBSERVED, self.name, now) for path in present}
        missing = {path: "the calling platform did not say" for path in self.declares if path not in entries}
        return Collected(entries=entries, missing=missing)
