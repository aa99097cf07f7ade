"""Limits the size of statements: a decision whose statement no reader would accept becomes a denial.

A request with a few thousand unknown attributes would need a statement of half a megabyte. The denial's statement
contains only the number of facts; the request digest binds it to the request.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from policyguard.attest.statement import MAX_STATEMENT_BYTES, decision_statement
from policyguard.model.decision import Decision
from policyguard.model.facts import Facts
from policyguard.model.request import Request
from policyguard.values import FrozenMap

OVERSIZED = "engine.oversized"


StatedDecision: TypeAlias = tuple[Decision, bytes]
"""A decision and its encoded statement; a denial replaces the decision if the statement would be too long."""


def state_within_bounds(decision: Decision, request: Request, **options: Any) -> StatedDecision:
    """Encode the statement of a decision; if it would be too long, encode a denial `engine.oversized` instead.

    Args:
        decision: the decision.
        request: what it is about.
        options: as for `decision_statement`.
    """
    payload = decision_statement(decision, request, **options)
    if len(payload) <= MAX_STATEMENT_BYTES:
        return decision, payload
    # INVARIANT I2: what cannot be recorded is not allowed.
    facts = decision.facts
    reason = (
        f"the statement would be {len(payload)} bytes, expected at most {MAX_STATEMENT_BYTES}: "
        f"{len(facts.entries)} facts, {len(facts.missing)} missing, {len(facts.approvals)} approvals"
    )
    denial = Decision(
        allowed=False,
        reason_codes=(OVERSIZED,),
        determining=(),
        errored=(),
        requiring=(),
        unmet_approvals=(),
        obligations=(),
        facts=Facts(
            request,
            {path: fact for path, fact in facts.entries.items() if fact.bound},
            missing=FrozenMap(request=reason),
        ),
        now=decision.now,
        explainer=decision.explainer,
    )
    return denial, decision_statement(denial, request, **{**options, "recorded_paths": ()})
