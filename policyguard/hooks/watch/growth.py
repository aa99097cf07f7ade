"""Compares the GPUs that a running job uses with the number that was decided: a job that grows has drifted."""

from __future__ import annotations

from policyguard.evidence.running_scale import running_scale
from policyguard.hooks.watch.drift import Drift
from policyguard.hooks.watch.processes import JobProcesses
from policyguard.values import Value

GROWN = "drift.gpus"


class JobGrowth:
    """Measures the processes that `JobProcesses` inspected last; the largest number counts until the job ends.

    Args:
        processes: of the job.
        decided: the value of `resource.gpus` that the decision is bound to; None if it was not measured.
    """

    def __init__(self, processes: JobProcesses, decided: Value | None) -> None:
        self._processes, self._decided = processes, decided
        self._largest = (0, "")

    def check(self) -> tuple[Drift, ...]:
        """Measure now; report a number that is larger than the decided one."""
        if not isinstance(self._decided, int):
            return ()
        self._largest = max(self._largest, running_scale(self._processes.family))
        number, source = self._largest
        if number <= self._decided:
            return ()
        text = f"were decided as {self._decided}, are {number}: {source}"
        return (Drift("resource.running_gpus", GROWN, text, str(number)),)
