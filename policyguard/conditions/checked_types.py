"""Names of the checker's types, and which types and comparisons the profile refuses."""

from __future__ import annotations

import re

from policyguard.conditions.problems import ProfileError
from policyguard.conditions.profile import ENTITIES, REFUSED_TYPES
from policyguard.conditions.wire import Message
from policyguard.model.expression import Constant, Expression, TypeName

PACKAGE = "policyguard."
"""Package of the message types that the checker is given: `policyguard.record_<name>`, `policyguard.subject`, ..."""

_OFFSET = re.compile(r"UTC|[+-]?([01][0-9]|2[0-3]):[0-5][0-9]", re.ASCII)

_KINDS = range(1, 15)
_PRIMITIVES = {1: "bool", 2: "int", 3: "uint", 4: "double", 5: "string", 6: "bytes"}
_WELL_KNOWN = {2: "timestamp", 3: "duration"}
_REFUSED_KINDS = {1: "dyn", 2: "null", 10: "dyn", 11: "type"}


def type_name(data: bytes, depth: int) -> TypeName:
    """Name a serialized `cel.expr.Type`; a type outside the profile is a key of `REFUSED_TYPES`.

    Raises:
        ProfileError: the bytes are malformed, or types nest deeper than `depth`.
    """
    if depth <= 0:
        raise ProfileError("malformed expression: a type is nested too deeply")
    message = Message(data, _KINDS)
    if len(message.fields) > 1:
        raise ProfileError("malformed expression: a type of more than one kind")
    if 3 in message.fields:
        return _PRIMITIVES.get(message.integer(3), "other")
    if 5 in message.fields:
        return _WELL_KNOWN.get(message.integer(5), "other")
    if 6 in message.fields:
        return f"list({type_name(Message(message.data(6), (1,)).data(1), depth - 1)})"
    if 7 in message.fields:
        pair = Message(message.data(7), (1, 2))
        return f"map({type_name(pair.data(1), depth - 1)}, {type_name(pair.data(2), depth - 1)})"
    if 9 in message.fields:
        return _record_name(message.text(9))
    return next((_REFUSED_KINDS[kind] for kind in message.fields if kind in _REFUSED_KINDS), "other")


def _record_name(full: str) -> TypeName:
    if not full.startswith(PACKAGE):
        return "other"
    kind, _, name = full.removeprefix(PACKAGE).partition("_")
    if kind == "record" and name.isidentifier():
        return name
    return kind if kind in ENTITIES else "other"


def outside_profile(kind: str, offset: int) -> ProfileError:
    """Build the error for a type that the profile refuses."""
    name, description, help_text = REFUSED_TYPES[kind]
    return ProfileError(f"{description} is outside the profile", offset, name=name, help=help_text)


_PLAIN = frozenset({"bool", "int", "string", "timestamp", "duration", "dyn"})


def refuse_records(arguments: tuple[Expression, ...], offset: int) -> None:
    """Raise `ProfileError` if one of the operands of a comparison is a record, or a list or map of records."""
    for argument in arguments:
        innermost = argument.type.replace("list(", "").replace("map(string, ", "").replace("map(dyn, ", "").rstrip(")")
        if innermost not in _PLAIN:
            raise ProfileError(
                f"records (`{innermost}`) cannot be compared",
                offset,
                name="record-equality",
                help="compare the fields that matter",
            )


def refuse_zone_names(zone: Expression) -> None:
    """Raise `ProfileError` unless the zone is a literal `UTC` or offset."""
    if isinstance(zone, Constant) and _OFFSET.fullmatch(str(zone.value)):
        return
    raise ProfileError(
        "a time zone is `UTC` or an offset such as `+02:00`, written out",
        zone.offset,
        name="zone",
        help="the rules of named zones differ from host to host",
    )
