"""Combines the rules that fired into a decision with its reasons: step 4 of the procedure. Pure."""

from __future__ import annotations

from typing import TypeAlias

from policyguard.decide.admission import Admitted
from policyguard.decide.compiled_rule import CompiledRule
from policyguard.decide.quorum import rejection_codes, unmet_approvals
from policyguard.decide.snapshot import Snapshot
from policyguard.model.decision import Decision, Explainer, UnmetQuorum

Rules: TypeAlias = tuple[CompiledRule, ...]
NO_IDS: tuple[str, ...] = ()
ALL_MET: tuple[UnmetQuorum, ...] = ()

NO_ALLOW = ("engine.no_allow",)
ERROR = "engine.error"
NEEDS_APPROVAL = "needs-approval"


def combine(
    snapshot: Snapshot,
    admitted: Admitted,
    allows: Rules,
    denies: Rules,
    requires: Rules,
    errored: Rules,
    explainer: Explainer,
) -> Decision:
    """Combine the rules that fired; their order and repetition have no effect.

    Args:
        snapshot: the policies.
        admitted: the facts that the rules have read.
        allows: the allows that fired.
        denies, requires: the denies that fired, and the requires that apply, also those on an error.
        errored: the rules whose condition could not be evaluated.
        explainer: what explains the decision later.
    """
    determining: Rules = ()
    unmet = ALL_MET
    allowed = False
    # Step 4. INVARIANT I3: deny trumps allow, whatever role, scope or order.
    if denies:
        reasons, determining = _deny_reasons(denies, errored), denies
    elif not allows:
        reasons = NO_ALLOW
    elif requires and (unmet := _unmet(snapshot, admitted, requires)):
        codes = {rule.reason for rule in requires if rule.reason} | rejection_codes(unmet)
        reasons, determining = (NEEDS_APPROVAL, *sorted(codes)), requires
    else:
        allowed, reasons, determining = True, _reasons(allows), allows + requires
    if len(determining) == 1:
        ids, obligations = determining[0].ids, determining[0].obligations
    else:
        ids, obligations = (_ids(determining), _obligations(determining)) if determining else (NO_IDS, NO_IDS)
    failed, applied = _ids(errored) if errored else NO_IDS, _ids(requires) if requires else NO_IDS
    facts, now = admitted.facts, admitted.now
    return Decision(allowed, reasons, ids, failed, applied, unmet, obligations, facts, now, explainer)


def _ids(rules: Rules) -> tuple[str, ...]:
    return tuple(sorted({rule.id for rule in rules}))


def _reasons(rules: Rules) -> tuple[str, ...]:
    first = rules[0].reasons
    if len(rules) == 1:
        return first
    for rule in rules:
        if rule.reasons is not first:
            return tuple(sorted({reason for rule in rules for reason in rule.reasons}))
    return first


def _obligations(rules: Rules) -> tuple[str, ...]:
    for rule in rules:
        if rule.obligations:
            return tuple(sorted({obligation for rule in rules for obligation in rule.obligations}))
    return NO_IDS


def _deny_reasons(denies: Rules, errored: Rules) -> tuple[str, ...]:
    """List the reason codes of the denies; a deny that fired because of an error has the error's code."""
    if not errored:
        return _reasons(denies)
    failed = {id(rule) for rule in errored}
    return tuple(sorted({ERROR if id(rule) in failed else rule.reasons[0] for rule in denies}))


def _unmet(snapshot: Snapshot, admitted: Admitted, requires: Rules) -> tuple[UnmetQuorum, ...]:
    facts, domain, now = admitted.facts, admitted.domain, admitted.now
    unmet: set[UnmetQuorum] = set()
    for rule in {rule.id: rule for rule in requires}.values():
        quorum = snapshot.quorums[rule.quorum or ""]
        unmet.update(unmet_approvals(quorum, rule.id, facts, domain, now, snapshot.persons, snapshot.grants.roles_at))
    return tuple(sorted(unmet, key=lambda missing: (missing.quorum, missing.rule, missing.roles)))
