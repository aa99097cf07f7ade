"""Explanations of denials that no rule made: alerts, refused starts, defects. Pure."""

from __future__ import annotations

from policyguard.model.decision import Decision
from policyguard.values import format_instant

NO_POLICIES = "0" * 64
"""The policy digest if no policies could be read."""


class StaticExplanation:
    """Explains such a denial in fixed lines, with the policies that were in force."""

    def __init__(self, policy_digest: str, epoch: int, lines: tuple[str, ...], remedy: str = "") -> None:
        self.policy_digest = policy_digest
        self.epoch = epoch
        self._lines = lines
        self._remedy = remedy

    def explain(self, decision: Decision, *, full: bool = False, viewer: str | None = None) -> str:  # noqa: ARG002
        """Format the denial as text for people.

        Args:
            decision: the denial.
            full: changes nothing.
            viewer: changes nothing.
        """
        request = decision.facts.request
        lines = [f"DENY  {request.subject.ref}  {request.action}  {request.resource.ref}"]
        lines.append(f"reason   {', '.join(decision.reason_codes)}")
        lines += [f"because  {line}" for line in self._lines]
        if self._remedy:
            lines.append(f"remedy   {self._remedy}")
        lines += [f"must     {obligation}" for obligation in decision.obligations]
        lines.append(f"policy   {self.policy_digest[:16]} epoch {self.epoch}, seen at {format_instant(decision.now)}")
        return "\n".join(lines)
