"""The cost of one evaluation of a condition, and the limit beyond which it is an error.

A condition without macros costs at most its own length times the size of the facts, so nothing is counted there; a
search by a pattern has a limit of its own (`functions.matches`). Inside macros work multiplies, and what macros build
may be larger than it took to build. The exact evaluator and compiled code call the same methods at the same places in
the same order, so they exhaust the budget on the same inputs:

- a macro costs the number of elements it runs over;
- inside a macro, a function that walks a list, a map or a text costs what it walks (`WALKS`); a comparison of text with
  a constant, an id, a type or the action costs nothing, because these are short;
- outside macros, comparing a list or map that a macro built costs what is walked;
- inside a macro, the first test whether a scalar is in a list of more than 16 elements costs the length of the list;
  a set answers the others. A list of constants, which the policy's author wrote, costs nothing.

Exceeding the budget is an error of the whole condition: nothing absorbs it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from policyguard.conditions.functions import FUNCTIONS
from policyguard.model.expression import Call, Constant, Expression, Hole, Quantifier, Select, Variable, walk

MAX_COST = 100_000
"""Units that one evaluation of a condition may spend; visiting one element costs one unit."""

CHARACTERS = 64
"""Characters of text that cost one unit: a search is about as fast per unit as a macro."""

SMALL = 16
"""Lists up to this length are compared element by element, free of charge."""

TEXT_COMPARISONS = frozenset(
    (
        *("less_string", "less_equals_string", "greater_string", "greater_equals_string"),
        *("starts_with_string", "ends_with_string"),
    )
)

_EQUALITY = frozenset({"equals", "not_equals"})
_ENTITIES = frozenset({"subject", "resource"})
_SHORT_NAMES = frozenset({"id", "type"})

SCALARS = frozenset({"int", "string", "timestamp", "duration"})
"""Types whose values Python compares and hashes as CEL compares them."""


class Exhausted(Exception):
    """The condition costs more than its budget."""


class ConstantList(tuple[Any, ...]):
    """A long list of scalars in a condition; a membership test takes constant time."""

    def __init__(self, _: Sequence[Any]) -> None:
        self._members = frozenset(self)

    def __contains__(self, value: object) -> bool:
        return value in self._members


def constant_list(values: Sequence[Any]) -> tuple[Any, ...]:
    """Convert a list literal to the form that compiled rules store."""
    return ConstantList(values) if len(values) > SMALL else tuple(values)


class Budget:
    """The remaining cost of one evaluation, and the sets built from long lists."""

    __slots__ = ("_constants", "_remaining", "_sets")

    def __init__(self, units: int = MAX_COST) -> None:
        self._remaining = units
        self._sets: dict[int, tuple[Sequence[Any], frozenset[Any]]] = {}
        self._constants: dict[int, Any] = {}

    def spend(self, units: int) -> None:
        """Deduct units from the budget; raise `Exhausted` if it is used up."""
        self._remaining -= units
        if self._remaining < 0:
            raise Exhausted

    def visit(self, source: Any) -> Any:
        """Charge for every element of a list or map, and return it."""
        self.spend(len(source))
        return source

    def is_member(self, value: Any, values: Sequence[Any]) -> bool:
        """Return True if a scalar is in a list; a long list is walked, and charged for, only once."""
        if len(values) > SMALL and id(values) not in self._sets:
            self.spend(len(values))
        return self.is_listed(value, values)

    def is_listed(self, value: Any, constants: Sequence[Any]) -> bool:
        """Return True if a scalar is in a list of constants; a long list is walked only once."""
        if len(constants) <= SMALL:
            return value in constants
        known = self._sets.get(id(constants))
        if known is None:
            # The list stays beside its set, so that no other list can get its identity meanwhile.
            known = self._sets[id(constants)] = (constants, frozenset(constants))
        return value in known[1]

    def once(self, node: object, make: Callable[[], Any]) -> Any:
        """Return the value of a node that does not change during this evaluation; compute it at first use."""
        key = id(node)
        if key not in self._constants:
            self._constants[key] = make()
        return self._constants[key]

    def call(self, function: str, *arguments: Any) -> Any:
        """Charge for what the function walks, and return its result."""
        self.spend(WALKS[function](*arguments))
        return FUNCTIONS[function](*arguments)


def within(source: Any, units: int) -> Any:
    """Return the list of a condition's only macro; raise `Exhausted` if it is longer than the budget."""
    if len(source) > units:
        raise Exhausted
    return source


def weight(value: Any) -> int:
    """Return the cost of walking a value: its elements, nested ones included, and text by length.

    Counting ends beyond `MAX_COST`: a list that contains one list twice, at every level, doubles with each level.
    """
    units, pending = 0, [value]
    while pending and units <= MAX_COST:
        part = pending.pop()
        if isinstance(part, str):
            units += len(part) // CHARACTERS
        elif isinstance(part, (list, tuple, Mapping)):
            units += len(part)
            pending += part.values() if isinstance(part, Mapping) else part
    return units


def _one(text: str, *_: Any) -> int:
    return len(text) // CHARACTERS


def _shorter(first: str, second: str) -> int:
    return min(len(first), len(second)) // CHARACTERS


def _both(first: str, second: str) -> int:
    return (len(first) + len(second)) // CHARACTERS


WALKS: dict[str, Callable[..., int]] = {
    "in_list": lambda value, values: weight(values) + weight(value),
    "equals": lambda a, b: min(weight(a), weight(b)),
    "not_equals": lambda a, b: min(weight(a), weight(b)),
    "add_list": lambda a, b: len(a) + len(b),
    "add_string": _both,
    "contains_string": _both,
    "matches": _both,
    "glob_string_string": _both,
    "under_string_string": _both,
    "ip_in_string_string": _both,
    **dict.fromkeys(("string_to_timestamp", "string_to_duration", "string_to_int64", "string_to_bool"), _one),
    **dict.fromkeys(TEXT_COMPARISONS, _shorter),
}
"""Functions whose time grows with their arguments, and the units that a call inside a macro costs."""


def is_charged(call: Call, *, is_inside: bool) -> bool:
    """Return True if a call is charged for what it walks; `is_inside` says that it is in a macro."""
    function, kind = call.function, call.arguments[0].type
    if is_membership(function, kind):
        return False
    if function in _EQUALITY and kind != "string":
        is_walked = kind not in SCALARS and kind != "bool"
        return is_walked and (is_inside or any(map(_is_built, call.arguments)))
    if function in TEXT_COMPARISONS or function in _EQUALITY:
        return is_inside and not any(map(_is_short, call.arguments))
    if function == "in_list":
        return is_inside or any(map(_is_built, call.arguments))
    return is_inside and function in WALKS


def _is_built(node: Expression) -> bool:
    return any(isinstance(part, Quantifier) for part in walk(node))


def _is_short(node: Expression) -> bool:
    if isinstance(node, Select):
        return isinstance(node.operand, Variable) and node.operand.name in _ENTITIES and node.name in _SHORT_NAMES
    return isinstance(node, Constant | Hole) or (isinstance(node, Variable) and node.name == "action")


def is_membership(function: str, first_type: str) -> bool:
    """Return True if a call tests whether a scalar is in a list."""
    return function == "in_list" and first_type in SCALARS
