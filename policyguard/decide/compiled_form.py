"""Compiles a policy set to plain data, always to the same bytes, and computes the policy digest over them.

The compiled form is all that a host needs to decide, without YAML, casbin or a CEL library. Positions in files and the
texts of conditions are included for explanations. They are covered by the digest of the bundle's envelope but not by
the policy digest, so that a comment or a moved line does not change what a worker accepts. Pure.
"""

# Annotations are values here: msgspec compiles each that is text when a process first decodes.

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from policyguard.conditions.ast import shape
from policyguard.conditions.canonical import canonical_form
from policyguard.conditions.cost import constant_list
from policyguard.decide.role_grants import RoleAssignments
from policyguard.model.expression import Expression, Hole, walk
from policyguard.model.facts import Assurance
from policyguard.model.policy import PolicySet, Quorum, Rule, Schema
from policyguard.values import MAX_INTEGER, canonical, format_instant, sha256_digest

FORMAT = "policyguard/compiled/v1"

EFFECT_CODES: Mapping[str, Literal[0, 1, 2]] = {"allow": 0, "deny": 1, "require": 2}
ALLOW, DENY, REQUIRE = EFFECT_CODES.values()


_Name = Annotated[str, msgspec.Meta(min_length=1)]
_Integer = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
_Scalar = str | _Integer


_Minimum = Annotated[int, msgspec.Meta(ge=2, le=4)]


_Fact = Annotated[str, msgspec.Meta(pattern=r"^(?:subject|resource|context)\.[a-z][a-z0-9_]*\Z")]


class RuleRow(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """One rule in the compiled form.

    The order of the fields is the file format; it may change only together with `FORMAT`.
    """

    id: _Name
    effect: Literal[0, 1, 2]
    actions: Annotated[tuple[_Name, ...], msgspec.Meta(min_length=1)]
    resource_types: Annotated[tuple[_Name, ...], msgspec.Meta(min_length=1)]
    roles: tuple[_Name, ...]
    subjects: tuple[_Name, ...]
    id_pattern: _Name | None
    scope: _Name | None
    shape: Annotated[int, msgspec.Meta(ge=-1)]
    """The index of the condition's shape, -1 for a rule without a condition."""
    constants: tuple[_Scalar | tuple[_Scalar, ...], ...]
    """The condition's own constants, as `encode_constant` writes them."""
    quorum: _Name | None
    reason: _Name | None
    remedy: str | None
    contact: str | None
    obligations: tuple[_Name, ...]
    not_before: _Name | None
    expires: _Name | None
    assurance: tuple[tuple[_Fact, _Minimum], ...]


class RuleSource(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Where a rule is written, the text of its condition, and its owner; only for explanations."""

    file: str
    line: Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]
    column: Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]
    text: str | None
    owner: str | None


class CompiledPolicy(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The deciding part of the compiled form; the policy digest covers it."""

    epoch: Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
    schema: Schema
    shapes: tuple[list[Any], ...]
    rules: tuple[RuleRow, ...]
    grants: dict[str, Any]
    persons: tuple[tuple[_Name, tuple[_Name, ...], tuple[_Name, ...], tuple[_Name, ...]], ...]
    quorums: tuple[Quorum, ...]
    trace_roles: tuple[_Name, ...]


class CompiledForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A parsed compiled form, as `compile_policy` writes it."""

    format: str
    policy: CompiledPolicy
    sources: tuple[RuleSource, ...] = msgspec.field(name="places")
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")] | None = None


def read_compiled(data: Mapping[str, Any]) -> CompiledForm:
    """Parse the plain data that `compile_policy` writes.

    Raises:
        msgspec.ValidationError: a part is missing or of another type; the message has its path.
        ValueError: there are not as many places as rules.
    """
    compiled = msgspec.convert(data, CompiledForm)
    if len(compiled.sources) != len(compiled.policy.rules):
        raise ValueError(
            f"found {len(compiled.sources)} places, expected {len(compiled.policy.rules)}, one for each rule"
        )
    return compiled


def compile_policy(policy_set: PolicySet, grants: RoleAssignments) -> dict[str, Any]:
    """Compile a policy set and its role assignments to plain data.

    `["policy"]` is what decides and what the policy digest covers; `["places"]` says where each rule is written and
    how its condition reads.
    """
    shapes = _Shapes()
    rules = [msgspec.to_builtins(_row(rule, shapes)) for rule in policy_set.rules]
    name = policy_set.metadata.get("name")
    return {
        "format": FORMAT,
        **({"name": name} if name else {}),
        "policy": {
            "epoch": policy_set.epoch,
            "schema": schema_data(policy_set.schema),
            "shapes": shapes.forms,
            "rules": rules,
            "grants": grants.to_data(),
            "persons": [
                [person.id, list(person.accounts), list(person.keys), list(person.emails)]
                for person in policy_set.persons
            ],
            "quorums": [_plain(quorum) for quorum in policy_set.quorums],
            "trace_roles": list(policy_set.trace_roles),
        },
        "places": [msgspec.to_builtins(_source(rule)) for rule in policy_set.rules],
    }


def policy_digest(compiled: dict[str, Any]) -> str:
    """Compute the policy digest: SHA-256 over the canonical bytes of the deciding part."""
    return sha256_digest(encode(compiled["policy"]))


def encode(data: Mapping[str, Any]) -> bytes:
    """Encode plain data in its canonical form.

    Raises:
        ValueError, TypeError, OverflowError, RecursionError: it is no plain data.
    """
    encoded = _ENCODER.encode(data)
    # ASCII text has one order and one escaping, so the fast encoder's bytes are the canonical ones.
    return encoded if encoded.isascii() else canonical(data)


_ENCODER = msgspec.json.Encoder(order="sorted")


def schema_data(schema: Schema) -> Any:
    """Convert a schema to plain data without positions, from which `msgspec.convert` makes it again."""
    return _plain(schema)


def hole_types(form: Expression) -> tuple[str, ...]:
    """List the types of a shape's holes, by number."""
    holes = {node.index: node.type for node in walk(form) if isinstance(node, Hole)}
    return tuple(holes[index] for index in range(len(holes)))


LARGE = frozenset({"timestamp", "duration", "list(timestamp)", "list(duration)"})
"""Types whose constants can exceed 2^53; JSON has them as text."""


def encode_constant(value: Any, type_name: str) -> Any:
    """Encode a constant for JSON."""
    if type_name in LARGE:
        return [str(item) for item in value] if isinstance(value, tuple) else str(value)
    return list(value) if isinstance(value, tuple) else value


def decode_constant(value: Any, type_name: str) -> Any:
    """Decode a constant that `encode_constant` wrote."""
    if type_name in LARGE:
        return constant_list(list(map(int, value))) if isinstance(value, (list, tuple)) else int(value)
    return constant_list(value) if isinstance(value, (list, tuple)) else value


class _Shapes:
    """Collects the shapes of conditions; conditions that differ only in constants share one."""

    def __init__(self) -> None:
        self.forms: list[Any] = []
        self._numbers: dict[Expression, tuple[int, tuple[str, ...]]] = {}

    def number(self, expression: Expression) -> tuple[int, tuple[Any, ...]]:
        form, constants = shape(expression)
        known = self._numbers.get(form)
        if known is None:
            known = self._numbers[form] = (len(self.forms), hole_types(form))
            self.forms.append(canonical_form(form))
        number, types = known
        return number, tuple(encode_constant(value, kind) for value, kind in zip(constants, types, strict=True))


def _row(rule: Rule, shapes: _Shapes) -> RuleRow:
    number, constants = (-1, ()) if rule.when is None else shapes.number(rule.when.expression)
    return RuleRow(
        id=rule.id,
        effect=EFFECT_CODES[rule.effect],
        actions=rule.actions,
        resource_types=rule.resource_types,
        roles=rule.roles,
        subjects=rule.subjects,
        id_pattern=rule.id_pattern,
        scope=rule.scope,
        shape=number,
        constants=constants,
        quorum=rule.quorum,
        reason=rule.reason,
        remedy=rule.remedy,
        contact=rule.contact,
        obligations=rule.obligations,
        not_before=None if rule.not_before is None else format_instant(rule.not_before),
        expires=None if rule.expires is None else format_instant(rule.expires),
        assurance=rule.assurance,
    )


def _source(rule: Rule) -> RuleSource:
    span = rule.span
    return RuleSource(span.file, span.line, span.column, rule.when.text if rule.when else None, rule.owner)


def _plain(noun: Any) -> Any:
    """Convert a struct to plain data, without positions and without fields that have an empty default.

    Only fields of structs are left out, never members of a map: an attribute may be called `span`.
    """
    if isinstance(noun, msgspec.Struct):
        fields = ((name, getattr(noun, name)) for name in noun.__struct_fields__ if name != "span")
        return {name: _plain(value) for name, value in fields if value is not None and value != ()}
    if isinstance(noun, Mapping):
        return {key: _plain(value) for key, value in noun.items()}
    if isinstance(noun, tuple):
        return [_plain(item) for item in noun]
    return int(noun) if isinstance(noun, Assurance) else noun
