"""How a request is decided; `docs/semantics.md` mirrors this file.

1. No rules, unknown action, unknown type, malformed request: DENY with its own reason code (`engine.py`).
2. Each candidate rule has the outcome TRUE, FALSE or ERROR.
3. `deny` fires on TRUE or ERROR; `require` applies on TRUE or ERROR; `allow` fires on TRUE only.
4. DENY if any deny fires; else DENY if no allow fires; else DENY if an applying quorum is unmet; else ALLOW.

Pure, and never raises on data.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from policyguard.decide.admission import Admitted
from policyguard.decide.compiled_form import ALLOW, DENY
from policyguard.decide.compiled_rule import CompiledRule
from policyguard.decide.index.rules import EVERYONE, Roots
from policyguard.decide.index.tree import gather
from policyguard.decide.quorum import gaps, why
from policyguard.decide.snapshot import Snapshot
from policyguard.model.decision import Decision, Explainer, Gap
from policyguard.model.facts import Facts
from policyguard.values import Instant

Rules: TypeAlias = tuple[CompiledRule, ...]
NOTHING: Rules = ()
NONE: tuple[str, ...] = ()
NO_ROOTS = Roots({}, {})
NO_GAPS: tuple[Gap, ...] = ()

NO_ALLOW = ("engine.no_allow",)
ERROR = "engine.error"
NEEDS_APPROVAL = "needs-approval"


def evaluate(snapshot: Snapshot, admitted: Admitted, explainer: Explainer) -> Decision:
    """Return the decision on admitted facts: steps 2 to 4."""
    subject, resource, context = admitted.subject, admitted.resource, admitted.context
    domain, facts, now = admitted.domain, admitted.facts, admitted.now
    action = facts.request.action
    roots = snapshot.roots.get((action, resource["type"]), NO_ROOTS)
    entities = (subject, resource, context)
    # Step 2.
    found: list[tuple[Any, ...]] = []
    ref = subject["id"]
    held = snapshot.grants.roles_at(ref, domain, now)
    anywhere = roots.anywhere
    node = anywhere[EVERYONE]
    if node is not None:
        gather(node, entities, found)
    if held:
        node = anywhere[held]
        if node is not None:
            gather(node, entities, found)
    here = roots.in_domain[domain]
    if here is not None:
        node = here[held]
        if node is not None:
            gather(node, entities, found)
    allows = denies = requires = errored = NOTHING
    identifier, segments = resource["id"], admitted.segments
    for stretch, spelled, test, scope, narrow, run, constants, effect, rule in found:
        if stretch is not None:
            if segments[stretch] != spelled:
                continue
        elif test is not None and not test(identifier):
            continue
        if scope is not None and scope != domain:
            continue
        if narrow:
            if not rule.concerns(ref, now):
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
    # Step 4. INVARIANT I3: deny trumps allow, whatever role, scope or order.
    if denies:
        return _decision(explainer, facts, now, False, _deny_reasons(denies, errored), denies, errored, requires)
    if not allows:
        return _decision(explainer, facts, now, False, NO_ALLOW, NOTHING, errored, requires)
    if not requires and not errored and len(allows) == 1:
        rule = allows[0]
        return Decision(True, rule.reasons, rule.ids, NONE, NONE, NO_GAPS, rule.obligations, facts, now, explainer)
    if requires:
        missing = _missing(snapshot, facts, admitted, requires, now)
        if missing:
            reasons = (NEEDS_APPROVAL, *sorted({rule.reason for rule in requires if rule.reason} | why(missing)))
            return _decision(explainer, facts, now, False, reasons, requires, errored, requires, missing)
    return _decision(explainer, facts, now, True, _reasons(allows), allows + requires, errored, requires)


def unknown(snapshot: Snapshot, facts: Facts) -> str:
    """Return the reason code of a request that no rule can concern."""
    request = facts.request
    if not snapshot.rules:
        return "engine.no_rules"
    schema = snapshot.schema
    if request.resource.type not in schema.resources or request.subject.type not in schema.subjects:
        return "engine.unknown_type"
    return "engine.unknown_action"


def _decision(
    explainer: Explainer,
    facts: Facts,
    now: Instant,
    allowed: bool,
    reasons: tuple[str, ...],
    determining: Rules,
    errored: Rules,
    requires: Rules,
    missing: tuple[Gap, ...] = NO_GAPS,
) -> Decision:
    if len(determining) == 1:
        ids, obligations = determining[0].ids, determining[0].obligations
    elif determining:
        ids, obligations = _ids(determining), _obligations(determining)
    else:
        ids = obligations = NONE
    return Decision(
        allowed,
        reasons,
        ids,
        _ids(errored) if errored else NONE,
        _ids(requires) if requires else NONE,
        missing,
        obligations,
        facts,
        now,
        explainer,
    )


def _ids(rules: Rules) -> tuple[str, ...]:
    return tuple(sorted({rule.id for rule in rules}))


def _reasons(rules: Rules) -> tuple[str, ...]:
    first = rules[0].reasons
    for rule in rules:
        if rule.reasons is not first:
            return tuple(sorted({reason for rule in rules for reason in rule.reasons}))
    return first


def _obligations(rules: Rules) -> tuple[str, ...]:
    for rule in rules:
        if rule.obligations:
            return tuple(sorted({obligation for rule in rules for obligation in rule.obligations}))
    return NONE


def _deny_reasons(denies: Rules, errored: Rules) -> tuple[str, ...]:
    """Return the codes of the denies; one that fired on an error says so instead of what it would have found."""
    if not errored:
        return _reasons(denies)
    failed = {id(rule) for rule in errored}
    return tuple(sorted({ERROR if id(rule) in failed else rule.reasons[0] for rule in denies}))


def _missing(snapshot: Snapshot, facts: Facts, admitted: Admitted, requires: Rules, now: Instant) -> tuple[Gap, ...]:
    missing: dict[Gap, None] = {}
    for rule in {rule.id: rule for rule in requires}.values():
        quorum = snapshot.quorums[rule.quorum or ""]
        roles_at = snapshot.grants.roles_at
        for gap in gaps(quorum, rule.id, facts, admitted.domain, now, snapshot.persons, roles_at):
            missing[gap] = None
    return tuple(sorted(missing, key=lambda gap: (gap.quorum, gap.rule, gap.roles)))
