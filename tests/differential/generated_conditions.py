"""Random conditions over the whole CEL profile, and worlds to evaluate them in, from a seed.

Plain `random`, not Hypothesis: a hundred thousand comparisons fit into the suite, and a seed names each of them. The
text is typed by construction: `Conditions.expression(kind, depth, bound)` writes an expression of that CEL type.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from policyguard.model.policy import Attribute, ValueType
from tests.properties.strategies_conditions import NOW, SCHEMA

T = TypeVar("T")
Bound = tuple[tuple[str, str], ...]
"""Macro variables in scope, with their types."""

HOUR = 3600 * 10**9
INTEGERS = (0, 1, 2, 3, -1, -2, 5, 64, 1024, 2**31, 2**52, 2**53 - 1, -(2**53 - 1))
WORDS = ("", "a", "b", "vision", "team/vision/run-1", "pickle", "é", "\U0001f600", "07", "true", "1h", "x" * 70)
INSTANTS = (NOW, NOW - HOUR, 0, -(10**9), 253_402_300_799 * 10**9, -62_135_596_800 * 10**9)
SPANS = (0, 10**9, HOUR, -(10**9), 9_223_372_036 * 10**9, -9_223_372_036 * 10**9, 4_611_686_018 * 10**9)
DURATION_TEXTS = ("1h30m", "-2s", "2400000h", "0s", "9223372036s", "-9223372036s", "1ns")
TIMESTAMP_TEXTS = ("2026-03-01T09:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1970-01-01T00:00:00+05:30")
KEYS = ("a", "b", "vision")
LISTS = ("list(int)", "list(string)", "list(checkpoint_ref)")
ELEMENTS = {kind: kind[5:-1] for kind in (*LISTS, "list(bool)", "list(timestamp)")}


class Conditions:
    """A source of conditions and worlds; the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._count = 0

    def condition(self) -> str:
        """Write a condition."""
        self._count = 0
        return self.expression("bool", self.random.randint(1, 5), ())

    def world(self) -> dict[str, Any]:
        """Make everything that a condition reads, in the order that compiled code takes it."""
        job = SCHEMA.resources["job"].attributes
        return {
            "subject": {"id": "alice", "type": "user", **self._entity(SCHEMA.subjects["user"].attributes)},
            "resource": {"id": "team/vision/run-1", "type": "job", "domain": "vision", **self._entity(job)},
            "context": self._entity(SCHEMA.context),
            "action": "job:submit",
            "now": NOW,
        }

    def expression(self, kind: str, depth: int, bound: Bound) -> str:
        """Write an expression of a CEL type; `depth` levels of operators at most."""
        leaves: list[Callable[[], str]] = [lambda: self._leaf(kind)]
        names = [name for name, its in bound if its == kind]
        if names:
            leaves += [lambda: self._pick(names)] * 2
        fields = [
            f"{name}.{field}" for name, its in bound if its == "checkpoint_ref" for field in _FIELDS.get(kind, ())
        ]
        if fields:
            leaves.append(lambda: self._pick(fields))
        if depth <= 0:
            return self._pick(leaves)()
        ways = [*leaves, *(lambda way=way: way(self, depth - 1, bound) for way in _WAYS.get(kind, ()))]
        ways.append(lambda: self._conditional(kind, depth - 1, bound))
        if kind in ("int", "string", "bool"):
            ways.append(lambda: self._map_literal(kind, depth - 1, bound))
        return self._pick(ways)()

    def variable(self) -> str:
        """Name a new macro variable; now and then one that hides another."""
        self._count += self.random.random() < 0.8
        return f"v{self._count}"

    def _leaf(self, kind: str) -> str:
        if kind == "int":
            return self._pick((str(self._pick(INTEGERS)), "resource.gpus", "resource.nodes", "subject.level"))
        if kind == "string":
            return self._pick((quoted(self._pick(WORDS)), "resource.team", "resource.path", "subject.id", "action"))
        if kind == "timestamp":
            return self._pick(("now", "resource.started", f'timestamp("{self._pick(TIMESTAMP_TEXTS)}")'))
        if kind == "duration":
            return self._pick(("resource.limit", f'duration("{self._pick(DURATION_TEXTS)}")'))
        if kind == "list(int)":
            return self._pick(("resource.nums", str([self._pick(INTEGERS) for _ in range(self.random.randint(1, 3))])))
        if kind == "list(string)":
            return self._pick(("resource.tags", f"[{quoted(self._pick(WORDS))}, {quoted(self._pick(WORDS))}]"))
        if kind == "list(checkpoint_ref)":
            return "resource.checkpoints"
        return self._pick(_BOOL_LEAVES)

    def _conditional(self, kind: str, depth: int, bound: Bound) -> str:
        first, second = self.expression(kind, depth, bound), self.expression(kind, depth, bound)
        return f"({self.expression('bool', depth, bound)} ? {first} : {second})"

    def _map_literal(self, kind: str, depth: int, bound: Bound) -> str:
        key, value = self._pick(KEYS), self.expression(kind, depth, bound)
        entries = f'"{key}": {value}, "c": {self.expression(kind, 0, bound)}'
        return f"{{{entries}}}" + self._pick((f".{key}", f'["{key}"]', f"[{self.expression('string', 0, bound)}]"))

    def _entity(self, members: Mapping[str, Attribute]) -> dict[str, Any]:
        present = {name: self._value(attribute.type) for name, attribute in members.items()}
        for name in self.random.sample(sorted(present), min(len(present), self.random.choice((0, 0, 1, 3)))):
            del present[name]
        return present

    def _value(self, kind: ValueType) -> Any:
        if kind.kind == "list":
            assert kind.element is not None
            return tuple(self._value(kind.element) for _ in range(self.random.choice((0, 1, 2, 3, 3, 20))))
        if kind.kind == "map":
            assert kind.element is not None
            return {key: self._value(kind.element) for key in KEYS if self.random.random() < 0.6}
        if kind.kind == "record":
            return self._entity(SCHEMA.records[kind.record or ""])
        scalars: dict[str, Sequence[Any]] = {
            "bool": (True, False),
            "int": INTEGERS,
            "string": WORDS,
            "timestamp": INSTANTS,
            "duration": SPANS,
        }
        return self._pick(scalars[kind.kind])

    def _pick(self, options: Sequence[T]) -> T:
        return self.random.choice(options)


def quoted(text: str) -> str:
    """Write a CEL text literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_BOOL_LEAVES = (
    *("true", "false", "resource.flag", "resource.code.dirty", "context.mfa", "has(resource.gpus)"),
    *("has(resource.code)", "has(resource.code.dirty)", "has(resource.tags)", "has(resource.labels.a)"),
)
_FIELDS = {"int": ("size",), "string": ("format", "producer"), "bool": ("signed",)}

_Way = Callable[[Conditions, int, Bound], str]


def _template(text: str, *kinds: str) -> _Way:
    """Fill `{}` with expressions of these kinds, in order."""
    return lambda source, depth, bound: text.format(*(source.expression(kind, depth, bound) for kind in kinds))


def _macro(text: str, *kinds: str) -> _Way:
    """Fill `{v}` with a new variable, `{range}` with a list, and `{}` with expressions that may read the variable."""

    def way(source: Conditions, depth: int, bound: Bound) -> str:
        over = source.random.choice((*LISTS, "labels"))
        element = "string" if over == "labels" else ELEMENTS[over]
        spread = "resource.labels" if over == "labels" else source.expression(over, depth, bound)
        name = source.variable()
        inner = (*(pair for pair in bound if pair[0] != name), (name, element))
        parts = [source.expression(kind, max(depth - 1, 0), inner) for kind in kinds]
        return text.format(*parts, v=name, range=spread)

    return way


def _filter(kind: str) -> _Way:
    """Write a `filter`, which keeps the type of its list."""

    def way(source: Conditions, depth: int, bound: Bound) -> str:
        name = source.variable()
        inner = (*(pair for pair in bound if pair[0] != name), (name, ELEMENTS[kind]))
        spread = source.expression(kind, depth, bound)
        return f"{spread}.filter({name}, {source.expression('bool', max(depth - 1, 0), inner)})"

    return way


_COMPARED = [
    _template(f"({{}} {sign} {{}})", kind, kind)
    for kind in ("int", "string", "timestamp", "duration")
    for sign in ("<", "<=", ">", ">=", "==", "!=")
]
_WAYS: dict[str, list[_Way]] = {
    "bool": [
        *[_template("({} && {})", "bool", "bool")] * 6,
        *[_template("({} || {})", "bool", "bool")] * 6,
        *[_template("!{}", "bool")] * 3,
        _template("({} == {})", "bool", "bool"),
        *_COMPARED,
        *(_template("({} in {})", kind, f"list({kind})") for kind in ("int", "string")),
        *(_template("({} == {})", kind, kind) for kind in ("list(int)", "list(string)")),
        _template("({} in resource.labels)", "string"),
        *(_template(f"{{}}.{name}({{}})", "string", "string") for name in ("contains", "startsWith", "endsWith")),
        _template('glob({}, "team/*/**")', "string"),
        _template('{}.matches("^[a-z/]+[0-9-]*$")', "string"),
        *[_macro(f"{{range}}.{name}({{v}}, {{}})", "bool") for name in ("all", "exists", "exists_one")] * 5,
    ],
    "int": [
        *[_template(f"({{}} {sign} {{}})", "int", "int") for sign in ("+", "-", "*", "/", "%")] * 2,
        _template("(-{})", "int"),
        _template("size({})", "string"),
        *(_template("{}.size()", kind) for kind in LISTS),
        _template("{}[{}]", "list(int)", "int"),
        _template("resource.nums[{}]", "int"),
        lambda *_: "resource.counts.a",
        _template("resource.counts[{}]", "string"),
        _template("int({})", "timestamp"),
        _template("int({})", "string"),
        *(_template(f"{{}}.{name}()", "timestamp") for name in ("getHours", "getFullYear", "getDayOfWeek")),
        _template('{}.getDayOfYear("+05:30")', "timestamp"),
        *(_template(f"{{}}.{name}()", "duration") for name in ("getSeconds", "getMinutes", "getMilliseconds")),
    ],
    "string": [
        *[_template("({} + {})", "string", "string")] * 2,
        *(_template("string({})", kind) for kind in ("int", "bool")),
        lambda *_: "resource.labels.a",
        _template("resource.labels[{}]", "string"),
        _template("resource.tags[{}]", "int"),
    ],
    "timestamp": [
        *(_template(f"({{}} {sign} {{}})", "timestamp", "duration") for sign in ("+", "-")),
        _template("({} + {})", "duration", "timestamp"),
        _template("timestamp({})", "int"),
    ],
    "duration": [
        *(_template(f"({{}} {sign} {{}})", "duration", "duration") for sign in ("+", "-")),
        _template("({} - {})", "timestamp", "timestamp"),
        _template("duration({})", "string"),
    ],
    "list(int)": [
        _template("({} + {})", "list(int)", "list(int)"),
        _template("[{}, {}]", "int", "int"),
        _filter("list(int)"),
        *[_macro("{range}.map({v}, {})", "int")] * 3,
        _macro("{range}.map({v}, {}, {})", "bool", "int"),
    ],
    "list(string)": [
        _template("({} + {})", "list(string)", "list(string)"),
        _template("[{}, {}]", "string", "string"),
        _filter("list(string)"),
        _macro("{range}.map({v}, {})", "string"),
        _macro("{range}.map({v}, {}, {})", "bool", "string"),
    ],
    "list(checkpoint_ref)": [_filter("list(checkpoint_ref)")],
}
"""For each type, the ways to write an expression of it from smaller ones; repeated where it is to be more frequent."""
