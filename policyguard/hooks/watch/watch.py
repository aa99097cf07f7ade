"""Measures the bound facts of a decision again while its job runs.

    W1  measure with the same collectors, every `period_s` seconds and once more when the job has ended
    W2  compare each bound fact with what was verified at the start (launcher step L3); inspect the job's processes
        (`processes.py`), and decide again if the policies were replaced (`policies.py`)
    W3  sign and log a new difference as a denial of `job:drift`, with the decision that it is about
    W4  log a gap in watching as an alert (`gaps.py`)
    W5  if the decision carries the obligation `stop.on_drift`, end the job: SIGTERM, then SIGKILL

An alert is logged before the job is stopped. Restored files are logged, too (`drift.reverted`), so an edit and its
reversal both leave an entry with their times.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from policyguard.audit.receipt import SignedDecision
from policyguard.decide.redaction import Redact
from policyguard.errors import PolicyGuardError
from policyguard.evidence.checkpoint import CHECKPOINTS
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.environment_collector import ENVIRONMENT, ENVIRONMENT_DIGEST
from policyguard.evidence.repository import CODE
from policyguard.evidence.uncommitted import UNCOMMITTED
from policyguard.guard import Guard
from policyguard.hooks.watch.alerts import Alerts
from policyguard.hooks.watch.diff import difference
from policyguard.hooks.watch.drift import PROCESS, UNCERTAIN, UNMEASURED, Drift
from policyguard.hooks.watch.gaps import TICK_S, Ticks
from policyguard.model.facts import Facts
from policyguard.model.request import Request
from policyguard.values import Value, canonical, sha256_digest
from policyguard.verify import VerifiedDecision

STOP = "stop.on_drift"
"""The obligation by which drift ends the job: a difference from the decision, or from its policies."""

STOP_ON_PROCESS = "stop.on_process"
"""The obligation by which `drift.process` ends the job, too; separate because it can be a false alarm."""

MAX_UNMEASURED = 3
"""After this many failed measurements in a row there is drift; a busy machine can fail a few."""


DriftCheck = Callable[[], tuple[Drift, ...]]
"""Checks the job in another way; the drift it returns is logged with the rest."""


class Watch:
    """Measures one running job: `check` once, `running_alongside` in a thread while the job runs.

    Args:
        verified: the decision that the job was started under.
        bound: the facts that were measured and verified at the start, by path.
        period_s: the time between two checks.
        alerts: logs the alerts; one that could not be signed or logged is tried again at the next check.
        checks: more checks, beside the comparison of bound facts.
    """

    def __init__(
        self,
        guard: Guard,
        request: Request,
        inputs: JobInputs,
        verified: VerifiedDecision,
        bound: Mapping[str, Value],
        *,
        period_s: float,
        alerts: Alerts | None = None,
        checks: Sequence[DriftCheck] = (),
    ) -> None:
        if not period_s > 0:
            raise ValueError(f"period_s: found {period_s}, expected more than 0")
        self._guard, self._request, self._inputs = guard, request, inputs
        self._verified, self._bound, self._period_s = verified, dict(bound), period_s
        self._alerts = alerts or Alerts(guard, request, verified)
        self._checks = tuple(checks)
        self._reported_state = b""
        self._unmeasured = 0
        self.check_count = 0
        self.stopped = False
        """True once drift has ended the job, if the policy says that it does."""
        self.ended_job = False

    @property
    def may_stop(self) -> bool:
        """True if the decision says that drift ends the job."""
        return STOP in self._verified.obligations

    def check(self) -> SignedDecision | None:
        """Measure once (W1 to W3); return the alert if there is a new state to report.

        Raises:
            SigningError, AuditError: the alert could not be signed or logged; the next check tries again.
        """
        facts = self._guard.gather(self._request, self._inputs)
        self.check_count += 1
        snapshot = self._guard.snapshot
        drift = drifted(self._bound, facts, snapshot.sensitive(self._request), snapshot.redactions(self._request))
        drift += tuple(more for check in self._checks for more in check())
        self._unmeasured = self._unmeasured + 1 if any(d.reason == UNMEASURED for d in drift) else 0
        state = _state(drift, facts) if drift else b""
        # INVARIANT I15: every change of state is reported once: the drift, another drift, and the way back.
        if state == self._reported_state and not self._newly_stopping(drift):
            return None
        signed = self._alerts.issue(drift, facts, self._ended_by(drift))
        self._reported_state = state
        # INVARIANT I12: the alert is durable in the log before the job is ended.
        self.stopped = self.stopped or self._must_stop(drift)
        self._alerts.report(signed)
        return signed

    @contextmanager
    def running_alongside(self, end: Callable[[], None]) -> Iterator[Watch]:
        """Check once per period until the block ends, then once more; `end` is called at most once (W5)."""
        leaving = threading.Event()

        def watch() -> None:
            while not leaving.wait(self._period_s):
                if self._check_safely():
                    self.ended_job = not leaving.is_set()
                    end()
                    return

        ticks = Ticks(self._period_s)

        def tick() -> None:
            is_leaving = False
            while not is_leaving:
                is_leaving = leaving.wait(TICK_S)
                if (gap := ticks.tick()) is not None:
                    self._alerts.log(gap)

        threads = [threading.Thread(target=target, daemon=True) for target in (watch, tick)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            leaving.set()
            for thread in threads:
                thread.join()
            if not self.stopped:
                self._check_safely()

    def _check_safely(self) -> bool:
        """Check; return True if the job must end, even if the alert could not be logged (W5 needs no log)."""
        try:
            self.check()
        except PolicyGuardError as problem:
            self._alerts.report_problem(problem)
            # INVARIANT I2: a log that cannot be written does not keep a job running that must end.
            self.stopped = self.stopped or self.may_stop
        return self.stopped

    def _newly_stopping(self, drift: tuple[Drift, ...]) -> bool:
        return not self.stopped and self._must_stop(drift)

    def _must_stop(self, drift: tuple[Drift, ...]) -> bool:
        return bool(self._ended_by(drift))

    def _ended_by(self, drift: tuple[Drift, ...]) -> tuple[str, ...]:
        """List the obligations of the decision that end the job because of this drift."""
        # A job may overwrite the checkpoint that it resumed from: this is logged, but does not end it.
        differs = any(d.reason not in (*UNCERTAIN, PROCESS) and d.path != CHECKPOINTS for d in drift)
        ending = {
            STOP: differs or self._unmeasured >= MAX_UNMEASURED,
            STOP_ON_PROCESS: any(d.reason == PROCESS for d in drift),
        }
        return tuple(name for name, ends in ending.items() if ends and name in self._verified.obligations)


def drifted(
    bound: Mapping[str, Value],
    facts: Facts,
    sensitive: frozenset[str] = frozenset(),
    redactions: Mapping[str, Redact] | None = None,
) -> tuple[Drift, ...]:
    """List the bound facts that are missing or differ now, by path (W2).

    Args:
        bound: the values that the decision is bound to.
        facts: the facts measured now.
        sensitive: paths whose values are not shown.
        redactions: functions that remove parts of values, by path.
    """
    measured, drifts = facts.bound, []
    for path in sorted({*bound, *measured}):
        now = measured.get(path)
        if path == CHECKPOINTS and now is not None:
            now = _without_new(bound.get(path), now)
        if path in bound and now is not None and canonical(bound[path]) == canonical(now):
            continue
        if now is not None:
            text = "changed" if path in sensitive else _difference(bound.get(path), now, (redactions or {}).get(path))
            drifts.append(Drift(path, _reason(path), text))
        else:
            # A failed measurement proves neither a change nor its absence.
            drifts.append(Drift(path, UNMEASURED, f"is no longer measured: {facts.missing.get(path, 'not supplied')}"))
    return tuple(drifts)


def _difference(before: Value | None, now: Value, redact: Redact | None) -> str:
    if redact is None:
        return difference(before, now)
    return difference(None if before is None else redact(before), redact(now))


_SAME_REASON = {UNCOMMITTED: CODE, ENVIRONMENT_DIGEST: ENVIRONMENT}


def _reason(path: str) -> str:
    # Uncommitted files are code, like the commit itself, and the digest of an environment is about that environment.
    return f"drift.{_SAME_REASON.get(path, path).partition('.')[2]}"


def _without_new(before: Value | None, after: Value) -> Value:
    """Return only the checkpoints that existed at the start; the job itself writes newer ones."""
    if not isinstance(before, tuple) or not isinstance(after, tuple):
        return after
    known = {record["path"] for record in before if isinstance(record, Mapping)}
    return tuple(record for record in after if isinstance(record, Mapping) and record["path"] in known)


def _state(drift: tuple[Drift, ...], facts: Facts) -> bytes:
    """Encode a state of drift for comparison; the reason of a failed measurement is left out."""
    values = facts.bound
    return canonical({d.path: sha256_digest(canonical(values[d.path])) if d.path in values else d.state for d in drift})
