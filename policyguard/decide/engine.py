"""The engine: decides with one snapshot, and explains its decisions.

`evaluate.py` has the procedure, `explain.py` the texts. Pure, and never raises on data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from policyguard.decide.admission import Admitted
from policyguard.decide.conversion import Malformed
from policyguard.decide.evaluate import evaluate, refusal_code
from policyguard.decide.explain import explain
from policyguard.decide.snapshot import Snapshot
from policyguard.model.decision import Decision, denial_without_rules
from policyguard.model.facts import Facts
from policyguard.text import printable
from policyguard.values import Instant

if TYPE_CHECKING:
    from policyguard.model.static_explanation import StaticExplanation

INTERNAL_ERROR = "engine.internal_error"
UNEXPLAINED = "this decision cannot be explained, which is a defect of policyguard"


def internal_error(snapshot: Snapshot, facts: Facts, now: Instant, problem: Exception) -> Decision:
    """Build the denial for an error inside deciding or stating; it contains the request and no facts.

    Args:
        snapshot: the policies.
        facts: the facts about the request.
        now: the time of the decision.
        problem: what failed.
    """
    reason = f"deciding failed, which is a defect of policyguard: {_described(problem)}"
    explainer = _static(snapshot, reason)
    return denial_without_rules(Facts(facts.request), (INTERNAL_ERROR,), now, explainer)


def _static(snapshot: Snapshot, line: str) -> StaticExplanation:
    # Only a defect pays for this import.
    from policyguard.model.static_explanation import StaticExplanation

    return StaticExplanation(snapshot.policy_digest, snapshot.epoch, (line,))


def _described(problem: Exception) -> str:
    return printable(f"{type(problem).__name__}: {problem}", 200)


class Engine(msgspec.Struct, frozen=True):
    """Decides with one snapshot. It has no other state."""

    snapshot: Snapshot

    def decide(self, facts: Facts, now: Instant) -> Decision:
        """Decide on these facts at this instant: step 1, then steps 2 to 4 on the admitted facts."""
        snapshot, request = self.snapshot, facts.request
        admission = snapshot.admissions_by_type.get((request.subject.type, request.resource.type))
        # Step 1.
        if (
            admission is None
            or not snapshot.rules
            or (request.action, request.resource.type) not in snapshot.rule_indexes
        ):
            return self._refuse(facts, now, refusal_code(snapshot, facts))
        try:
            return evaluate(snapshot, admission.admit(facts, now), self)
        except Malformed:
            return self._refuse(facts, now, "engine.malformed")
        except Exception as problem:  # noqa: BLE001 - INVARIANT I2: what fails, whatever it is, denies
            return internal_error(self.snapshot, facts, now, problem)

    def evaluate(self, admitted: Admitted) -> Decision:
        """Decide on facts that are already admitted: steps 2 to 4 only."""
        return evaluate(self.snapshot, admitted, self)

    def explain(self, decision: Decision, *, full: bool = False, viewer: str | None = None) -> str:
        """Explain a decision to a viewer, a subject that the caller has authenticated.

        Args:
            decision: the decision.
            full: shows all rules and facts, not only those that matter.
            viewer: the subject that reads it, `type:id`; None hides the fields for `trace`.
        """
        try:
            return explain(self.snapshot, decision, full=full, viewer=viewer)
        except Exception as problem:  # noqa: BLE001 - a decision without its words is still a decision
            return _static(self.snapshot, f"{UNEXPLAINED}: {_described(problem)}").explain(decision)

    @property
    def policy_digest(self) -> str:
        """The digest of the policies that decide."""
        return self.snapshot.policy_digest

    @property
    def epoch(self) -> int:
        """The epoch of the policies that decide."""
        return self.snapshot.epoch

    def _refuse(self, facts: Facts, now: Instant, reason: str) -> Decision:
        """Build the denial for a request that step 1 refuses."""
        return denial_without_rules(facts, (reason,), now, self)
