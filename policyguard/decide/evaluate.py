"""How a request is decided; `docs/semantics.md` mirrors this file.

1. No rules, unknown action, unknown type, malformed request: DENY with its own reason code.
2. Each candidate rule has the outcome TRUE, FALSE or ERROR.
3. `deny` fires on TRUE or ERROR; `require` applies on TRUE or ERROR; `allow` fires on TRUE only.
4. DENY if any deny fires; else DENY if no allow fires; else DENY if an applying quorum is unmet; else ALLOW.

Pure, and never raises on data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from policyguard.decide.admit import Admitted, Malformed
from policyguard.decide.index import gather
from policyguard.decide.quorum import gaps
from policyguard.model.decision import Decision, Gap
from policyguard.model.facts import Facts
from policyguard.values import Instant

if TYPE_CHECKING:
    from policyguard.decide.snapshot import CompiledRule, Snapshot

ALLOW, DENY, REQUIRE = range(3)
NONE: tuple[str, ...] = ()
NO_GAPS: tuple[Gap, ...] = ()

NO_ALLOW = ("engine.no_allow",)
ERROR = "engine.error"
NEEDS_APPROVAL = "needs-approval"


def decide(snapshot: Snapshot, facts: Facts, now: Instant) -> Decision:
    """Return the decision on these facts at this instant."""
    request = facts.request
    action = request.action
    # Step 1.
    roots = snapshot.roots.get((action, request.resource.type))
    gate = snapshot.gates.get((request.subject.type, request.resource.type))
    if roots is None or gate is None or not snapshot.rules:
        return refuse(snapshot, facts, now, unknown(snapshot, facts))
    try:
        admitted = gate.admit(facts, now)
    except Malformed:
        return refuse(snapshot, facts, now, "engine.malformed")
    # Step 2.
    subject, resource, context = admitted.subject, admitted.resource, admitted.context
    entities = (subject, resource, context)
    found: list[CompiledRule] = []
    node = roots.get("")
    if node is not None:
        gather(node, entities, found)
    ref, domain = subject["id"], admitted.domain
    for role in snapshot.grants.roles_at(ref, domain, now):
        node = roots.get(role)
        if node is not None:
            gather(node, entities, found)
    denies: list[CompiledRule] = []
    allows: list[CompiledRule] = []
    requires: list[CompiledRule] = []
    errored: list[CompiledRule] = []
    identifier = resource["id"]
    for rule in found:
        if rule.test is not None and not rule.test(identifier):
            continue
        if rule.scope is not None and rule.scope != domain:
            continue
        if rule.narrow and not rule.concerns(ref, now):
            continue
        run = rule.run
        if run is not None:
            try:
                if not run(subject, resource, context, action, now, rule.constants):
                    continue
            except Exception:  # noqa: BLE001 - the optimistic code gives up this way; the exact evaluator decides
                outcome = rule.evaluate_exactly(subject, resource, context, action, now)
                if outcome is False:
                    continue
                if outcome is not True:
                    errored.append(rule)
                    # Step 3. INVARIANT I5: an error never grants.
                    if rule.effect == ALLOW:
                        continue
        (allows, denies, requires)[rule.effect].append(rule)
    # Step 4. INVARIANT I6: deny trumps allow, whatever role, scope or order.
    if denies:
        return _decision(snapshot, facts, now, False, _deny_reasons(denies, errored), denies, errored, requires)
    if not allows:
        return _decision(snapshot, facts, now, False, NO_ALLOW, (), errored, requires)
    if requires:
        missing = _missing(snapshot, facts, admitted, requires, now)
        if missing:
            reasons = (NEEDS_APPROVAL, *_reasons([rule for rule in requires if rule.reason]))
            return _decision(snapshot, facts, now, False, reasons, requires, errored, requires, missing)
    elif len(allows) == 1 and not errored:
        rule = allows[0]
        return Decision(
            True, rule.allow_reasons, rule.ids, NONE, NONE, NO_GAPS, rule.obligations, facts, now, snapshot
        )  # fmt: skip
    return _decision(snapshot, facts, now, True, _reasons(allows), [*allows, *requires], errored, requires)


def unknown(snapshot: Snapshot, facts: Facts) -> str:
    """Return the reason code of a request that no rule can concern."""
    request = facts.request
    if not snapshot.rules:
        return "engine.no_rules"
    schema = snapshot.schema
    if request.resource.type not in schema.resources or request.subject.type not in schema.subjects:
        return "engine.unknown_type"
    return "engine.unknown_action"


def refuse(snapshot: Snapshot, facts: Facts, now: Instant, reason: str) -> Decision:
    """Return the denial of a request that never reached the rules."""
    return Decision(False, (reason,), NONE, NONE, NONE, NO_GAPS, NONE, facts, now, snapshot)


def _decision(
    snapshot: Snapshot, facts: Facts, now: Instant, allowed: bool, reasons: tuple[str, ...], determining: Any,
    errored: list[CompiledRule], requires: list[CompiledRule], missing: tuple[Gap, ...] = NO_GAPS,
) -> Decision:  # fmt: skip
    return Decision(
        allowed, reasons, _ids(determining), _ids(errored), _ids(requires), missing,
        tuple(sorted({o for rule in determining for o in rule.obligations})), facts, now, snapshot,
    )  # fmt: skip


def _ids(rules: Any) -> tuple[str, ...]:
    if len(rules) == 1:
        ids: tuple[str, ...] = rules[0].ids
        return ids
    return tuple(sorted({rule.id for rule in rules})) if rules else NONE


def _reasons(rules: list[CompiledRule]) -> tuple[str, ...]:
    if len(rules) == 1:
        return rules[0].allow_reasons
    return tuple(sorted({reason for rule in rules for reason in rule.allow_reasons}))


def _deny_reasons(denies: list[CompiledRule], errored: list[CompiledRule]) -> tuple[str, ...]:
    """A deny that fired on an error says so instead of what it would have found."""
    if not errored:
        return _reasons(denies)
    failed = {id(rule) for rule in errored}
    return tuple(sorted({ERROR if id(rule) in failed else rule.allow_reasons[0] for rule in denies}))


def _missing(
    snapshot: Snapshot, facts: Facts, admitted: Admitted, requires: list[CompiledRule], now: Instant
) -> tuple[Gap, ...]:
    missing: dict[Gap, None] = {}
    for rule in {rule.id: rule for rule in requires}.values():
        quorum = snapshot.quorums[rule.quorum or ""]
        roles_at = snapshot.grants.roles_at
        for gap in gaps(quorum, rule.id, facts, admitted.domain, now, snapshot.persons, roles_at):
            missing[gap] = None
    return tuple(sorted(missing, key=lambda gap: (gap.quorum, gap.rule, gap.roles)))
