"""Alerts about a job: signed denials of `job:drift` in the log, with the decision under which the job was started."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from policyguard.audit.receipt import SignedDecision
from policyguard.errors import PolicyGuardError
from policyguard.guard import Guard
from policyguard.hooks.watch.drift import REVERTED, Drift
from policyguard.model.decision import denial_without_rules
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.request import Entity, Request
from policyguard.model.static_explanation import StaticExplanation
from policyguard.values import FrozenMap, Instant
from policyguard.verify import VerifiedDecision

DRIFT_ACTION = "job:drift"


class Alerts:
    """Logs alerts about one job.

    Args:
        guard: signs and logs them.
        request: asked for the job.
        verified: the decision that the job was started under.
        on_alert: called with each alert once it is in the log.
        on_problem: called if an alert could not be signed or logged.
        clock: supplies the current time.
    """

    def __init__(
        self,
        guard: Guard,
        request: Request,
        verified: VerifiedDecision,
        on_alert: Callable[[SignedDecision], None] | None = None,
        on_problem: Callable[[PolicyGuardError], None] | None = None,
        clock: Callable[[], Instant] = time.time_ns,
    ) -> None:
        self._guard, self._request, self._verified = guard, request, verified
        self._on_alert, self._on_problem, self._clock = on_alert, on_problem, clock

    def issue(self, drift: Sequence[Drift], facts: Facts | None = None, ending: Sequence[str] = ()) -> SignedDecision:
        """Sign and log one alert; without drift it says that everything is again as it was decided.

        Args:
            drift: what differs.
            facts: what was measured.
            ending: the obligations of the decision that end the job because of this.

        Raises:
            SigningError, AuditError: it could not be signed or logged.
        """
        predicate, now = self._verified.predicate, self._clock()
        resource = self._request.resource
        properties = FrozenMap(decision_id=predicate.decision_id, entry=self._verified.index)
        request = msgspec.structs.replace(
            self._request, action=DRIFT_ACTION, resource=Entity(resource.type, resource.id, properties)
        )
        measured = facts.entries if facts is not None else {}
        entries = {path: fact for path, fact in measured.items() if path in {d.path for d in drift}}
        for name, value in properties.items():
            entries[f"resource.{name}"] = Fact(value, Assurance.MEASURED, "watch", now)
        lines = tuple(f"{d.path} {d.description}" for d in drift) or ("everything is again as it was decided",)
        snapshot = self._guard.snapshot
        denial = denial_without_rules(
            Facts(request, entries, missing=FrozenMap({d.path: d.description for d in drift})),
            tuple(sorted({d.reason for d in drift})) or (REVERTED,),
            now,
            StaticExplanation(snapshot.policy_digest, snapshot.epoch, lines),
            obligations=tuple(ending),
        )
        return self._guard.issue_denial(denial)

    def report(self, signed: SignedDecision) -> None:
        """Pass on an alert that is in the log."""
        if self._on_alert is not None:
            self._on_alert(signed)

    def report_problem(self, problem: PolicyGuardError) -> None:
        """Pass on what could not be measured or logged."""
        if self._on_problem is not None:
            self._on_problem(problem)

    def log(self, *drift: Drift) -> None:
        """Log and report one alert; a problem is reported, too, and never raised."""
        try:
            signed = self.issue(drift)
        except PolicyGuardError as problem:
            self.report_problem(problem)
            return
        self.report(signed)
