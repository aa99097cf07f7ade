"""A stored condition is typed again when it loads: each node one step from what the checker gives is refused."""

from __future__ import annotations

from typing import Any

import pytest

from policyguard.conditions.problems import ProfileError
from policyguard.conditions.times import MAX_DURATION, MAX_TIMESTAMP, MIN_TIMESTAMP
from policyguard.conditions.wellformed import MAX_DEPTH, MAX_NODES, check_shape, is_constant, is_text
from policyguard.model.expression import (
    Call,
    Constant,
    Expression,
    Has,
    Hole,
    ListOf,
    MapOf,
    Quantifier,
    Select,
    Variable,
)
from policyguard.values import MAX_INTEGER

TRUE, ONE, WORD = Constant(True, "bool"), Constant(1, "int"), Constant("a", "string")
RESOURCE = Variable("resource", "resource")


def read(name: str, kind: str) -> Select:
    return Select(RESOURCE, name, kind)


def equal(left: Expression, right: Expression) -> Call:
    return Call("equals", (left, right), "bool")


def both(*parts: Expression) -> Call:
    return Call("logical_and", parts, "bool")


TEXTS, SIZES, REFS = read("tags", "list(string)"), read("sizes", "map(string, int)"), read("refs", "list(ref)")


def macro(kind: Any = "all", *, over: Expression = TEXTS, **changes: Any) -> Quantifier:
    parts = {"variable": "t", "body": equal(Variable("t", "string"), WORD), "type": "bool", "condition": None}
    return Quantifier(kind=kind, range=over, **{**parts, **changes})


def nested(depth: int) -> Expression:
    return Call("logical_not", (nested(depth - 1),), "bool") if depth > 1 else TRUE


def listed(kind: str, *elements: Expression) -> ListOf:
    return ListOf(elements, f"list({kind})")


def mapped(kind: str, *entries: tuple[Expression, Expression]) -> MapOf:
    return MapOf(entries, f"map({kind})")


EMPTY, NOTHING = listed("dyn"), mapped("dyn, dyn")

GOOD: dict[str, Expression] = {
    "a constant": TRUE,
    "a field": read("flag", "bool"),
    "a field of a record": Select(read("code", "code"), "dirty", "bool"),
    "a field that may be there": Has(read("code", "code"), "commit"),
    "an entry of a map": equal(Select(SIZES, "a", "int"), ONE),
    "an entry that may be there": Has(SIZES, "a"),
    "an element": equal(Call("index_list", (TEXTS, ONE), "string"), WORD),
    "an entry by key": equal(Call("index_map", (SIZES, WORD), "int"), ONE),
    "in a list": Call("in_list", (WORD, TEXTS), "bool"),
    "in an empty list": Call("in_list", (WORD, EMPTY), "bool"),
    "in a map": Call("in_map", (WORD, SIZES), "bool"),
    "lists that are equal": equal(TEXTS, listed("string", WORD)),
    "a list that is empty": equal(TEXTS, EMPTY),
    "a map that is empty": equal(SIZES, NOTHING),
    "a map of lists": equal(mapped("string, list(int)", (WORD, EMPTY)), NOTHING),
    "lists that are joined": equal(Call("add_list", (TEXTS, EMPTY), "list(string)"), TEXTS),
    "a choice": Call("conditional", (TRUE, TRUE, TRUE), "bool"),
    "a choice of lists": equal(Call("conditional", (TRUE, TEXTS, EMPTY), "list(string)"), TEXTS),
    "a macro over a list": macro(),
    "a macro over the keys of a map": macro("exists", over=SIZES),
    "a macro in a macro": macro(body=macro(variable="u", body=equal(Variable("t", "string"), Variable("u", "string")))),
    "a filter": equal(macro("filter", type="list(string)"), TEXTS),
    "a map of some": equal(macro("map", body=ONE, condition=TRUE, type="list(int)"), listed("int", ONE)),
    "a macro over records": macro(over=REFS, body=equal(Select(Variable("t", "ref"), "name", "string"), WORD)),
    "two holes": both(equal(Hole(0, "int"), ONE), equal(Hole(1, "list(string)"), TEXTS)),
    "a hole twice": both(equal(Hole(0, "int"), ONE), equal(Hole(0, "int"), ONE)),
    "the action and the time": both(
        equal(Variable("action", "string"), WORD), equal(Variable("now", "timestamp"), Variable("now", "timestamp"))
    ),
    "as deep as may be": nested(MAX_DEPTH),
    "as many nodes as may be": both(*(TRUE,) * (MAX_NODES - 1)),
    "the last integer": equal(Constant(2**63 - 1, "int"), Constant(-(2**63), "int")),
}


@pytest.mark.parametrize("expression", GOOD.values(), ids=GOOD)
def test_what_the_checker_gives_passes(expression: Expression) -> None:
    """The twins of everything below."""
    assert check_shape(expression)


def test_what_a_condition_reads_and_its_holes_are_listed() -> None:
    """Of entities and records, with the types; of maps nothing, because no schema names their keys."""
    checked = check_shape(
        both(
            Has(read("code", "code"), "commit"),
            equal(Select(SIZES, "a", "int"), Hole(1, "int")),
            Call("in_list", (Hole(0, "string"), EMPTY), "bool"),
        )
    )
    assert checked.fields == {
        ("resource", "code", "code"),
        ("code", "commit", ""),
        ("resource", "sizes", "map(string, int)"),
    }
    assert checked.holes == ("string", "int")


BAD: dict[str, tuple[Expression, str]] = {
    "a number": (ONE, "a condition is a bool"),
    "a hole that is left out": (equal(Hole(1, "int"), ONE), "numbered from 0"),
    "a hole below zero": (equal(Hole(-1, "int"), ONE), "numbered from 0"),
    "a hole of two types": (both(equal(Hole(0, "int"), ONE), equal(Hole(0, "string"), WORD)), "has one type"),
    "a hole for a bool": (equal(Hole(0, "bool"), TRUE), "a hole is for a constant"),
    "a hole for bools": (equal(Hole(0, "list(bool)"), EMPTY), "a hole is for a constant"),
    "a hole for a list without end": (equal(Hole(0, "list(int"), EMPTY), "a hole is for a constant"),
    "a hole for a record": (equal(Hole(0, "code"), EMPTY), "a hole is for a constant"),
    "deeper than may be": (nested(MAX_DEPTH + 1), "nested too deeply"),
    "more nodes than may be": (both(*(TRUE,) * MAX_NODES), "nor too long"),
    "a type with a line end": (Constant(True, "bool\n"), "a type and an offset"),
    "an offset in text": (Constant(True, "bool", "0"), "a type and an offset"),  # type: ignore[arg-type]
    "an entity as a value": (equal(RESOURCE, RESOURCE), "an entity is no value"),
    "an entity in a list": (macro(over=listed("resource", RESOURCE)), "an entity is no value"),
    "an entity in a map": (macro(over=mapped("string, resource", (WORD, RESOURCE))), "an entity is no value"),
    "a number for a bool": (Constant(1, "bool"), "a constant is of its type"),
    "a bool for a number": (equal(Constant(True, "int"), ONE), "a constant is of its type"),
    "a number beyond 64 bits": (equal(Constant(2**63, "int"), ONE), "a constant is of its type"),
    "a number below 64 bits": (equal(Constant(-(2**63) - 1, "int"), ONE), "a constant is of its type"),
    "a lone surrogate": (equal(Constant("\ud800", "string"), WORD), "a constant is of its type"),
    "a record for a constant": (equal(Constant(1, "code"), ONE), "a constant is of its type"),
    "an unknown variable": (Variable("x", "bool"), "a variable `x`"),
    "a variable of another type": (Variable("action", "bool"), "a variable `action`"),
    "a variable outside its macro": (both(macro(), equal(Variable("t", "string"), WORD)), "a variable `t`"),
    "a field without a name": (read("", "bool"), "a field has a name"),
    "a field of a text": (Has(WORD, "x"), "not to `string`"),
    "a field of a list": (Has(TEXTS, "x"), "not to `list(string)`"),
    "an entry of another type": (Select(SIZES, "a", "bool"), "a value of `map(string, int)`"),
    "an operand of another type": (Call("logical_not", (ONE,), "bool"), "`logical_not` has operands"),
    "a result of another type": (Call("logical_not", (TRUE,), "int"), "`logical_not` has operands"),
    "an operand too few": (Call("logical_and", (TRUE,), "bool"), "`logical_and` has operands"),
    "an operand too many": (Call("logical_not", (TRUE, TRUE), "bool"), "`logical_not` has operands"),
    "a number of text": (Call("add_int64", (ONE, WORD), "int"), "`add_int64` has operands"),
    "unlike sides": (equal(ONE, WORD), "`equals` has operands"),
    "unlike sides that differ": (Call("not_equals", (TRUE, WORD), "bool"), "`not_equals` has operands"),
    "lists of unlike elements": (equal(TEXTS, listed("int", ONE)), "`equals` has operands"),
    "maps of unlike keys": (equal(mapped("int, int"), mapped("string, int")), "`equals` has operands"),
    "an empty map of unlike values": (equal(mapped("dyn, int"), mapped("string, bool")), "`equals` has operands"),
    "a list whose type does not end": (equal(read("x", "list(dynx"), TEXTS), "`equals` has operands"),
    "another list whose type does not end": (equal(TEXTS, read("x", "list(dynx")), "`equals` has operands"),
    "a list and a map": (equal(TEXTS, SIZES), "`equals` has operands"),
    "an empty list and a map": (equal(EMPTY, SIZES), "`equals` has operands"),
    "records that are compared": (equal(read("code", "code"), read("code", "code")), "`equals` has operands"),
    "lists of records": (equal(REFS, REFS), "`equals` has operands"),
    "maps of records": (equal(read("m", "map(string, ref)"), read("m", "map(string, ref)")), "`equals` has operands"),
    "a number in texts": (Call("in_list", (ONE, TEXTS), "bool"), "`in_list` has operands"),
    "a record in a list": (Call("in_list", (read("ref", "ref"), REFS), "bool"), "`in_list` has operands"),
    "a number in a map": (Call("in_map", (ONE, SIZES), "bool"), "`in_map` has operands"),
    "an element of another type": (Call("index_list", (TEXTS, ONE), "bool"), "`index_list` has operands"),
    "an entry by key of another type": (Call("index_map", (SIZES, WORD), "bool"), "`index_map` has operands"),
    "a choice of unlike ends": (Call("conditional", (TRUE, TRUE, ONE), "bool"), "`conditional` has operands"),
    "a choice of an unlike beginning": (Call("conditional", (TRUE, ONE, TRUE), "bool"), "`conditional` has operands"),
    "lists that are joined unlike": (
        equal(Call("add_list", (TEXTS, listed("int", ONE)), "list(string)"), TEXTS),
        "`add_list` has operands",
    ),
    "unlike lists that are joined": (
        equal(Call("add_list", (listed("int", ONE), TEXTS), "list(string)"), TEXTS),
        "`add_list` has operands",
    ),
    "a list that is none": (macro(over=ListOf((WORD,), "string")), "a list is a list"),
    "a list of unlike elements": (equal(listed("string", WORD, ONE), TEXTS), "the elements of `list(string)`"),
    "a map that is none": (macro(over=MapOf((), "string")), "a map is a map"),
    "a map by numbers": (equal(mapped("string, int", (ONE, ONE)), SIZES), "the entries of `map(string, int)`"),
    "a map of unlike values": (equal(mapped("string, int", (WORD, WORD)), SIZES), "the entries of `map(string, int)`"),
    "a macro over a text": (macro(over=WORD), "runs over a list or a map"),
    "a macro over a record": (macro(over=read("code", "code")), "runs over a list or a map"),
    "a macro whose variable is no name": (macro(variable="a b"), "a name for the variable"),
    "a macro whose variable hides the request": (macro(variable="resource", body=TRUE), "a name for the variable"),
    "a macro that is no test": (macro(body=ONE), "`all` has a body and a result"),
    "a macro of another result": (macro(type="list(string)"), "`all` has a body and a result"),
    "a filter of another result": (macro("filter", type="list(int)"), "`filter` has a body and a result"),
    "a filter by a number": (macro("filter", body=ONE, type="list(string)"), "`filter` has a body and a result"),
    "a map of another result": (macro("map", type="list(int)"), "`map` has a body and a result"),
    "a filter of a test": (macro(condition=TRUE), "only `map` has a filter"),
    "a filter that is no test": (macro("map", condition=ONE, type="list(bool)"), "only `map` has a filter"),
}


@pytest.mark.parametrize(("expression", "words"), BAD.values(), ids=BAD)
def test_a_node_of_another_make_is_refused(expression: Expression, words: str) -> None:
    """INVARIANT I2: what evaluates only by luck does not load; the message says which rule it breaks."""
    with pytest.raises(ProfileError) as refusal:
        check_shape(expression)
    assert words in refusal.value.message


CONSTANTS: dict[str, tuple[list[object], list[object]]] = {
    "int": ([0, MAX_INTEGER, -MAX_INTEGER], [MAX_INTEGER + 1, -MAX_INTEGER - 1, True, "1", (1,), None]),
    "string": (["", "a", "\u00e9"], ["\ud800", 1, ("a",), None]),
    "timestamp": ([MIN_TIMESTAMP, MAX_TIMESTAMP], [MIN_TIMESTAMP - 1, MAX_TIMESTAMP + 1, True, "0", None]),
    "duration": ([-MAX_DURATION, MAX_DURATION], [-MAX_DURATION - 1, MAX_DURATION + 1, True, None]),
    "list(int)": ([(1,), (0, MAX_INTEGER)], [(), [1], (1, "a"), (1, MAX_INTEGER + 1), 1]),
    "list(string)": ([("a",), ("", "b")], [(), ["a"], ("a", 1), "a", ("\ud800",)]),
    "bool": ([], [True, False, 1]),
    "list(bool)": ([], [(True,)]),
    "code": ([], [1, "a"]),
}


@pytest.mark.parametrize("kind", CONSTANTS)
def test_a_constant_of_a_rule_is_of_the_type_of_its_hole(kind: str) -> None:
    """INVARIANT I3: compiled code relies on the bounds; a bool is part of the shape and never a constant of a rule."""
    good, bad = CONSTANTS[kind]
    assert [value for value in good if not is_constant(value, kind)] == []
    assert [value for value in bad if is_constant(value, kind)] == []


def test_text_is_what_can_be_written() -> None:
    """A lone surrogate could be in no statement."""
    assert [is_text(text) for text in ("", "a", "\u00e9\U0001f600", "\ud800", "a\udfff")] == [True] * 3 + [False] * 2
