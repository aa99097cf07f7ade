"""Translates a policy set to a casbin PERM model and rows, for the second opinion of a stock `casbin.Enforcer`.

Used only by `check-engine` and tests, for comparison with the engine. The matcher is one constant text; every value of
a policy is in a row, so no text of an author is read as code (INVARIANT I7, hazards H6, H7). Two registered functions
handle what casbin cannot express: `covers` (id patterns) and `cond` (conditions, time windows, quorums). On an error,
`cond` is true in deny rows and false in allow rows; `require` becomes deny rows that fire while their quorum is unmet.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product

from casbin import Enforcer

from policyguard.conditions.exact import EvalError, evaluate
from policyguard.conditions.functions import glob
from policyguard.decide.admission import Admitted, admissions_by_type, apply_minimum_assurance
from policyguard.decide.conversion import Malformed
from policyguard.decide.quorum import unmet_approvals
from policyguard.decide.role_grants import ROLE_PREFIX, RoleAssignments, Row
from policyguard.model.facts import Facts
from policyguard.model.policy import ANY_DOMAIN, PolicySet, Rule
from policyguard.patterns.id_pattern import is_aligned
from policyguard.values import ALWAYS, NEVER, Instant

MODEL = """\
[request_definition]
r = sub, dom, obj, act, ctx
[policy_definition]
p = id, sub, dom, obj, act, cond, eft
[role_definition]
g = _, _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = r.act == p.act && (p.sub == "*" || r.sub == p.sub || g(r.sub, p.sub, r.dom) || g(r.sub, p.sub, "*")) && \
(p.dom == "*" || r.dom == p.dom) && covers(r.obj, p.obj) && cond(r.ctx, p.cond)
"""
"""Deny-override that denies by default; casbin's own "deny-override" effect allows what nothing matches (H5)."""

ANYONE = "*"
NOWHERE = ""
"""The domain of a resource that belongs to none; no binding can name it."""


class SecondOpinion:
    """A policy set translated to casbin; each decision is one stock `enforce` call."""

    def __init__(self, policy_set: PolicySet, grants: RoleAssignments, *, expand_roles: bool = False) -> None:
        """`expand_roles` gives each subject every inherited role directly, which removes casbin's depth limit (H11)."""
        self._policy_set = policy_set
        self._grants = grants
        self._expand_roles = expand_roles
        self._admissions_by_type = admissions_by_type(policy_set.schema)
        self._rules = {rule.id: rule for rule in policy_set.rules}
        self._quorums = {quorum.id: quorum for quorum in policy_set.quorums}
        self._persons = {account: person.id for person in policy_set.persons for account in person.accounts}
        self._rows = list(policy_rows(policy_set))
        steady = [row[3:] == (ALWAYS, NEVER) for row in grants.rows()]
        self._steady = [row for row, always in zip(grants.rows(), steady, strict=True) if always]
        self._timed = [row for row, always in zip(grants.rows(), steady, strict=True) if not always]
        self._enforcers: dict[tuple[Row, ...], Enforcer] = {}

    def allows(self, facts: Facts, now: Instant) -> bool:
        """Ask casbin; a request that step 1 refuses, before any rule, is denied."""
        request = facts.request
        admission = self._admissions_by_type.get((request.subject.type, request.resource.type))
        if admission is None or not self._rows:
            return False
        try:
            admitted = admission.admit(facts, now)
        except Malformed:
            return False
        domain = NOWHERE if admitted.domain is None else admitted.domain
        context = _Context(facts, admitted, now)
        allowed: bool = self._enforcer(now).enforce(
            request.subject.ref, domain, request.resource.ref, request.action, context
        )
        return allowed

    def _enforcer(self, now: Instant) -> Enforcer:
        """Build an enforcer with the bindings in force at `now`; casbin's own clock is not used (H20)."""
        begun = tuple(row for row in self._timed if row[3] <= now < row[4])
        enforcer = self._enforcers.get(begun)
        if enforcer is None:
            groups = self._group_rows([row[:3] for row in (*self._steady, *begun)])
            enforcer = self._enforcers[begun] = stock_enforcer(MODEL, self._rows, groups)
            enforcer.add_function("covers", covers)
            enforcer.add_function("cond", self._holds)
        return enforcer

    def _group_rows(self, bindings: Sequence[tuple[str, str, str]]) -> list[list[str]]:
        if self._expand_roles:
            return [
                [subject, ROLE_PREFIX + held, domain]
                for subject, role, domain in bindings
                for held in self._grants.closed[role]
            ]
        domains = sorted({domain for _, _, domain in bindings})
        inherited = [
            [ROLE_PREFIX + role.name, ROLE_PREFIX + parent, domain]
            for domain in domains
            for role in self._policy_set.roles
            for parent in role.inherits
        ]
        return [*inherited, *([subject, ROLE_PREFIX + role, domain] for subject, role, domain in bindings)]

    def _holds(self, context: _Context, rule_id: str) -> bool:
        rule = self._rules[rule_id]
        now, admitted = context.now, context.admitted
        if (rule.not_before is not None and now < rule.not_before) or (
            rule.expires is not None and now >= rule.expires
        ):
            return False
        if rule.roles and rule.subjects and context.facts.request.subject.ref not in rule.subjects:
            return False
        outcome = self._outcome(rule, context)
        if isinstance(outcome, EvalError):
            outcome = rule.effect != "allow"
        if rule.effect != "require" or not outcome:
            return outcome
        quorum = self._quorums[rule.quorum or ""]
        roles_at = self._grants.roles_at
        return bool(unmet_approvals(quorum, rule.id, context.facts, admitted.domain, now, self._persons, roles_at))

    def _outcome(self, rule: Rule, context: _Context) -> bool | EvalError:
        if rule.when is None:
            return True
        admitted = apply_minimum_assurance(context.admitted, rule.assurance)
        return evaluate(
            rule.when.expression,
            admitted.subject,
            admitted.resource,
            admitted.context,
            context.facts.request.action,
            context.now,
        )


class _Context:
    """The value of `r.ctx`: opaque, with no method that casbin could be made to call (H7)."""

    __slots__ = ("admitted", "facts", "now")

    def __init__(self, facts: Facts, admitted: Admitted, now: Instant) -> None:
        self.facts = facts
        self.admitted = admitted
        self.now = now


def policy_rows(policy_set: PolicySet) -> Iterator[list[str]]:
    """Yield the casbin rows of every rule: one for each holder, type and action.

    row = id, subject or role or `*`, scope or `*`, type ":" pattern, action, id, effect
    """
    for rule in policy_set.rules:
        holders = [*(ROLE_PREFIX + role for role in rule.roles), *([] if rule.roles else rule.subjects)] or [ANYONE]
        # Casbin knows no third effect, and drops rows with one it does not know (H1).
        effect = "allow" if rule.effect == "allow" else "deny"
        for holder, type_, action in product(holders, rule.resource_types, rule.actions):
            declared = policy_set.schema.resources[type_]
            if action in declared.actions and is_aligned(rule.id_pattern, declared.id_pattern):
                pattern = f"{type_}:{rule.id_pattern or '**'}"
                yield [rule.id, holder, rule.scope or ANY_DOMAIN, pattern, action, rule.id, effect]


def covers(ref: str, pattern: str) -> bool:
    """Return True if a `type:id` has the pattern's type and a matching id; never raises, unlike casbin's (H17-H19)."""
    type_, _, identifier = ref.partition(":")
    wanted, _, id_pattern = pattern.partition(":")
    return type_ == wanted and glob(identifier, id_pattern.replace("{team}", "*"))


def stock_enforcer(model_text: str, policies: Sequence[list[str]], groups: Sequence[list[str]]) -> Enforcer:
    """Build a plain `casbin.Enforcer` over all these rows, without changing any logger.

    Args:
        model_text: the text of the model.
        policies: the rows of `p`.
        groups: the rows of `g`.
    """
    model = Enforcer.new_model(text=model_text)
    model["p"]["p"].policy.extend(policies)
    if groups:
        model["g"]["g"].policy.extend(groups)
    with _unchanged_loggers():
        enforcer = Enforcer(model)
    # Casbin logs each denial as a warning, which Python prints where nobody configured logging.
    enforcer.logger = logging.Logger("policyguard.second_opinion", logging.CRITICAL)
    enforcer.build_role_links()
    return enforcer


@contextmanager
def _unchanged_loggers() -> Iterator[None]:
    """Restore the process-wide loggers that casbin's constructor changes (H28)."""
    names = ("casbin", "casbin.policy", "casbin.enforcer", "casbin.role")
    before = {name: logging.getLogger(name).disabled for name in names}
    try:
        yield
    finally:
        for name, disabled in before.items():
            logging.getLogger(name).disabled = disabled
