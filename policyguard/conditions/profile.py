"""The CEL profile as tables: the overloads in it, how each is written, and the names of what it refuses.

`docs/conditions.md` is the page for authors.
"""

from __future__ import annotations

from policyguard.conditions.functions import FUNCTIONS

VARIABLES = {"subject": "subject", "resource": "resource", "context": "context", "action": "string", "now": "timestamp"}
"""The variables of a condition with their types; the first three are entities."""

ENTITIES = frozenset({"subject", "resource", "context"})

MACROS = ("all", "exists", "exists_one", "filter", "map", "has")

SYNONYMS = {
    "matches_string": "matches",
    "string_size": "size_string",
    "list_size": "size_list",
    "map_size": "size_map",
    "timestamp_to_seconds_tz": "timestamp_to_seconds_with_tz",
}
"""Overloads with the same meaning, mapped to the name that the rest of the code uses."""

IDENTITIES = frozenset(f"{kind}_to_{kind}" for kind in ("int64", "string", "bool", "timestamp", "duration"))
"""Conversions of a type to itself; the decoder replaces the call by its argument."""

LOGIC = frozenset({"logical_and", "logical_or", "logical_not", "conditional"})

OVERLOADS = frozenset(FUNCTIONS) | LOGIC
"""Every overload that a checked condition may have."""

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
"""Overload, or its name without types, to operator."""

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
"""The names of all functions and macros, for suggestions."""


def operator(function: str) -> str | None:
    """Return the infix operator of an overload, or None."""
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
"""Kind of type to (name on the page, description, help)."""
