"""Conditions of all rules, checked in one pass against the schema; every mistake at its place in the YAML file."""

from __future__ import annotations

from typing import TypeAlias

from msgspec.structs import replace

from policyguard.conditions.check import Checker
from policyguard.conditions.polarity import polarity_errors
from policyguard.conditions.problems import ConditionError, ConditionErrors
from policyguard.errors import PolicyErrors
from policyguard.model.expression import Expression
from policyguard.model.policy import Condition, Effect, Rule, Schema
from policyguard.policy.binder import Problems
from policyguard.policy.nodes import Scalar
from policyguard.policy.rules import Draft

Outcome: TypeAlias = Expression | ConditionErrors


def check_conditions(drafts: list[Draft], schema: Schema, problems: Problems) -> list[Rule]:
    """Return the rules whose conditions hold water; each mistake of the others is reported."""
    try:
        checker = _Memory(schema)
    except PolicyErrors as found:
        problems.errors.extend(found.errors)
        return []
    rules = []
    for draft in drafts:
        if draft.when is None:
            rules.append(draft.rule)
            continue
        condition = _condition(draft.rule, draft.when, checker, problems)
        if condition is not None:
            rules.append(replace(draft.rule, when=condition))
    return rules


class _Memory:
    """A checker that checks one text once for each resource type."""

    def __init__(self, schema: Schema) -> None:
        self.checker = Checker(schema)
        self.seen: dict[tuple[str, str], Outcome] = {}

    def check(self, text: str, resource_type: str) -> Outcome:
        found = self.seen.get((text, resource_type))
        if found is None:
            try:
                found = self.checker.check(text, resource_type=resource_type)
            except ConditionErrors as problem:
                found = problem
            self.seen[text, resource_type] = found
        return found


def _condition(rule: Rule, when: Scalar, checker: _Memory, problems: Problems) -> Condition | None:
    text = when.text.rstrip()
    outcomes = {type_: checker.check(text, type_) for type_ in rule.resource_types}
    failed = {type_: outcome for type_, outcome in outcomes.items() if isinstance(outcome, ConditionErrors)}
    if failed:
        _report(failed, len(outcomes), when, problems)
        return None
    expressions = [outcome for outcome in outcomes.values() if not isinstance(outcome, ConditionErrors)]
    first, *others = expressions
    # One rule is one tree: types of another shape under the same text would be judged by the wrong code.
    if any(other != first for other in others):
        listed = ", ".join(f"`{type_}`" for type_ in outcomes)
        problems.add(when, "PG104", f"condition means different things for {listed}, expected one meaning",
                     "write one rule for each resource type")  # fmt: skip
        return None
    if not _polarity(first, rule.effect, when, problems):
        return None
    return Condition(text=text, expression=first, span=when.at(0), positions=when.stretches())


def _report(failed: dict[str, ConditionErrors], types: int, when: Scalar, problems: Problems) -> None:
    """Report each mistake once, naming the resource type where only some types have it."""
    seen: dict[ConditionError, list[str]] = {}
    for type_, outcome in failed.items():
        for error in outcome.errors:
            seen.setdefault(error, []).append(type_)
    for error, where in seen.items():
        names = ", ".join(f"`{type_}`" for type_ in where)
        suffix = "" if len(where) == types else f" (for resource type {names})"
        problems.add(when.at(error.offset), error.code, error.message + suffix, error.help)


def _polarity(expression: Expression, effect: Effect, when: Scalar, problems: Problems) -> bool:
    # INVARIANT I26: absence of a fact may only take access away.
    found = polarity_errors(expression, effect)
    for offset, message in found:
        problems.add(when.at(offset), "PG115", message)
    return not found
