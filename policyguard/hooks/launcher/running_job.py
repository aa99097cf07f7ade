"""A job from its start to its end, and what is logged about the end.

That is a signal that nobody decided on, processes that the job left, or a killed guardian.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping

from msgspec import structs

from policyguard.attest.statement import Predicate
from policyguard.audit.job_end import JOB_ENDED, JobEnded
from policyguard.errors import EvidenceError, PolicyGuardError
from policyguard.exit_codes import DENIED
from policyguard.hooks.launcher.guardian import JobEnd
from policyguard.hooks.launcher.process_tree import Ended
from policyguard.hooks.launcher.start_check import DELAYS_S, StartCheck
from policyguard.hooks.launcher.supervise import Running
from policyguard.hooks.watch.alerts import Alerts
from policyguard.hooks.watch.drift import KILLED, OUTLIVED, START, UNGUARDED, Drift
from policyguard.hooks.watch.watch import Watch
from policyguard.text import counted
from policyguard.values import format_instant


class RunningJob:
    """Hears from `supervise` how the job goes on.

    Args:
        alerts: logs what is not as it should be.
        log_end, allowed: logs how the job of this decision ended.
        check: compares what was started with what was measured.
        environment: the variables of the job.
    """

    def __init__(
        self,
        alerts: Alerts,
        log_end: Callable[[JobEnded], object],
        allowed: Predicate,
        check: StartCheck,
        environment: Mapping[str, str],
    ) -> None:
        self.alerts, self._log_end, self._allowed = alerts, log_end, allowed
        self._check, self._environment = check, environment
        self._checking: threading.Thread | None = None
        self._has_ended = threading.Event()
        self._pid = 0
        self.on_start: list[Callable[[Running], object]] = []
        self.watch: Watch | None = None
        self._is_refused = False

    @property
    def is_refused(self) -> bool:
        """True if the job was ended: it is not what was decided, it changed, or somebody killed its guardian."""
        return self._is_refused or (self.watch is not None and self.watch.ended_job)

    def started(self, job: Running) -> None:
        """Note that the job has started."""
        self._pid, self._started_at, self._started = job.pid, time.time_ns(), time.monotonic()
        if not job.guardian_pid:
            text = "what leaves the job's process group is neither found nor ended, expected Linux 5.4 or newer"
            self.alerts.report_problem(EvidenceError(text))
        for act in self.on_start:
            act(job)
        # INVARIANT I15: what was started is compared with what was measured, also without a watch.
        if not self._refuse(job, self._check.first_problem(job.pid, self._environment)):
            self._checking = threading.Thread(target=self._check_start, args=(job,), daemon=True)
            self._checking.start()

    def _check_start(self, job: Running) -> None:
        for delay_s in DELAYS_S:
            has_ended = self._has_ended.wait(delay_s)
            if self._refuse(job, self._check.problem()) or has_ended:
                return

    def _refuse(self, job: Running, problem: str) -> bool:
        """End a job that is not what was decided, and log why; return True if there is a problem."""
        if problem:
            self._is_refused = True
            self.alerts.log(Drift("resource.start", START, problem))
            job.end(at_once=True)
        return bool(problem)

    def ended(self, end: JobEnd) -> None:
        """Log what there is to say about the end."""
        self._has_ended.set()
        if self._checking is not None:
            self._checking.join()
        drift = drift_at_end(structs.replace(end, unexpected_signal=0) if self._is_refused else end, self._pid)
        self._is_refused = self._is_refused or end.guardian_lost
        if drift:
            self.alerts.log(*drift)
        try:
            self._log_end(self._entry(end))
        except PolicyGuardError as problem:
            self.alerts.report_problem(problem)

    def _entry(self, end: JobEnd) -> JobEnded:
        return JobEnded(
            decision_id=self._allowed.decision_id,
            event=JOB_ENDED,
            subject=self._allowed.requester,
            resource=self._allowed.resource,
            started=format_instant(self._started_at),
            at=format_instant(time.time_ns()),
            duration_ms=round((time.monotonic() - self._started) * 1000),
            status=DENIED if self.is_refused else end.exit_status,
            pid=self._pid,
            signal=_signal_name(end.signal),
            outlived=end.outlived.count,
        )


def drift_at_end(end: JobEnd, pid: int) -> tuple[Drift, ...]:
    """List what an alert has to say about the end of a job; usually nothing.

    Args:
        end: how it ended.
        pid: of its first process.
    """
    drift = []
    if end.guardian_lost:
        text = "somebody killed the guardian of the job, so the job was ended"
        drift.append(Drift("resource.guardian", UNGUARDED, text))
    elif end.unexpected_signal:
        drift.append(Drift("resource.process", KILLED, _killed(end.unexpected_signal, pid)))
    if end.outlived.count:
        drift.append(Drift("resource.processes", OUTLIVED, _outlived(end.outlived)))
    return tuple(drift)


def _signal_name(number: int) -> str:
    if not number:
        return ""
    try:
        return signal.Signals(number).name
    except ValueError:
        # Real-time signals between the first and the last have no name.
        return f"SIG{number}"


def _killed(number: int, pid: int) -> str:
    name = signal.Signals(number).name
    text = f"pid {pid} was ended by {name} (exit status {128 + number}), which no decision asked for"
    return text + "; the kernel does so when memory runs out" if number == signal.SIGKILL else text


def _outlived(ended: Ended) -> str:
    named = "; ".join(ended.described)
    more = f"; and {ended.count - len(ended.described)} more" if ended.count > len(ended.described) else ""
    remaining = f"; {ended.remaining} of them could not be ended" if ended.remaining else ""
    return (
        f"{counted(ended.count, 'process', 'processes')} outlived the job and had to be ended: {named}{more}{remaining}"
    )
