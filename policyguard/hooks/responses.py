"""Formats a decision as JSON for programs. Pure."""

from __future__ import annotations

from typing import Any

from policyguard.model.decision import Decision


def decision_data(decision: Decision) -> dict[str, Any]:
    """Convert a decision to data for JSON."""
    return {
        "decision": decision.allowed,
        "reason_codes": decision.reason_codes,
        "determining": decision.determining,
        "errored": decision.errored,
        "requiring": decision.requiring,
        "obligations": decision.obligations,
        "gaps": [{name: getattr(gap, name) for name in gap.__struct_fields__} for gap in decision.unmet_approvals],
        "policy": {"digest": decision.policy_digest, "epoch": decision.epoch},
        "explanation": decision.explain(),
    }
