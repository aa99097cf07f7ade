"""The cost of one evaluation of a condition, and the limit beyond which it is an error.

A condition without macros costs at most its own length times the size of the facts, so nothing is counted there. Inside
macros work multiplies. The exact evaluator and compiled code call the same methods at the same places in the same
order, so they exhaust the budget on the same inputs:

- a macro costs the number of elements it runs over;
- inside a macro, a function that walks a list, a map or a text costs what it walks (`WALKS`);
- inside a macro, the first test whether a scalar is in a list of more than 16 elements costs the length of the list;
  a set answers the others. A list of constants, which the policy's author wrote, costs nothing.

Exceeding the budget is an error of the whole condition: nothing absorbs it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from policyguard.conditions.functions import FUNCTIONS

MAX_COST = 100_000
"""Units that one evaluation of a condition may spend; visiting one element costs one unit."""

CHARACTERS = 64
"""Characters of text that cost one unit: a search is about as fast per unit as a macro."""

SMALL = 16
"""Lists up to this length are compared element by element, free of charge."""

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
    """Return the cost of walking a value: its elements, nested ones included, and text by length."""
    if isinstance(value, str):
        return len(value) // CHARACTERS
    if isinstance(value, Mapping):
        return len(value) + sum(map(weight, value.values()))
    return len(value) + sum(map(weight, value)) if isinstance(value, (list, tuple)) else 0


def _one(text: str, *_: Any) -> int:
    return len(text) // CHARACTERS


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
}
"""Functions whose time grows with their arguments, and the units that a call inside a macro costs."""


def is_charged(function: str, first_type: str) -> bool:
    """Return True if a call inside a macro is charged for what it walks, by its first argument's type."""
    if function in ("equals", "not_equals"):
        return first_type not in SCALARS and first_type != "bool"
    return function in WALKS and not is_membership(function, first_type)


def is_membership(function: str, first_type: str) -> bool:
    """Return True if a call tests whether a scalar is in a list."""
    return function == "in_list" and first_type in SCALARS
