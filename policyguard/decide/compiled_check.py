"""Checks a signed snapshot completely when it loads, so that deciding and explaining cannot fail on it.

A pinned key has signed the bytes, but whether they are valid output of the compiler is checked here. `msgspec` has
checked the shapes of the data; `conditions/wellformed.py` checks the conditions. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from policyguard.conditions.entities import Members, members, schema_errors
from policyguard.conditions.wellformed import Checked, Field, check_shape, is_constant
from policyguard.decide.compiled_form import (
    ALLOW,
    LARGE,
    REQUIRE,
    CompiledForm,
    CompiledPolicy,
    RuleRow,
    decode_constant,
)
from policyguard.model.expression import Expression
from policyguard.model.ids import is_action, is_segment, is_type_name, ref_problem
from policyguard.model.policy import ANY_DOMAIN, REQUEST, Attribute, Schema, ValueType
from policyguard.patterns.id_pattern import domain_index
from policyguard.patterns.overlap import pattern_problem
from policyguard.text import quoted

MAX_APPROVERS = 100
MAX_AGE_S = 36_500 * 86_400

_encode = msgspec.json.Encoder().encode


def check_compiled(form: CompiledForm, expressions: Sequence[Expression]) -> None:
    """Check every reference in a compiled form; `expressions` are its decoded conditions.

    Raises:
        ValueError, ProfileError: something is missing, of another type or out of range; the message says what.
    """
    policy = form.policy
    # One pass in C: no text has a lone surrogate, which no statement and no explanation could be written with.
    _encode(form)
    _check_schema(policy.schema)
    roles = _check_grants(policy.grants)
    _check_people(policy)
    _check_quorums(policy, roles)
    _require(roles.issuperset(policy.trace_roles), "`trace_roles`", "roles that the grants list")
    shapes = [check_shape(expression) for expression in expressions]
    _check_rules(policy, roles, shapes)
    _check_polarity(policy.rules, shapes, expressions)


def _require(holds: bool, what: str, expected: str) -> None:
    if not holds:
        raise ValueError(f"{what}: expected {expected}")


def _check_schema(schema: Schema) -> None:
    errors = schema_errors(schema)
    if errors:
        raise ValueError(errors[0].message)
    for kind, types in (("subject", schema.subjects), ("resource", schema.resources)):
        for name, entity in types.items():
            what = f"{kind} type {quoted(name)}"
            _require(name == entity.name and is_type_name(name), what, "one type name")
            _require(all(is_action(action) for action in entity.actions), what, "actions such as `job:submit`")
            _require(len(set(entity.actions)) == len(entity.actions), what, "each action once")
            problem = None if entity.id_pattern is None else pattern_problem(entity.id_pattern)
            _require(problem is None, what, "an id pattern such as `team/{team}/**`")
            _check_attributes(entity.attributes, what)
    _check_attributes(schema.context, "context")
    for name, fields in schema.records.items():
        _check_attributes(fields, f"record {quoted(name)}")


def _check_attributes(attributes: Mapping[str, Attribute], what: str) -> None:
    for name, attribute in attributes.items():
        at = f"{what}, attribute {quoted(name)}"
        _require(name == attribute.name and is_type_name(name), at, "one attribute name")
        _require(len(set(attribute.enum)) == len(attribute.enum), at, "each text of `enum` once")
        _require(not attribute.enum or attribute.type.kind == "string", at, "`enum` for texts only")
        age = attribute.max_age_s
        _require(age is None or 0 < age <= MAX_AGE_S, at, "a maximum age of at most a hundred years")
        _check_type(attribute.type, at)


def _check_type(kind: ValueType, at: str) -> None:
    """Check the parts of a type besides its kind; `schema_errors` checks records, and nesting to two levels."""
    is_container = kind.kind in ("list", "map")
    _require((kind.element is not None) == is_container, at, "an element type for a list or a map only")
    _require((kind.record is not None) == (kind.kind == "record"), at, "a record's name for a record only")
    if kind.element is not None:
        _check_type(kind.element, at)


def _check_grants(grants: Mapping[str, Any]) -> frozenset[str]:
    """Check the roles and their holders; return the names of the roles."""
    names, shapes = grants["roles"], grants["shapes"]
    count = len(names)
    _require(all(type(name) is str and is_segment(name) for name in names), "`grants.roles`", "names of roles")
    _require(len(set(names)) == count, "`grants.roles`", "each role once")
    for number, closed in enumerate(grants["closed"]):
        held = all(type(role) is int and 0 <= role < count for role in closed) and number in closed
        _require(held, "`grants.closed`", "for each role itself and those it inherits")
    domains: set[object] = set()
    for shape in shapes:
        for domain, role in shape:
            domains.add(domain)
            _require(type(role) is int and 0 <= role < count, "`grants.shapes`", "pairs of a domain and a role")
    subjects = grants["subjects"]
    for subject, number in subjects.items():
        _require(type(number) is int and 0 <= number < len(shapes), "`grants.subjects`", "a shape that is listed")
        if ref_problem(subject) is not None:
            raise ValueError(f"`grants.subjects`, {quoted(subject)}: expected `type:id`")
    for subject, role, domain, since, until in grants["timed"]:
        domains.add(domain)
        _require(type(role) is int and 0 <= role < count, "`grants.timed`", "a role that is listed")
        _require(subject in subjects, "`grants.timed`", "a subject that `grants.subjects` lists")
        _require(type(since) is str and type(until) is str, "`grants.timed`", "times as text")
    for domain in domains:
        known = type(domain) is str and (domain == ANY_DOMAIN or is_segment(domain))
        _require(known, "`grants`", "domains that are one segment of an id, or `*`")
    return frozenset(names)


def _check_people(policy: CompiledPolicy) -> None:
    accounts: set[str] = set()
    persons: set[str] = set()
    for person, own, _, _ in policy.persons:
        if person in persons:
            raise ValueError(f"person {quoted(person)}: expected each once")
        persons.add(person)
        for account in own:
            if ref_problem(account) is not None:
                raise ValueError(f"account {quoted(account)}: expected `type:id`")
            # INVARIANT I8: an account belongs to one person.
            if account in accounts:
                raise ValueError(f"account {quoted(account)}: expected that it belongs to one person")
            accounts.add(account)


def _check_quorums(policy: CompiledPolicy, roles: frozenset[str]) -> None:
    _require(len({quorum.id for quorum in policy.quorums}) == len(policy.quorums), "`quorums`", "each id once")
    for quorum in policy.quorums:
        what = f"quorum {quoted(quorum.id)}"
        _require(bool(quorum.id), what, "a name")
        seats = sum(group.count for group in quorum.approvers)
        counts = all(0 < group.count <= MAX_APPROVERS for group in quorum.approvers)
        _require(
            counts and 0 < seats <= MAX_APPROVERS * MAX_APPROVERS, what, "at least one approver, at most 100 a group"
        )
        for group in quorum.approvers:
            _require(bool(group.roles) and roles.issuperset(group.roles), what, "roles that the grants list")
            known = group.domain is None or group.domain == ANY_DOMAIN or is_segment(group.domain)
            _require(known, what, "a domain or `*`")
        age = quorum.max_age_s
        _require(age is None or 0 <= age <= MAX_AGE_S, what, "a maximum age of at most a hundred years")
        _require(quorum.of in (None, REQUEST) and quorum.once in (None, True), what, "`of: request` and `once: true`")


def _check_rules(policy: CompiledPolicy, roles: frozenset[str], shapes: Sequence[Checked]) -> None:
    """Check the rules; what many rules share is checked only once."""
    rules, schema = policy.rules, policy.schema
    if len({rule.id for rule in rules}) != len(rules):
        raise ValueError("two rules have one id, expected different ones")
    quorums: frozenset[str | None] = frozenset(quorum.id for quorum in policy.quorums)
    for effect, quorum in {(rule.effect, rule.quorum) for rule in rules}:
        if quorum not in quorums if effect == REQUIRE else quorum is not None:
            raise ValueError(f"a rule has the quorum {quoted(str(quorum))}, expected a known one in a require only")
    for names in {rule.roles for rule in rules}:
        _require(roles.issuperset(names), "a rule", "roles that the grants list")
    for subject in {subject for rule in rules for subject in rule.subjects}:
        if ref_problem(subject) is not None:
            raise ValueError(f"a rule for {quoted(subject)}: expected `type:id`")
    for pattern in {rule.id_pattern for rule in rules}:
        if pattern is not None and pattern_problem(pattern) is not None:
            raise ValueError(f"id pattern {quoted(pattern)}: expected a pattern")
    _check_targets(rules, schema)
    _check_conditions(rules, shapes, schema)


def _check_targets(rules: Sequence[RuleRow], schema: Schema) -> None:
    resources = schema.resources
    actions_of: dict[tuple[str, ...], set[str]] = {}
    for actions, types in {(rule.actions, rule.resource_types) for rule in rules}:
        known = actions_of.get(types)
        if known is None:
            _require(all(name in resources for name in types), "a rule", "resource types of the schema")
            known = actions_of[types] = {action for name in types for action in resources[name].actions}
        _require(known.issuperset(actions), "a rule", "actions of its resource types")
    without_domain = {name for name, entity in resources.items() if domain_index(entity.id_pattern) is None}
    scopes: set[str] = set()
    for scope, types in {(rule.scope, rule.resource_types) for rule in rules if rule.scope is not None}:
        is_domain = scope in scopes or is_segment(scope)
        scopes.add(scope)
        known_domain = is_domain and without_domain.isdisjoint(types)
        _require(known_domain, "a rule", "a scope that is a domain, and ids that name it")


def _check_conditions(rules: Sequence[RuleRow], shapes: Sequence[Checked], schema: Schema) -> None:
    """Check the facts that conditions read, for each resource type, and that constants fit their holes."""
    numbers = {rule.shape for rule in rules}
    if max(numbers, default=-1) >= len(shapes):
        raise ValueError(f"a rule has condition {max(numbers)}, expected one of {len(shapes)}")
    fields = [shape.fields for shape in shapes] + [frozenset[Field]()]
    declared: dict[str, Members] = {}
    for number, types, assurance in {(rule.shape, rule.resource_types, rule.assurance) for rule in rules}:
        for type_name in types:
            if type_name not in declared:
                declared[type_name] = members(schema, type_name, None)
            _check_fields(fields[number], declared[type_name])
        read = {f"{owner}.{name}" for owner, name, _ in fields[number]}
        for path, _ in assurance:
            _require(path in read, f"`assurance` of {quoted(path)}", "a condition that reads it")
    checked: set[tuple[Any, ...]] = set()
    for rule in rules:
        constants = rule.constants
        key = (rule.shape, *map(type, constants))
        # INVARIANT I3: `RuleRow` bounds integers, so that compiled code may rely on 2^53 - 1.
        if key not in checked:
            holes = shapes[rule.shape].holes if rule.shape >= 0 else ()
            if not _constants_fit(constants, holes):
                raise ValueError(f"rule {quoted(rule.id)}: found other constants than its condition has, {holes}")
            if all(hole in ("int", "string") for hole in holes):
                checked.add(key)


def _check_polarity(rules: Sequence[RuleRow], shapes: Sequence[Checked], expressions: Sequence[Expression]) -> None:
    """Refuse `has()` where an absent fact would grant access; allows and other rules are read separately."""
    tested = {
        (rule.shape, rule.effect == ALLOW) for rule in rules if rule.shape >= 0 and shapes[rule.shape].tests_presence
    }
    if not tested:
        return
    # Only policies that test for presence pay for this import.
    from policyguard.conditions.polarity import misplaced_tests

    for number, is_allow in tested:
        # INVARIANT I2: a signed snapshot is not believed: absence of a fact may only take access away.
        for node in misplaced_tests(expressions[number], is_allow=is_allow):
            effect = "an allow" if is_allow else "a deny or require"
            wanted = "`has()` that nothing negates or compares" if is_allow else "it under `!`"
            raise ValueError(f"condition {number} of {effect} uses `has()` of {quoted(node.name)}, expected {wanted}")


def _check_fields(fields: Collection[Field], declared: Members) -> None:
    for owner, name, kind in fields:
        attribute = declared.get(owner, {}).get(name)
        if attribute is None or (kind and str(attribute.type) != kind):
            raise ValueError(
                f"a condition reads {quoted(f'{owner}.{name}')} of type `{kind or 'any'}`, "
                "expected an attribute of the schema"
            )


def _constants_fit(constants: Sequence[Any], holes: Sequence[str]) -> bool:
    return len(constants) == len(holes) and all(
        is_constant(_decoded(constant, hole), hole) for constant, hole in zip(constants, holes, strict=True)
    )


def _decoded(constant: Any, kind: str) -> Any:
    """Decode a constant; None for one that compiling would write differently, which no type accepts."""
    if kind in LARGE:
        texts = constant if isinstance(constant, tuple) else (constant,)
        if not all(type(text) is str and _is_canonical(text) for text in texts):
            return None
    return decode_constant(constant, kind)


def _is_canonical(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) <= 25 and str(int(text)) == text
