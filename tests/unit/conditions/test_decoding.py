"""Serialized conditions built by hand: what the checker never writes is refused by name, at its offset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from policyguard.conditions import decoding, wire
from policyguard.conditions.decoding import MAX_BYTES, MAX_DEPTH, decode_checked
from policyguard.conditions.problems import ProfileError
from policyguard.conditions.rendering import render

BOOL, INT, TEXT, TIME = bytes([0x18, 1]), bytes([0x18, 2]), bytes([0x18, 5]), bytes([0x28, 2])
DYN, DOUBLE = b"\x0a\x00", bytes([0x18, 4])


def varint(value: int) -> bytes:
    data = b""
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])


def part(number: int, value: bytes | int | str) -> bytes:
    """One field of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def list_type(element: bytes) -> bytes:
    return part(6, part(1, element))


def map_type(key: bytes, value: bytes) -> bytes:
    return part(7, part(1, key) + part(2, value))


def named_type(name: str) -> bytes:
    return part(9, f"policyguard.{name}")


TEXTS, SIZES, CODE = list_type(TEXT), map_type(TEXT, INT), named_type("record_code")


class Building:
    """Builds the nodes of one expression; each has a type, and its number as its offset."""

    def __init__(self) -> None:
        self.count = 0
        self.types: dict[int, bytes] = {}
        self.references: dict[int, bytes] = {}

    def node(self, number: int, body: bytes, kind: bytes | None) -> bytes:
        self.count += 1
        if kind is not None:
            self.types[self.count] = kind
        return part(2, self.count) + part(number, body)

    def constant(self, value: bool | int | str) -> bytes:
        number = 2 if isinstance(value, bool) else 3 if isinstance(value, int) else 6
        return self.node(3, part(number, int(value) if isinstance(value, bool) else value), None)

    def name(self, name: str, kind: bytes) -> bytes:
        return self.node(4, part(1, name), kind)

    def field(self, name: str, kind: bytes, *more: bytes) -> bytes:
        resource = self.name("resource", named_type("resource_job"))
        return self.node(5, part(1, resource) + part(2, name) + b"".join(more), kind)

    def call(self, overload: str, *arguments: bytes, kind: bytes = BOOL) -> bytes:
        node = self.node(6, part(2, "f") + b"".join(part(3, argument) for argument in arguments), kind)
        self.references[self.count] = part(3, overload)
        return node

    def items(self, *elements: bytes, kind: bytes, more: bytes = b"") -> bytes:
        return self.node(7, b"".join(part(1, element) for element in elements) + more, kind)

    def entries(self, *entries: bytes, kind: bytes, more: bytes = b"") -> bytes:
        return self.node(8, more + b"".join(part(2, entry) for entry in entries), kind)

    def loop(self, *, variable: str = "t", accumulator: str = "@result", more: bytes = b"", **parts: bytes) -> bytes:
        """The expansion of `resource.tags.all(t, true)`, with other parts in place of some."""
        source = parts.get("source") or self.field("tags", TEXTS)
        initial = parts.get("initial") or self.constant(True)
        condition = parts.get("condition") or self.call("not_strictly_false", self.name("@result", BOOL))
        step = parts.get("step") or self.call("logical_and", self.name("@result", BOOL), self.constant(True))
        result = parts.get("result") or self.name("@result", BOOL)
        nodes = zip((2, 4, 5, 6, 7), (source, initial, condition, step, result), strict=True)
        body = part(1, variable) + part(3, accumulator) + b"".join(part(n, node) for n, node in nodes) + more
        return self.node(9, body, parts.get("kind", BOOL))

    def finished(self, root: bytes, *, url: str = "type.googleapis.com/cel.expr.CheckedExpr") -> bytes:
        positions = b"".join(part(4, part(1, n) + part(2, n)) for n in range(1, self.count + 1))
        references = b"".join(part(2, part(1, n) + part(2, value)) for n, value in self.references.items())
        types = b"".join(part(3, part(1, n) + part(2, value)) for n, value in self.types.items())
        return part(1, url) + part(2, references + types + part(4, root) + part(5, positions))


Build = Callable[[Building], bytes]


def decoded(build: Build) -> str:
    building = Building()
    return render(decode_checked(building.finished(build(building))))


GOOD: dict[str, tuple[Build, str]] = {
    "a bool": (lambda b: b.constant(True), "true"),
    "false": (lambda b: b.constant(False), "false"),
    "a negative number": (lambda b: b.constant(2**64 - 1), "-1"),
    "text": (lambda b: b.constant("é"), '"é"'),
    "a field": (lambda b: b.field("flag", BOOL), "resource.flag"),
    "a test of presence": (lambda b: b.field("flag", BOOL, part(3, 1)), "has(resource.flag)"),
    "a call": (lambda b: b.call("logical_not", b.field("flag", BOOL)), "!resource.flag"),
    "calls of one kind": (
        lambda b: b.call(
            "logical_and", b.field("a", BOOL), b.call("logical_and", b.field("b", BOOL), b.field("c", BOOL))
        ),
        "resource.a && resource.b && resource.c",
    ),
    "a conversion to itself": (
        lambda b: b.call("bool_to_bool", b.field("flag", BOOL)),
        "resource.flag",
    ),
    "a zone": (
        lambda b: b.call("timestamp_to_hours_with_tz", b.name("now", TIME), b.constant("+02:00"), kind=INT),
        'now.getHours("+02:00")',
    ),
    "a list": (lambda b: b.items(b.field("team", TEXT), kind=TEXTS), "[resource.team]"),
    "an empty list": (lambda b: b.items(kind=list_type(DYN)), "[]"),
    "a map": (
        lambda b: b.entries(part(3, b.field("team", TEXT)) + part(4, b.field("gpus", INT)), kind=SIZES),
        "{resource.team: resource.gpus}",
    ),
    "an empty map": (lambda b: b.entries(kind=map_type(DYN, DYN)), "{}"),
    "a macro": (lambda b: b.loop(), "resource.tags.all(t, true)"),
    "a macro that counts": (lambda b: counted(b), "resource.tags.exists_one(t, true)"),
    "a macro that collects": (lambda b: collected(b), 'resource.tags.map(t, "x")'),
    "a macro that collects some": (
        lambda b: collected(b, guard=b.constant(True)),
        'resource.tags.map(t, true, "x")',
    ),
    "a macro that selects": (
        lambda b: collected(b, guard=b.constant(True), added=b.items(b.name("t", TEXT), kind=TEXTS)),
        "resource.tags.filter(t, true)",
    ),
}


@pytest.mark.parametrize(("build", "text"), GOOD.values(), ids=GOOD)
def test_what_the_checker_writes_is_read(build: Build, text: str) -> None:
    """The twins: one of each kind of node."""
    assert decoded(build) == text


def step(b: Building, function: str, *arguments: bytes, kind: bytes = BOOL) -> bytes:
    return b.call(function, b.name("@result", kind), *arguments, kind=kind)


def counted(b: Building, *, by: int = 1, otherwise: bytes = b"", **parts: bytes) -> bytes:
    """The expansion of `resource.tags.exists_one(t, true)`."""
    more = step(b, "add_int64", b.constant(by), kind=INT)
    choice = b.call("conditional", b.constant(True), more, otherwise or b.name("@result", INT), kind=INT)
    one = b.call("equals", b.name("@result", INT), b.constant(1))
    defaults: dict[str, Any] = {"initial": b.constant(0), "condition": b.constant(True), "step": choice, "result": one}
    return b.loop(**{**defaults, **parts})


def collected(b: Building, *, added: bytes = b"", guard: bytes = b"", otherwise: bytes = b"", **parts: bytes) -> bytes:
    """The expansion of `resource.tags.map(t, "x")`, with a guard where one is given."""
    more = step(b, "add_list", added or b.items(b.constant("x"), kind=TEXTS), kind=TEXTS)
    if guard:
        more = b.call("conditional", guard, more, otherwise or b.name("@result", TEXTS), kind=TEXTS)
    defaults: dict[str, Any] = {
        "initial": b.items(kind=TEXTS),
        "condition": b.constant(True),
        "step": more,
        "result": b.name("@result", TEXTS),
        "kind": TEXTS,
    }
    return b.loop(**{**defaults, **parts})


BAD: dict[str, tuple[Build, str]] = {
    "null": (lambda b: b.node(3, part(1, 0), None), "null is outside the profile"),
    "an unsigned number": (lambda b: b.node(3, part(4, 1), None), "an unsigned integer is outside"),
    "a floating-point number": (lambda b: b.node(3, b"\x29" + b"\0" * 8, None), "a floating-point number is outside"),
    "bytes": (lambda b: b.node(3, part(7, b"x"), None), "bytes is outside"),
    "a literal of two values": (lambda b: b.node(3, part(2, 1) + part(3, 1), None), "a literal without one value"),
    "a literal of no value": (lambda b: b.node(3, b"", None), "a literal without one value"),
    "a bool of bytes": (lambda b: b.node(3, part(2, b"x"), None), "a literal of unknown kind"),
    "a number of bytes": (lambda b: b.node(3, part(3, b"x"), None), "a literal of unknown kind"),
    "a text of a number": (lambda b: b.node(3, part(6, 1), None), "a literal of unknown kind"),
    "a literal of tomorrow": (lambda b: b.node(3, part(9, b"x"), None), "a literal of unknown kind"),
    "text that is no text": (lambda b: b.node(3, part(6, b"\xff"), None), "text is not UTF-8"),
    "an unknown name": (lambda b: b.name("ghost", BOOL), "unknown name `ghost`"),
    "a name without a type": (lambda b: b.node(4, part(1, "action"), None), "a node without a type"),
    "a selection without a name": (lambda b: b.field("", BOOL), "a selection without a name"),
    "a node of two kinds": (lambda b: b.constant(True) + part(4, part(1, "action")), "a node of unknown kind"),
    "a node of no kind": (lambda _: part(2, 1), "a node of unknown kind"),
    "a node with a field of tomorrow": (lambda b: b.constant(True) + part(12, 1), "unknown field 12"),
    "a node of a number": (lambda _: part(2, 1) + part(3, 7), "field 3 is an integer"),
    "a number of bytes for a node": (lambda _: part(2, b"x") + part(3, part(2, 1)), "field 2 is no integer"),
    "a call of no overload": (lambda b: b.node(6, part(2, "f"), BOOL), "a value of any type is outside"),
    "a function outside the profile": (lambda b: b.call("system", b.constant("x")), "`f` is outside the profile"),
    "a call of other types": (lambda b: b.call("logical_not", b.constant(1)), "`logical_not` of other types"),
    "a call of another result": (
        lambda b: b.call("logical_not", b.constant(True), kind=INT),
        "`logical_not` of other types",
    ),
    "a comparison of records": (
        lambda b: b.call("equals", b.field("code", CODE), b.field("code", CODE)),
        "records (`code`) cannot be compared",
    ),
    "records that differ": (
        lambda b: b.call("not_equals", b.field("code", CODE), b.field("code", CODE)),
        "records (`code`) cannot be compared",
    ),
    "a record in a list": (
        lambda b: b.call("in_list", b.field("code", CODE), b.field("codes", list_type(CODE))),
        "records (`code`) cannot be compared",
    ),
    "a zone by name": (
        lambda b: b.call("timestamp_to_hours_with_tz", b.name("now", TIME), b.constant("Europe/Berlin"), kind=INT),
        "a time zone is `UTC` or an offset",
    ),
    "a zone of the request": (
        lambda b: b.call("timestamp_to_hours_with_tz", b.name("now", TIME), b.field("team", TEXT), kind=INT),
        "a time zone is `UTC` or an offset",
    ),
    "an entity as an operand": (
        lambda b: b.call("equals", b.name("resource", named_type("resource_job")), b.constant(1)),
        "`resource` is no value by itself",
    ),
    "an entity in a list": (
        lambda b: b.items(b.name("subject", named_type("subject")), kind=TEXTS),
        "`subject` is no value by itself",
    ),
    "an optional element": (lambda b: b.items(b.constant("a"), kind=TEXTS, more=part(2, 0)), "optional elements"),
    "a list of another type": (lambda b: b.items(b.constant("a"), kind=TEXT), "a list of another type"),
    "a list of any type": (lambda b: b.items(b.constant("a"), kind=list_type(DYN)), "a value of any type is outside"),
    "a record that is built": (lambda b: b.entries(kind=SIZES, more=part(1, "job")), "building a record"),
    "a map of another type": (lambda b: b.entries(kind=TEXT), "a map of another type"),
    "an optional entry": (
        lambda b: b.entries(part(3, b.constant("a")) + part(4, b.constant(1)) + part(5, 1), kind=SIZES),
        "optional entries",
    ),
    "a field for a key": (
        lambda b: b.entries(part(2, "a") + part(4, b.constant(1)), kind=SIZES),
        "optional entries",
    ),
    "a key that is a number": (
        lambda b: b.entries(part(3, b.constant(1)) + part(4, b.constant(1)), kind=SIZES),
        "a key of a map is text",
    ),
    "a map by numbers": (lambda b: b.field("m", map_type(INT, INT)), "a key of a map is text"),
    "a type outside the profile": (lambda b: b.field("x", DOUBLE), "a floating-point number is outside"),
    "a list of a type outside": (lambda b: b.field("x", list_type(DOUBLE)), "a floating-point number is outside"),
    "a map of a type outside": (lambda b: b.field("x", map_type(TEXT, DOUBLE)), "a floating-point number is outside"),
    "a map by a type outside": (lambda b: b.field("x", map_type(DOUBLE, INT)), "a floating-point number is outside"),
    "an empty list of a type outside": (lambda b: b.items(kind=list_type(DOUBLE)), "a floating-point number is outs"),
    "a macro of two variables": (lambda b: b.loop(more=part(8, "u")), "macros of two variables"),
    "a macro that hides the request": (lambda b: b.loop(variable="resource"), "`resource` is taken"),
    "a macro whose variable is no name": (lambda b: b.loop(variable="@t"), "a macro of unknown kind"),
    "a macro of another accumulator": (lambda b: b.loop(accumulator="@other"), "a macro of unknown kind"),
    "a macro over an entity": (
        lambda b: b.loop(source=b.name("resource", named_type("resource_job"))),
        "`resource` is no value by itself",
    ),
    "a macro's accumulator outside it": (lambda b: b.name("@result", BOOL), "unknown name `@result`"),
    "a macro's step outside it": (
        lambda b: b.call("not_strictly_false", b.constant(True)),
        "a part of a macro outside",
    ),
    "a macro that names its accumulator": (
        lambda b: b.loop(step=step(b, "logical_and", b.name("@result", BOOL))),
        "a part of a macro outside one",
    ),
    "an all that begins as exists": (lambda b: b.loop(initial=b.constant(False)), "a macro of unknown kind"),
    "an all with a step of exists": (
        lambda b: b.loop(step=step(b, "logical_or", b.constant(True))),
        "a macro of unknown kind",
    ),
    "an all that gives another result": (lambda b: b.loop(result=b.constant(True)), "a macro of unknown kind"),
    "an all that goes on for ever": (lambda b: b.loop(condition=b.constant(True)), "a macro of unknown kind"),
    "an all with a step that forgets": (
        lambda b: b.loop(step=b.call("logical_and", b.constant(True), b.constant(True))),
        "a macro of unknown kind",
    ),
    "an all that goes on by another call": (
        lambda b: b.loop(condition=b.call("logical_not", b.constant(False))),
        "a macro of unknown kind",
    ),
    "an exists that goes on by another call": (
        lambda b: b.loop(
            initial=b.constant(False),
            condition=b.call("logical_not", b.constant(False)),
            step=step(b, "logical_or", b.constant(True)),
        ),
        "a macro of unknown kind",
    ),
    "an all that adds to its variable": (
        lambda b: b.loop(step=b.call("logical_and", b.name("t", BOOL), b.constant(True))),
        "a macro of unknown kind",
    ),
    "an all that gives its variable": (lambda b: b.loop(result=b.name("t", BOOL)), "a macro of unknown kind"),
    "a count that begins at one": (lambda b: counted(b, initial=b.constant(1)), "a macro of unknown kind"),
    "a count that goes on by a test": (
        lambda b: counted(b, condition=b.call("not_strictly_false", b.constant(True))),
        "a macro of unknown kind",
    ),
    "a count by two": (lambda b: counted(b, by=2), "a macro of unknown kind"),
    "a count that forgets": (lambda b: counted(b, otherwise=b.constant(0)), "a macro of unknown kind"),
    "a count to two": (
        lambda b: counted(b, result=b.call("equals", b.name("@result", INT), b.constant(2))),
        "a macro of unknown kind",
    ),
    "a count without a choice": (
        lambda b: counted(b, step=step(b, "add_int64", b.constant(1), kind=INT)),
        "a macro of unknown kind",
    ),
    "a list that begins with something": (
        lambda b: collected(b, initial=b.items(b.constant("x"), kind=TEXTS)),
        "a macro of unknown kind",
    ),
    "a list that begins as text": (lambda b: collected(b, initial=b.constant("")), "a macro of unknown kind"),
    "a list that goes on by a test": (
        lambda b: collected(b, condition=b.call("not_strictly_false", b.constant(True))),
        "a macro of unknown kind",
    ),
    "a list of two at once": (
        lambda b: collected(b, added=b.items(b.constant("x"), b.constant("y"), kind=TEXTS)),
        "a macro of unknown kind",
    ),
    "a list of another list": (lambda b: collected(b, added=b.field("tags", TEXTS)), "a macro of unknown kind"),
    "a list that forgets": (
        lambda b: collected(
            b, step=b.call("add_list", b.items(kind=TEXTS), b.items(b.constant("x"), kind=TEXTS), kind=TEXTS)
        ),
        "a macro of unknown kind",
    ),
    "a list that gives another": (lambda b: collected(b, result=b.items(kind=TEXTS)), "a macro of unknown kind"),
    "a count by no call": (lambda b: counted(b, step=b.constant(1)), "a macro of unknown kind"),
    "a list by no call": (lambda b: collected(b, step=b.constant("x")), "a macro of unknown kind"),
    "a list that is compared": (
        lambda b: collected(
            b, step=b.call("equals", b.name("@result", TEXTS), b.items(b.constant("x"), kind=TEXTS)), kind=BOOL
        ),
        "a macro of unknown kind",
    ),
    "a list by another call": (
        lambda b: collected(
            b, step=b.call("index_list", b.field("lists", list_type(TEXTS)), b.constant(0), kind=TEXTS)
        ),
        "a macro of unknown kind",
    ),
    "a filter that forgets": (
        lambda b: collected(b, guard=b.constant(True), otherwise=b.items(kind=TEXTS)),
        "a macro of unknown kind",
    ),
    "a step that is no call": (lambda b: b.loop(step=b.constant(True)), "a macro of unknown kind"),
}


@pytest.mark.parametrize(("build", "words"), BAD.values(), ids=BAD)
def test_what_the_checker_never_writes_is_refused_by_name(build: Build, words: str) -> None:
    """INVARIANT I6: `ProfileError` and nothing else, whatever the bytes."""
    with pytest.raises(ProfileError) as refusal:
        decoded(build)
    assert words in refusal.value.message


def test_a_condition_is_as_deep_and_as_long_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the bounds it is read, beyond them it is not."""
    monkeypatch.setattr(decoding, "MAX_NODES", 200)

    def nested(b: Building, depth: int) -> bytes:
        return b.call("logical_not", nested(b, depth - 1)) if depth > 1 else b.field("x", BOOL)

    def long(b: Building, count: int) -> bytes:
        return b.items(*[b.constant("a") for _ in range(count - 1)], kind=TEXTS)

    assert decoded(lambda b: nested(b, MAX_DEPTH - 1))
    assert decoded(lambda b: long(b, 200))
    for build in (lambda b: nested(b, MAX_DEPTH), lambda b: long(b, 201)):
        with pytest.raises(ProfileError, match="nested too deeply or too long"):
            decoded(build)


def test_another_message_is_no_condition() -> None:
    """Another type of message, more bytes than a condition has, an envelope with a field of tomorrow."""
    building = Building()
    root = building.constant(True)
    for data, words in (
        (building.finished(root, url="type.googleapis.com/cel.expr.ParsedExpr"), "not a checked expression"),
        (building.finished(root) + part(3, b""), "unknown field 3"),
        (b"\0" * (MAX_BYTES + 1), f"expected at most {MAX_BYTES}"),
        (b"\0" * MAX_BYTES, "field number 0"),
    ):
        with pytest.raises(ProfileError, match=words):
            decode_checked(data)


def test_bytes_are_read_as_the_wire_format_says() -> None:
    """Each kind of field, and numbers of 64 bits to their last."""
    assert wire.fields(part(1, 2**64 - 1) + part(2, b"ab") + b"\x1d" + b"abcd" + b"\x21" + b"abcdefgh") == [
        (1, 2**64 - 1),
        (2, b"ab"),
        (3, b"abcd"),
        (4, b"abcdefgh"),
    ]
    assert [wire.signed(value) for value in (0, 2**63 - 1, 2**63, 2**64 - 1)] == [0, 2**63 - 1, -(2**63), -1]
    assert wire.varint(b"\x80" * 9 + b"\x01", 0) == (1 << 63, 10)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x00\x00", "field number 0"),
        (b"\x0b", "wire type 3"),
        (b"\x08", "a varint does not end"),
        (b"\x08" + b"\x80" * 10 + b"\x00", "a varint does not end"),
        (b"\x0a\x02a", "ends inside a field"),
        (b"\x0d" + b"abc", "ends inside a field"),
        (b"\x09" + b"abcdefg", "ends inside a field"),
    ],
    ids=["number 0", "a group", "no end", "no end in 64 bits", "short bytes", "short 32 bits", "short 64 bits"],
)
def test_bytes_that_are_no_message_are_refused(data: bytes, words: str) -> None:
    """Nothing is read beyond the end."""
    with pytest.raises(ProfileError, match=words):
        wire.fields(data)
    with pytest.raises(ProfileError, match="field 1 is an integer"):
        wire.Message(part(1, b"a") + part(1, 1), (1,)).repeated(1)
