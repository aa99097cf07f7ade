"""The second look: what the decision was bound to is measured again while the job runs.

    W1  look with the same collectors, every `period_s` seconds and once more when the job has ended
    W2  compare each bound fact with what was verified at the start (launcher step L3); look at the job's processes
        (`processes.py`), and decide again if the policies were exchanged (`standing.py`)
    W3  a difference that was not told yet is a denial of `job:drift`, signed and logged: what, and by which decision
        A job that a signal ended, and nobody asked through us, is told, too (`drift.killed`)
    W4  if the decision carries the obligation `stop.on_drift`, the job ends: SIGTERM, then SIGKILL

An alert is in the log before the job is touched. Files that are put back are told, too (`drift.reverted`): whoever
edits and reverts between two debugging sessions leaves both instants in the log.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec

from policyguard.audit.receipt import SignedDecision
from policyguard.decide.redaction import Redact
from policyguard.errors import PolicyGuardError
from policyguard.evidence.checkpoint import CHECKPOINTS
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.repository import CODE
from policyguard.evidence.uncommitted import UNCOMMITTED
from policyguard.guard import Guard
from policyguard.hooks.denials import Told
from policyguard.hooks.watch.diff import difference
from policyguard.hooks.watch.drift import KILLED, PROCESS, REVERTED, TOLD_ONLY, UNMEASURED, Drift
from policyguard.model.decision import Decision
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.request import Entity, Request
from policyguard.values import FrozenMap, Instant, Value, canonical, sha256_digest
from policyguard.verify import VerifiedDecision

DRIFT_ACTION = "job:drift"
STOP = "stop.on_drift"
"""The obligation of an allow that lets drift end the job: what differs from the decision, or from its policies."""

STOP_ON_PROCESS = "stop.on_process"
"""The one that lets `drift.process` end it, too: where code lies is a guess at whose it is."""

UNMEASURED_LOOKS = 3
"""A look may fail because a machine is busy. So many in a row count as drift for the obligation, one for the log."""


Also = Callable[[], tuple[Drift, ...]]
"""Another way to look at the job; the drift it returns is told with the rest."""


class Watch:
    """Looks at one running job. `look` is one look; `beside` is a thread of them while the job runs.

    Args:
        verified: the decision that the job was started under.
        bound: what was measured and verified at the start, by path.
        on_alert: told of each alert once it is in the log.
        on_problem: told of an alert that could not be signed or logged; it is tried again at the next look.
        also: other ways to look, beside comparing the bound facts.
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
        on_alert: Callable[[SignedDecision], None] | None = None,
        on_problem: Callable[[PolicyGuardError], None] | None = None,
        clock: Callable[[], Instant] = time.time_ns,
        also: Sequence[Also] = (),
    ) -> None:
        if not period_s > 0:
            raise ValueError(f"period_s: found {period_s}, expected more than 0")
        self._guard, self._request, self._inputs = guard, request, inputs
        self._verified, self._bound, self._period_s = verified, dict(bound), period_s
        self._on_alert, self._on_problem, self._clock = on_alert, on_problem, clock
        self._also = tuple(also)
        self._told = b""
        self._unmeasured = 0
        self.looks = 0
        self.stopped = False
        """Whether drift was found that the policy ends jobs for."""
        self.ended_job = False

    @property
    def may_stop(self) -> bool:
        """Whether the policy that allowed the job says that drift ends it."""
        return STOP in self._verified.obligations

    def look(self) -> SignedDecision | None:
        """Look once (W1 to W3); return the alert if there was something new to tell.

        Raises:
            SigningError, AuditError: the alert could not be signed or logged; the next look tells it.
        """
        facts = self._guard.gather(self._request, self._inputs)
        self.looks += 1
        snapshot = self._guard.snapshot
        found = drifted(self._bound, facts, snapshot.sensitive(self._request), snapshot.redactions(self._request))
        found += tuple(drift for look in self._also for drift in look())
        self._unmeasured = self._unmeasured + 1 if any(each.reason == UNMEASURED for each in found) else 0
        state = _state(found, facts) if found else b""
        # INVARIANT I15: every change of state is told once: the drift, another drift, and the way back.
        if state == self._told and not self._newly_stopping(found):
            return None
        signed = self._guard.issue_denial(self._alert(found, facts))
        self._told = state
        # INVARIANT I12: the alert is durable in the log before the job is ended.
        self.stopped = self.stopped or self._must_stop(found)
        if self._on_alert is not None:
            self._on_alert(signed)
        return signed

    def killed(self, number: int) -> None:
        """Tell that a signal ended the job that neither the launcher nor the watch sent."""
        name = signal.Signals(number).name
        words = f"was ended by {name}, which no decision asked for; the kernel does so when memory runs out"
        drift = Drift("resource.process", KILLED, words if number == signal.SIGKILL else words.partition(";")[0])
        try:
            signed = self._guard.issue_denial(self._alert((drift,), Facts(self._request)))
        except PolicyGuardError as problem:
            if self._on_problem is not None:
                self._on_problem(problem)
            return
        if self._on_alert is not None:
            self._on_alert(signed)

    @contextmanager
    def beside(self, end: Callable[[], None]) -> Iterator[Watch]:
        """Look every period until the block ends, then once more; `end` is called at most once, by W4."""
        leaving = threading.Event()

        def watch() -> None:
            while not leaving.wait(self._period_s):
                if self._safe_look():
                    self.ended_job = not leaving.is_set()
                    end()
                    return

        thread = threading.Thread(target=watch, name="policyguard-watch", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            leaving.set()
            thread.join()
            if not self.stopped:
                self._safe_look()

    def _safe_look(self) -> bool:
        """Look, and return whether the job must end: also if the alert could not be told (W4 needs no log)."""
        try:
            self.look()
        except PolicyGuardError as problem:
            if self._on_problem is not None:
                self._on_problem(problem)
            # INVARIANT I2: a log that cannot be written does not keep a job running that must end.
            self.stopped = self.stopped or self.may_stop
        return self.stopped

    def _newly_stopping(self, found: tuple[Drift, ...]) -> bool:
        return not self.stopped and self._must_stop(found)

    def _must_stop(self, found: tuple[Drift, ...]) -> bool:
        return bool(self._ended_by(found))

    def _ended_by(self, found: tuple[Drift, ...]) -> tuple[str, ...]:
        """Return the obligations of the decision by which this drift ends the job."""
        # A job may write over the checkpoint that it resumed from: that is told, and no reason to end it.
        differs = any(each.reason not in (*TOLD_ONLY, PROCESS) and each.path != CHECKPOINTS for each in found)
        ending = {
            STOP: differs or self._unmeasured >= UNMEASURED_LOOKS,
            STOP_ON_PROCESS: any(each.reason == PROCESS for each in found),
        }
        return tuple(name for name, ends in ending.items() if ends and name in self._verified.obligations)

    def _alert(self, found: tuple[Drift, ...], facts: Facts) -> Decision:
        predicate, now = self._verified.predicate, self._clock()
        resource = self._request.resource
        about = FrozenMap(decision_id=predicate.decision_id, entry=self._verified.index)
        request = msgspec.structs.replace(
            self._request, action=DRIFT_ACTION, resource=Entity(resource.type, resource.id, about)
        )
        entries = {path: fact for path, fact in facts.entries.items() if path in {each.path for each in found}}
        for name, value in about.items():
            entries[f"resource.{name}"] = Fact(value, Assurance.MEASURED, "watch", now)
        words = tuple(f"{each.path} {each.words}" for each in found) or ("everything is as it was decided on again",)
        snapshot = self._guard.snapshot
        return Decision(
            allowed=False,
            reason_codes=tuple(sorted({each.reason for each in found})) or (REVERTED,),
            determining=(),
            errored=(),
            requiring=(),
            gaps=(),
            obligations=() if KILLED in {each.reason for each in found} else self._ended_by(found),
            facts=Facts(request, entries, missing=FrozenMap({each.path: each.words for each in found})),
            now=now,
            explainer=Told(snapshot.policy_digest, snapshot.epoch, words),
        )


def drifted(
    bound: Mapping[str, Value],
    facts: Facts,
    sensitive: frozenset[str] = frozenset(),
    redactions: Mapping[str, Redact] | None = None,
) -> tuple[Drift, ...]:
    """Return, sorted by path, every bound fact that is not found again as it was (W2)."""
    found, drifts = facts.bound, []
    for path in sorted({*bound, *found}):
        now = _without_new(bound.get(path), found[path]) if path == CHECKPOINTS and path in found else found.get(path)
        if path in bound and now is not None and canonical(bound[path]) == canonical(now):
            continue
        if now is not None:
            words = "changed" if path in sensitive else _words(bound.get(path), now, (redactions or {}).get(path))
            drifts.append(Drift(path, _reason(path), words))
        else:
            # What cannot be seen is no proof of a change, and no proof of none.
            drifts.append(Drift(path, UNMEASURED, f"is no longer seen: {facts.missing.get(path, 'not supplied')}"))
    return tuple(drifts)


def _words(before: Value | None, now: Value, redact: Redact | None) -> str:
    if redact is None:
        return difference(before, now)
    return difference(None if before is None else redact(before), redact(now))


def _reason(path: str) -> str:
    # What uncommitted files hold is code like the commit itself.
    return _reason(CODE) if path == UNCOMMITTED else f"drift.{path.partition('.')[2]}"


def _without_new(before: Value | None, after: Value) -> Value:
    """Return the checkpoints that were there at the start: one that came since then is what the job writes."""
    if not isinstance(before, tuple) or not isinstance(after, tuple):
        return after
    known = {each["path"] for each in before if isinstance(each, Mapping)}
    return tuple(each for each in after if isinstance(each, Mapping) and each["path"] in known)


def _state(found: tuple[Drift, ...], facts: Facts) -> bytes:
    """Return what tells one state of drift from another; the words of a failed look do not count."""
    values = facts.bound
    return canonical(
        {
            each.path: sha256_digest(canonical(values[each.path])) if each.path in values else each.state
            for each in found
        }
    )
