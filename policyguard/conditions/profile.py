"""The CEL profile as tables: which overloads are in, how each is spelled, and the names of what is out.

`docs/conditions.md` is this module for readers.
"""

from __future__ import annotations

from policyguard.conditions.functions import FUNCTIONS

VARIABLES = {"subject": "subject", "resource": "resource", "context": "context", "action": "string", "now": "timestamp"}
"""What a condition may name, with its type; the first three are entities."""

ENTITIES = frozenset({"subject", "resource", "context"})

MACROS = ("all", "exists", "exists_one", "filter", "map", "has")

SYNONYMS = {
    "matches_string": "matches",
    "string_size": "size_string",
    "list_size": "size_list",
    "map_size": "size_map",
    "timestamp_to_seconds_tz": "timestamp_to_seconds_with_tz",
}
"""Overloads that mean the same, to the one name kept."""

IDENTITIES = frozenset(
    {
        "int64_to_int64",
        "string_to_string",
        "bool_to_bool",
        "timestamp_to_timestamp",
        "duration_to_duration",
    }
)
"""Conversions of a type to itself; the argument stands for the call."""

LOGIC = frozenset({"logical_and", "logical_or", "logical_not", "conditional"})

OVERLOADS = frozenset(FUNCTIONS) | LOGIC
"""Every overload a checked condition may hold."""

INFIX = {
    "equals": "==",
    "not_equals": "!=",
    "in_list": "in",
    "in_map": "in",
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "modulo": "%",
    "less": "<",
    "less_equals": "<=",
    "greater": ">",
    "greater_equals": ">=",
}
"""Overload, or overload without its types, to operator."""

_ACCESSORS = {
    "year": "getFullYear",
    "month": "getMonth",
    "day_of_year": "getDayOfYear",
    "day_of_month": "getDayOfMonth",
    "day_of_month_1_based": "getDate",
    "day_of_week": "getDayOfWeek",
    "hours": "getHours",
    "minutes": "getMinutes",
    "seconds": "getSeconds",
    "milliseconds": "getMilliseconds",
}

METHODS = {
    "contains_string": "contains",
    "starts_with_string": "startsWith",
    "ends_with_string": "endsWith",
    "matches": "matches",
    "size_string": "size",
    "size_list": "size",
    "size_map": "size",
    **{f"timestamp_to_{key}": name for key, name in _ACCESSORS.items()},
    **{f"timestamp_to_{key}_with_tz": name for key, name in _ACCESSORS.items()},
    **{f"duration_to_{key}": _ACCESSORS[key] for key in ("hours", "minutes", "seconds", "milliseconds")},
}

CALLS = {
    "glob_string_string": "glob",
    "under_string_string": "under",
    "ip_in_string_string": "ip.in",
    "string_to_timestamp": "timestamp",
    "int64_to_timestamp": "timestamp",
    "string_to_duration": "duration",
    "string_to_int64": "int",
    "timestamp_to_int64": "int",
    "string_to_bool": "bool",
    "int64_to_string": "string",
    "bool_to_string": "string",
    "timestamp_to_string": "string",
    "duration_to_string": "string",
}

FUNCTION_NAMES = tuple(sorted({*METHODS.values(), *CALLS.values(), *MACROS}))
"""What an author may call, for "did you mean"."""


def operator(function: str) -> str | None:
    """Return the infix spelling of an overload, or None if it has none."""
    if function in INFIX:
        return INFIX[function]
    for stem in ("less_equals_", "greater_equals_", "less_", "greater_"):
        if function.startswith(stem):
            return INFIX[stem[:-1]]
    return INFIX.get(function.partition("_")[0])


REFUSED_TYPES = {
    "double": ("float", "a floating-point number", "count in whole numbers of a smaller unit"),
    "uint": ("uint", "an unsigned integer", "write the integer without `u`"),
    "bytes": ("bytes", "bytes", "compare text"),
    "null": ("null", "null", "ask whether an attribute is present with `has()`"),
    "dyn": ("dyn", "a value of any type", "give every value one type"),
    "type": ("type", "a type as a value", "types are known when the policy loads"),
    "other": ("type", "a type that policies do not have", None),
}
"""Kind of type to (name on the page, words, help)."""
