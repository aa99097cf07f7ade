"""Whether there is a signed baseline to hold an environment against: known also where there is none.

That nobody was told of a baseline is a fact, not a failed look. A rule may then let small jobs run without one and
still deny wherever there is one and it was not compared with.
"""

from __future__ import annotations

from policyguard.evidence.collector import Collected, JobInputs
from policyguard.model.facts import Assurance, Fact
from policyguard.model.request import Request
from policyguard.values import Instant

BASELINE = "resource.environment_baseline"


class UncomparedEnvironment:
    """Supplies `resource.environment_baseline` as false: the operator's configuration names none.

    It stands in the place of `EnvironmentCollector`, which supplies true if and only if it compared.
    """

    name = "environment"
    declares = (BASELINE,)

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Return the one fact; nothing is looked at."""
        return Collected(entries={BASELINE: Fact(False, Assurance.MEASURED, self.name, now, bound=True)})
