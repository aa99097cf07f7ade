"""Words of denials that no rule made: alerts of the watch, and refusals of a launcher. Pure."""

from __future__ import annotations

from policyguard.model.decision import Decision
from policyguard.values import format_instant


class Told:
    """Explains such a denial as the snapshot explains a decision; holds which policies were in force."""

    def __init__(self, policy_digest: str, epoch: int, words: tuple[str, ...]) -> None:
        self.policy_digest = policy_digest
        self.epoch = epoch
        self._words = words

    def explain(self, decision: Decision, *, full: bool = False, viewer: str | None = None) -> str:  # noqa: ARG002
        """Return the denial in words."""
        request = decision.facts.request
        lines = [f"DENY  {request.subject.ref}  {request.action}  {request.resource.ref}"]
        lines.append(f"reason   {', '.join(decision.reason_codes)}")
        lines += [f"because  {words}" for words in self._words]
        lines += [f"must     {obligation}" for obligation in decision.obligations]
        lines.append(f"policy   {self.policy_digest[:16]} epoch {self.epoch}, seen at {format_instant(decision.now)}")
        return "\n".join(lines)
