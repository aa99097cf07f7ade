"""Random typed conditions as CEL text, and worlds to evaluate them in. Shared by the tests of `conditions/`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from hypothesis import strategies as st

from policyguard.model.policy import Attribute, EntityType, Schema, ValueType

BOOL, INT, STRING = ValueType(kind="bool"), ValueType(kind="int"), ValueType(kind="string")
TIMESTAMP, DURATION = ValueType(kind="timestamp"), ValueType(kind="duration")


def listed(element: ValueType) -> ValueType:
    return ValueType(kind="list", element=element)


def mapped(element: ValueType) -> ValueType:
    return ValueType(kind="map", element=element)


def record(name: str) -> ValueType:
    return ValueType(kind="record", record=name)


def attributes(**types: ValueType) -> dict[str, Attribute]:
    return {name: Attribute(name=name, type=kind, optional=True) for name, kind in types.items()}


CHECKPOINT = attributes(format=STRING, producer=STRING, size=INT, signed=BOOL)
CODE = attributes(dirty=BOOL, commit=STRING)
JOB = attributes(
    gpus=INT,
    nodes=INT,
    team=STRING,
    path=STRING,
    flag=BOOL,
    started=TIMESTAMP,
    limit=DURATION,
    tags=listed(STRING),
    nums=listed(INT),
    labels=mapped(STRING),
    counts=mapped(INT),
    checkpoints=listed(record("checkpoint_ref")),
    code=record("code"),
)
SCHEMA = Schema(
    subjects={"user": EntityType(name="user", attributes=attributes(level=INT, employment=STRING))},
    resources={"job": EntityType(name="job", attributes=JOB)},
    context=attributes(mfa=BOOL, addr=STRING),
    records={"checkpoint_ref": CHECKPOINT, "code": CODE},
)
NOW = 1_772_355_600 * 10**9

WORDS = ("", "a", "b", "vision", "team/vision/run-1", "pickle", "é", "\U0001f600")
_small = st.integers(-3, 5)
_numbers = st.one_of(_small, st.sampled_from([2**53 - 1, -(2**53 - 1), 64, 256]))
_words = st.sampled_from(WORDS)
_instants = st.sampled_from([NOW, NOW - 3600 * 10**9, 0, -(10**9), 253_402_300_799 * 10**9])
_spans = st.sampled_from([0, 10**9, 3600 * 10**9, -(10**9)])

_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int": _numbers,
    "string": _words,
    "timestamp": _instants,
    "duration": _spans,
}


def _value(kind: ValueType) -> st.SearchStrategy[Any]:
    if kind.kind == "list":
        assert kind.element is not None
        return st.lists(_value(kind.element), max_size=3).map(tuple)
    if kind.kind == "map":
        assert kind.element is not None
        return st.dictionaries(st.sampled_from(["a", "b", "vision"]), _value(kind.element), max_size=2)
    if kind.kind == "record":
        return entity(SCHEMA.records[kind.record or ""])
    return _VALUES[kind.kind]


def entity(members: Mapping[str, Attribute], **fixed: str) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping of the attributes, of which a few are absent."""
    absent = st.frozensets(st.sampled_from(sorted(members)), max_size=2)
    present = st.fixed_dictionaries({name: _value(each.type) for name, each in members.items()})
    return st.tuples(present, absent).map(
        lambda drawn: {**fixed, **{name: value for name, value in drawn[0].items() if name not in drawn[1]}}
    )


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    """Everything a condition reads, in the order that compiled code takes it."""
    return {
        "subject": draw(entity(SCHEMA.subjects["user"].attributes, id="alice", type="user")),
        "resource": draw(entity(JOB, id="team/vision/run-1", type="job", domain="vision")),
        "context": draw(entity(SCHEMA.context)),
        "action": "job:submit",
        "now": NOW,
    }


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


Bound = tuple[tuple[str, str], ...]


@st.composite
def conditions(draw: st.DrawFn, depth: int = 4) -> str:
    """The text of a condition that the checker accepts, save for constants that fail."""
    return draw(_bools(depth, ()))


def _pick(*options: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(*options)


def _names(bound: Bound, kind: str) -> list[st.SearchStrategy[str]]:
    return [st.just(name) for name, its in bound if its == kind]


def _joined(template: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map(lambda drawn: template.format(*drawn))


@cache
def _bools(depth: int, bound: Bound) -> st.SearchStrategy[str]:
    leaves = [
        st.sampled_from(
            [
                "true",
                "resource.flag",
                "resource.code.dirty",
                "context.mfa",
                "has(resource.gpus)",
                "has(resource.code)",
                "has(resource.code.dirty)",
                "has(resource.tags)",
                "has(resource.labels.a)",
                "has(context.addr)",
            ]
        ),
        *_names(bound, "bool"),
        *[st.sampled_from([f"{name}.signed", f"has({name}.producer)"]) for name, kind in bound if kind == "record"],
    ]
    if depth <= 0:
        return _pick(*leaves)
    below = st.deferred(lambda: _bools(depth - 1, bound))
    ints, texts = st.deferred(lambda: _ints(depth - 1, bound)), st.deferred(lambda: _texts(depth - 1, bound))
    times = st.deferred(lambda: _times(depth - 1))
    spans = st.deferred(lambda: _durations(depth - 1))
    number_lists, text_lists = _number_lists(depth - 1, bound), _text_lists(depth - 1, bound)
    orders = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    return _pick(
        *leaves,
        _joined("({} && {})", below, below),
        _joined("({} || {})", below, below),
        _joined("!{}", below),
        _joined("({} ? {} : {})", below, below, below),
        _joined("({} == {})", below, below),
        _joined("({} {} {})", ints, orders, ints),
        _joined("({} {} {})", texts, orders, texts),
        _joined("({} {} {})", times, orders, times),
        _joined("({} {} {})", spans, orders, spans),
        _joined("({} in {})", ints, number_lists),
        _joined("({} in {})", texts, text_lists),
        _joined("({} in resource.labels)", texts),
        _joined("({} == {})", number_lists, number_lists),
        _joined("({} != {})", text_lists, text_lists),
        _joined("(resource.labels == {{{}: {}}})", texts, texts),
        _joined("{}.startsWith({})", texts, texts),
        _joined("{}.endsWith({})", texts, texts),
        _joined("{}.contains({})", texts, texts),
        _joined('{}.matches("^[a-v]+$")', texts),
        _joined('glob({}, "team/*/**")', texts),
        _quantified(depth, bound),
    )


@cache
def _quantified(depth: int, bound: Bound) -> st.SearchStrategy[str]:
    name = f"x{len(bound)}"
    macro = st.sampled_from(["all", "exists", "exists_one"])

    def over(kind: str, source: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        body = st.deferred(lambda: _bools(depth - 2, (*bound, (name, kind))))
        return _joined(f"{{}}.{{}}({name}, {{}})", source, macro, body)

    return _pick(
        over("int", _number_lists(depth - 2, bound)),
        over("string", _text_lists(depth - 2, bound)),
        over("record", st.just("resource.checkpoints")),
        over("string", st.just("resource.labels")),
    )


@cache
def _ints(depth: int, bound: Bound) -> st.SearchStrategy[str]:
    leaves = [
        _numbers.map(str),
        st.sampled_from(["resource.gpus", "resource.nodes", "subject.level"]),
        *_names(bound, "int"),
        *[st.just(f"{name}.size") for name, kind in bound if kind == "record"],
    ]
    if depth <= 0:
        return _pick(*leaves)
    below = st.deferred(lambda: _ints(depth - 1, bound))
    texts = st.deferred(lambda: _texts(depth - 1, bound))
    bools = st.deferred(lambda: _bools(depth - 1, bound))
    operators = st.sampled_from(["+", "-", "*", "/", "%"])
    return _pick(
        *leaves,
        _joined("({} {} {})", below, operators, below),
        _joined("(-{})", _pick(*leaves[1:])),
        _joined("size({})", texts),
        _joined("{}.size()", _text_lists(depth - 1, bound)),
        _joined("({} ? {} : {})", bools, below, below),
        _joined("resource.nums[{}]", _small.map(str)),
        st.just("resource.counts.a"),
        _joined("resource.counts[{}]", texts),
        st.just("resource.started.getHours()"),
        st.just('resource.started.getDayOfYear("+05:30")'),
        st.just("resource.limit.getSeconds()"),
        _joined("int({})", _times(depth - 1)),
    )


@cache
def _texts(depth: int, bound: Bound) -> st.SearchStrategy[str]:
    leaves = [
        _words.map(quoted),
        st.sampled_from(["resource.team", "resource.path", "resource.id", "subject.id", "action"]),
        *_names(bound, "string"),
        *[st.sampled_from([f"{name}.format", f"{name}.producer"]) for name, kind in bound if kind == "record"],
    ]
    if depth <= 0:
        return _pick(*leaves)
    below = st.deferred(lambda: _texts(depth - 1, bound))
    ints = st.deferred(lambda: _ints(depth - 1, bound))
    bools = st.deferred(lambda: _bools(depth - 1, bound))
    return _pick(
        *leaves,
        _joined("({} + {})", below, below),
        _joined("string({})", ints),
        _joined("string({})", bools),
        _joined("({} ? {} : {})", bools, below, below),
        st.just("resource.labels.a"),
        _joined("resource.labels[{}]", below),
        _joined("resource.tags[{}]", _small.map(str)),
    )


@cache
def _times(depth: int) -> st.SearchStrategy[str]:
    leaves = st.sampled_from(["now", "resource.started", 'timestamp("2026-03-01T09:00:00Z")'])
    if depth <= 0:
        return leaves
    return _pick(leaves, _joined("({} {} {})", leaves, st.sampled_from(["+", "-"]), _durations(0)))


@cache
def _durations(depth: int) -> st.SearchStrategy[str]:
    leaves = st.sampled_from(["resource.limit", 'duration("1h30m")', 'duration("-2s")', 'duration("2400000h")'])
    if depth <= 0:
        return leaves
    return _pick(leaves, _joined("({} + {})", leaves, leaves), _joined("({} - {})", _times(0), _times(0)))


@cache
def _number_lists(depth: int, bound: Bound) -> st.SearchStrategy[str]:
    leaves = _pick(st.just("resource.nums"), st.lists(_small, min_size=1, max_size=3).map(str))
    if depth <= 0:
        return leaves
    name = f"y{len(bound)}"
    inner = (*bound, (name, "int"))
    return _pick(
        leaves,
        _joined("({} + {})", leaves, leaves),
        _joined(f"{{}}.filter({name}, {{}})", leaves, st.deferred(lambda: _bools(depth - 1, inner))),
        _joined(f"{{}}.map({name}, {{}})", leaves, st.deferred(lambda: _ints(depth - 1, inner))),
        _joined(
            f"{{}}.map({name}, {{}}, {{}})",
            leaves,
            st.deferred(lambda: _bools(depth - 1, inner)),
            st.deferred(lambda: _ints(depth - 1, inner)),
        ),
    )


@cache
def _text_lists(depth: int, bound: Bound) -> st.SearchStrategy[str]:
    words = st.lists(_words.map(quoted), min_size=1, max_size=3).map(lambda each: "[" + ", ".join(each) + "]")
    leaves = _pick(st.just("resource.tags"), words)
    if depth <= 0:
        return leaves
    name = f"z{len(bound)}"
    body = st.deferred(lambda: _texts(depth - 1, (*bound, (name, "record"))))
    return _pick(leaves, _joined(f"resource.checkpoints.map({name}, {{}})", body))
