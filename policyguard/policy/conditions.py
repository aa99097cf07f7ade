"""Conditions of all rules, checked in one pass against the schema; every mistake at its place in the YAML file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from msgspec.structs import replace

from policyguard.conditions.ast import paths_read
from policyguard.conditions.check import Checker
from policyguard.conditions.polarity import polarity_errors
from policyguard.conditions.problems import ConditionError, ConditionErrors
from policyguard.errors import PolicyErrors
from policyguard.model.expression import Expression
from policyguard.model.policy import Attribute, Condition, Effect, Rule, Schema
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
        if not _assurance_fits(draft, schema, problems):
            continue
        if draft.when is None:
            rules.append(draft.rule)
            continue
        condition = _condition(draft.rule, draft.when, checker, problems)
        if condition is not None and _assurance_is_read(draft, condition.expression, problems):
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
        problems.add(
            when,
            "PG104",
            f"condition means different things for {listed}, expected one meaning",
            "write one rule for each resource type",
        )
        return None
    if not _polarity(first, rule.effect, when, problems):
        return None
    return Condition(text=text, expression=first, span=when.at(0), positions=when.stretches())


def _assurance_fits(draft: Draft, schema: Schema, problems: Problems) -> bool:
    """Return whether each fact that the rule wants known better is declared, and the schema asks for less."""
    before = len(problems.errors)
    for path, least in draft.rule.assurance:
        place = draft.node.get("assurance") or draft.node
        declared = _declared(path, draft.rule, schema)
        if not declared:
            known = sorted({f"{entity}.{name}" for entity, name in _known(draft.rule, schema)})
            problems.unknown(place, "PG103", "attribute", path, known, where=" in `assurance`")
        elif least <= max(attribute.assurance for attribute in declared):
            asked = max(attribute.assurance for attribute in declared).word
            problems.add(
                place, "PG003", f"found `{least.word}` for `{path}`, expected more than the schema's `{asked}`"
            )
    if draft.rule.assurance and draft.when is None:
        problems.add(
            draft.node, "PG003", "found `assurance` in a rule without `when`, expected a condition that reads it"
        )
    return len(problems.errors) == before


def _known(rule: Rule, schema: Schema) -> Iterator[tuple[str, str]]:
    for type_ in schema.subjects.values():
        yield from (("subject", name) for name in type_.attributes)
    for type_name in rule.resource_types:
        yield from (("resource", name) for name in schema.resources[type_name].attributes)
    yield from (("context", name) for name in schema.context)


def _declared(path: str, rule: Rule, schema: Schema) -> list[Attribute]:
    """Return what the schema says of a path in all types that the rule is about."""
    entity, _, name = path.partition(".")
    groups = {
        "subject": [type_.attributes for type_ in schema.subjects.values()],
        "resource": [schema.resources[type_name].attributes for type_name in rule.resource_types],
        "context": [schema.context],
    }[entity]
    return [group[name] for group in groups if name in group]


def _assurance_is_read(draft: Draft, expression: Expression, problems: Problems) -> bool:
    """Return whether the condition reads every fact that is to be known better; else the line would do nothing."""
    read = {f"{path[0]}.{path[1]}" for path in paths_read(expression) if len(path) > 1}
    idle = [path for path, _ in draft.rule.assurance if path not in read]
    for path in idle:
        place = draft.node.get("assurance") or draft.node
        problems.add(place, "PG003", f"the condition does not read `{path}`, expected only facts that it reads")
    return not idle


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
