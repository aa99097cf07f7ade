"""The decision procedure; `docs/semantics.md` mirrors this file.

1. No rules, unknown action, unknown type, malformed request: DENY with its own reason code (`engine.py`).
2. Each candidate rule has the outcome TRUE, FALSE or ERROR.
3. `deny` fires on TRUE or ERROR; `require` applies on TRUE or ERROR; `allow` fires on TRUE only.
4. DENY if any deny fires; else DENY if no allow fires; else DENY if an applying quorum is unmet; else ALLOW
   (`combine.py`).

Pure, and never raises on data.
"""

from __future__ import annotations

from typing import Any

from policyguard.decide.admission import Admitted
from policyguard.decide.combine import ALL_MET, NO_IDS, Rules, combine
from policyguard.decide.compiled_form import ALLOW, DENY
from policyguard.decide.index.rules import EVERYONE, RuleIndex
from policyguard.decide.index.tree import gather_below
from policyguard.decide.snapshot import Snapshot
from policyguard.model.decision import Decision, Explainer
from policyguard.model.facts import Facts

NO_RULES = RuleIndex({}, {})


def evaluate(snapshot: Snapshot, admitted: Admitted, explainer: Explainer) -> Decision:
    """Decide on admitted facts: steps 2 to 4.

    Longer than other functions on purpose: every decision runs it, and a call for each rule costs more than the step.

    Args:
        snapshot: the policies.
        admitted: the admitted facts.
        explainer: explains the decision later.
    """
    subject, resource, context = admitted.subject, admitted.resource, admitted.context
    domain, now = admitted.domain, admitted.now
    action = admitted.facts.request.action
    index = snapshot.rule_indexes.get((action, resource["type"]), NO_RULES)
    entities = (subject, resource, context)
    # Step 2: the candidates. A rule that the index leaves out is FALSE, exactly.
    candidates: list[tuple[Any, ...]] = []
    subject_ref = subject["id"]
    held = snapshot.grants.roles_at(subject_ref, domain, now)
    anywhere, in_domain = index.anywhere, index.in_domain[domain]
    for node in (
        anywhere[EVERYONE],
        anywhere[held] if held else None,
        None if in_domain is None else in_domain[held],
    ):
        if node is not None:
            always, equals, others = node
            candidates += always
            # Most nodes of a small policy set have only a list; a call would cost more.
            if equals or others:
                gather_below(equals, others, entities, candidates)
    # Steps 2 and 3: the outcome of each candidate, and which rules fire on it.
    allows: Rules = ()
    denies: Rules = ()
    requires: Rules = ()
    errored: Rules = ()
    identifier, segments = resource["id"], admitted.segments
    for literal_slice, literals, test, scope, is_limited, run, constants, effect, rule in candidates:
        if literal_slice is not None:
            if segments[literal_slice] != literals:
                continue
        elif test is not None and not test(identifier):
            continue
        if scope is not None and scope != domain:
            continue
        if is_limited:
            if not rule.concerns(subject_ref, now):
                continue
            if rule.assurance:
                outcome = rule.outcome(admitted)
                if outcome is False:
                    continue
                if outcome is not True:
                    errored = (*errored, rule)
                    if effect == ALLOW:
                        continue
                run = None
        if run is not None:
            try:
                if not run(subject, resource, context, action, now, constants):
                    continue
            except Exception:  # noqa: BLE001 - the optimistic code gives up this way; the exact evaluator decides
                outcome = rule.evaluate_exactly(subject, resource, context, action, now)
                if outcome is False:
                    continue
                if outcome is not True:
                    errored = (*errored, rule)
                    # Step 3. INVARIANT I2: an error never grants.
                    if effect == ALLOW:
                        continue
        if effect == ALLOW:
            allows = (*allows, rule)
        elif effect == DENY:
            denies = (*denies, rule)
        else:
            requires = (*requires, rule)
    if len(allows) == 1 and not (denies or requires or errored):
        # Step 4 for the usual allow, by one rule; `combine` gives the same result.
        rule, facts = allows[0], admitted.facts
        return Decision(True, rule.reasons, rule.ids, NO_IDS, NO_IDS, ALL_MET, rule.obligations, facts, now, explainer)
    return combine(snapshot, admitted, allows, denies, requires, errored, explainer)


def refusal_code(snapshot: Snapshot, facts: Facts) -> str:
    """Return the reason code for a request that no rule can apply to: step 1."""
    request = facts.request
    if not snapshot.rules:
        return "engine.no_rules"
    schema = snapshot.schema
    if request.resource.type not in schema.resources or request.subject.type not in schema.subjects:
        return "engine.unknown_type"
    return "engine.unknown_action"
