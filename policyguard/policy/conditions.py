"""Checks the conditions of all rules against the schema, and reports mistakes at their position in the file."""

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
from policyguard.policy.nodes import Scalar
from policyguard.policy.problems import Problems
from policyguard.policy.rules import Draft
from policyguard.text import quoted_list

Outcome: TypeAlias = Expression | ConditionErrors


def check_conditions(drafts: list[Draft], schema: Schema, problems: Problems) -> list[Rule]:
    """Return the rules with valid conditions, now checked; report the mistakes in the others.

    Args:
        drafts: the rules with their conditions as text.
        schema: a schema without errors.
        problems: where errors are added.
    """
    try:
        checker = _CachingChecker(schema)
    except PolicyErrors as invalid:
        problems.errors.extend(invalid.errors)
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


class _CachingChecker:
    """Checks each text only once per resource type."""

    def __init__(self, schema: Schema) -> None:
        self.checker = Checker(schema)
        self.outcomes: dict[tuple[str, str], Outcome] = {}

    def check(self, text: str, resource_type: str) -> Outcome:
        outcome = self.outcomes.get((text, resource_type))
        if outcome is None:
            try:
                outcome = self.checker.check(text, resource_type=resource_type)
            except ConditionErrors as problem:
                outcome = problem
            self.outcomes[text, resource_type] = outcome
        return outcome


def _condition(rule: Rule, when: Scalar, checker: _CachingChecker, problems: Problems) -> Condition | None:
    text = when.text.rstrip()
    outcomes = {type_: checker.check(text, type_) for type_ in rule.resource_types}
    failed = {type_: outcome for type_, outcome in outcomes.items() if isinstance(outcome, ConditionErrors)}
    if failed:
        _report(failed, len(outcomes), when, problems)
        return None
    expressions = [outcome for outcome in outcomes.values() if not isinstance(outcome, ConditionErrors)]
    first, *others = expressions
    # A rule has one compiled condition: if the text means something else for another type, that type would get the
    # wrong code.
    if any(other != first for other in others):
        listed = quoted_list(outcomes)
        problems.add(
            when,
            "PG104",
            f"condition means different things for {listed}, expected one meaning",
            "write one rule for each resource type",
        )
        return None
    if not _polarity(first, rule.effect, when, problems):
        return None
    return Condition(text=text, expression=first, span=when.at(0), positions=when.segments())


def _assurance_fits(draft: Draft, schema: Schema, problems: Problems) -> bool:
    """Return True if each path in the rule's `assurance` is declared with a lower minimum in the schema."""
    before = len(problems.errors)
    for path, minimum in draft.rule.assurance:
        node = draft.node.get("assurance") or draft.node
        declared = _declared(path, draft.rule, schema)
        if not declared:
            known = sorted({f"{entity}.{name}" for entity, name in _known(draft.rule, schema)})
            problems.unknown(node, "PG103", "attribute", path, known, where=" in `assurance`")
        elif minimum <= max(attribute.assurance for attribute in declared):
            declared_minimum = max(attribute.assurance for attribute in declared).word
            problems.add(
                node,
                "PG003",
                f"found `{minimum.word}` for `{path}`, expected more than the schema's `{declared_minimum}`",
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
    """Return the schema's declarations of a path in all types that the rule applies to."""
    entity, _, name = path.partition(".")
    groups = {
        "subject": [type_.attributes for type_ in schema.subjects.values()],
        "resource": [schema.resources[type_name].attributes for type_name in rule.resource_types],
        "context": [schema.context],
    }[entity]
    return [group[name] for group in groups if name in group]


def _assurance_is_read(draft: Draft, expression: Expression, problems: Problems) -> bool:
    """Return True if the condition reads every path in the rule's `assurance`; other paths would have no effect."""
    read = {f"{path[0]}.{path[1]}" for path in paths_read(expression) if len(path) > 1}
    idle = [path for path, _ in draft.rule.assurance if path not in read]
    for path in idle:
        node = draft.node.get("assurance") or draft.node
        problems.add(node, "PG003", f"the condition does not read `{path}`, expected only facts that it reads")
    return not idle


def _report(failed: dict[str, ConditionErrors], types: int, when: Scalar, problems: Problems) -> None:
    """Report each mistake once; name the resource type if only some types have it."""
    seen: dict[ConditionError, list[str]] = {}
    for type_, outcome in failed.items():
        for error in outcome.errors:
            seen.setdefault(error, []).append(type_)
    for error, where in seen.items():
        names = quoted_list(where)
        suffix = "" if len(where) == types else f" (for resource type {names})"
        problems.add(when.at(error.offset), error.code, error.message + suffix, error.help)


def _polarity(expression: Expression, effect: Effect, when: Scalar, problems: Problems) -> bool:
    # INVARIANT I2: absence of a fact may only take access away.
    errors = polarity_errors(expression, effect)
    for offset, message in errors:
        problems.add(when.at(offset), "PG115", message)
    return not errors
