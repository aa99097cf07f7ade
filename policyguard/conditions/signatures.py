"""The argument and result kinds of each overload, checked again when the checker's bytes are decoded.

A kind is a type name without its parameters (`list`, `map`), or `any`.
"""

from __future__ import annotations

from policyguard.conditions.profile import OVERLOADS
from policyguard.model.expression import Expression

Signature = tuple[tuple[str, ...], str]

_KINDS = {
    "bool": "bool",
    "int64": "int",
    "string": "string",
    "timestamp": "timestamp",
    "duration": "duration",
    "list": "list",
    "map": "map",
}

_SPECIAL: dict[str, Signature] = {
    "logical_and": (("bool", "bool"), "bool"),
    "logical_or": (("bool", "bool"), "bool"),
    "logical_not": (("bool",), "bool"),
    "conditional": (("bool", "any", "any"), "any"),
    "equals": (("any", "any"), "bool"),
    "not_equals": (("any", "any"), "bool"),
    "in_list": (("any", "list"), "bool"),
    "in_map": (("any", "map"), "bool"),
    "index_list": (("list", "int"), "any"),
    "index_map": (("map", "string"), "any"),
    "matches": (("string", "string"), "bool"),
    "negate_int64": (("int",), "int"),
    "glob_string_string": (("string", "string"), "bool"),
    "under_string_string": (("string", "string"), "bool"),
    "ip_in_string_string": (("string", "string"), "bool"),
    "not_strictly_false": (("bool",), "bool"),
    "add_timestamp_duration": (("timestamp", "duration"), "timestamp"),
    "add_duration_timestamp": (("duration", "timestamp"), "timestamp"),
    "subtract_timestamp_duration": (("timestamp", "duration"), "timestamp"),
    "subtract_timestamp_timestamp": (("timestamp", "timestamp"), "duration"),
    "add_duration_duration": (("duration", "duration"), "duration"),
    "subtract_duration_duration": (("duration", "duration"), "duration"),
}

_TESTS = ("less_", "greater_", "contains_", "starts_with_", "ends_with_")
_ARITHMETIC = ("add_", "subtract_", "multiply_", "divide_", "modulo_")


def _signature(function: str) -> Signature:
    if function in _SPECIAL:
        return _SPECIAL[function]
    kind = _KINDS.get(function.rpartition("_")[2], "any")
    if function.startswith(_TESTS):
        return (kind, kind), "bool"
    if function.startswith(_ARITHMETIC):
        return (kind, kind), kind
    if function.startswith("size_"):
        return (kind,), "int"
    source, _, result = function.partition("_to_")
    if function.endswith("_with_tz"):
        return (_KINDS[source], "string"), "int"
    return (_KINDS[source],), _KINDS.get(result, "int")


SIGNATURES: dict[str, Signature] = {name: _signature(name) for name in (*OVERLOADS, "not_strictly_false")}


def fits(function: str, arguments: tuple[Expression, ...], result: str) -> bool:
    """Return True if an overload takes these argument kinds and returns this type.

    Args:
        function: the overload id; `logical_and` and `logical_or` take two or more arguments.
        arguments: the decoded arguments.
        result: the name of the result type.
    """
    wanted, returned = SIGNATURES[function]
    if function in ("logical_and", "logical_or"):
        wanted = ("bool",) * max(2, len(arguments))
    kinds = [argument.type.partition("(")[0] for argument in arguments]
    return (
        len(kinds) == len(wanted)
        and all(want in ("any", kind) for want, kind in zip(wanted, kinds, strict=True))
        and returned in ("any", result.partition("(")[0])
    )
