"""Compiled code and the exact evaluator where Python and CEL differ, and what the code can reach."""

from __future__ import annotations

import dis
from types import CodeType
from typing import Any

import pytest

from policyguard.conditions.ast import shape
from policyguard.conditions.check import Checker
from policyguard.conditions.codegen import compile_shape
from policyguard.conditions.cost import constant_list
from policyguard.conditions.exact import EvalError, evaluate, trace
from policyguard.conditions.rendering import render
from policyguard.model.expression import Call, Constant, Expression, Variable
from tests.properties.strategies_conditions import NOW, SCHEMA

CHECKER = Checker(SCHEMA)
BIG = 2**53 - 1
RESOURCE: dict[str, Any] = {
    "id": "team/vision/run-1",
    "type": "job",
    "domain": "vision",
    "gpus": 8,
    "nodes": BIG,
    "team": "vision",
    "flag": True,
    "started": NOW - 10**9,
    "limit": 3600 * 10**9,
    "tags": ("a", "b"),
    "nums": (1, 2),
    "labels": {"a": "b"},
    "counts": {"a": 1},
    "checkpoints": ({"format": "pickle", "producer": "bob"}, {"format": "safetensors"}),
    "code": {"dirty": False},
}
SUBJECT = {"id": "user:alice", "type": "user", "level": 3}


def check(text: str) -> Expression:
    return CHECKER.check(text, resource_type="job")


def exactly(text: str) -> Any:
    return evaluate(check(text), SUBJECT, RESOURCE, {}, "job:submit", NOW)


def compiled(text: str) -> Any:
    pattern, constants = shape(check(text))
    return compile_shape(pattern)(SUBJECT, RESOURCE, {}, "job:submit", NOW, constants)


DIFFERENT: list[tuple[str, bool | None]] = [
    ("resource.gpus / -3 == -2", True),
    ("-7 / 2 == -3 && resource.gpus > 0", True),
    ("-7 % 3 == -1 && resource.gpus > 0", True),
    ("resource.gpus % -3 == 2", True),
    ("resource.nodes * resource.nodes > 0", None),
    ("resource.nodes + resource.nodes > 0", True),
    ("resource.nums[-1 * 1 + 0] == 2 || false", None),
    ("resource.nums[resource.gpus] == 2", None),
    ("resource.nums[1] == 2", True),
    ("resource.tags == ['a', 'b']", True),
    ("resource.tags != ['a']", True),
    ("resource.labels == {'a': 'b'}", True),
    ("resource.flag == (resource.gpus == 8)", True),
    ("resource.flag != true", False),
    ("timestamp('0001-01-01T00:00:00Z') - resource.limit < now", None),
    ("resource.started - resource.limit < now", True),
    ("'\U0001f600' > '\uffff' && resource.gpus > 0", True),
    ("resource.team + '\U0001f600' == 'vision\U0001f600' && (resource.team + '\U0001f600').size() == 7", True),
    ("{'a': 1, resource.labels.a: 2} == {'a': 1, 'b': 2}", True),
    ("{'b': 1, resource.labels.a: 2}.b == 2", None),
    ("resource.checkpoints.exists_one(c, c.format == 'pickle')", True),
    ("resource.checkpoints.map(c, c.format) == ['pickle', 'safetensors']", True),
    ("resource.nums.map(n, n > 1, n * 2) == [4]", True),
    ("resource.nums.filter(n, n > 5).size() == 0", True),
    ("resource.labels.all(k, k == 'a')", True),
]


@pytest.mark.parametrize(("text", "expected"), DIFFERENT, ids=[text for text, _ in DIFFERENT])
def test_where_python_differs_the_code_is_guarded(text: str, expected: bool | None) -> None:
    """The CEL result, and where it is an error (None) the code raises."""
    outcome = exactly(text)
    if expected is None:
        assert isinstance(outcome, EvalError)
        with pytest.raises(Exception):  # noqa: B017 - any exception leads to the exact evaluator
            compiled(text)
    else:
        assert outcome is expected
        assert compiled(text) is expected


ABSORBED: list[tuple[str, bool | None]] = [
    ("resource.path == 'x' && resource.gpus > 64", False),
    ("resource.gpus > 64 && resource.path == 'x'", False),
    ("resource.path == 'x' || resource.gpus == 8", True),
    ("resource.path == 'x' && resource.gpus == 8", None),
    ("resource.path == 'x' || resource.gpus > 64", None),
    ("resource.checkpoints.exists(c, c.producer == 'bob')", True),
    ("resource.checkpoints.exists(c, c.producer == 'eve')", None),
    ("resource.checkpoints.all(c, c.producer == 'eve')", False),
    ("resource.checkpoints.all(c, c.producer == 'bob')", None),
    ("resource.checkpoints.exists_one(c, c.producer == 'bob')", None),
    ("!(resource.path == 'x')", None),
    ("resource.path == 'x' ? true : true", None),
    ("resource.gpus == 8 ? true : resource.path == 'x'", True),
    ("has(resource.code.commit) || resource.gpus == 8", True),
]


@pytest.mark.parametrize(("text", "expected"), ABSORBED, ids=[text for text, _ in ABSORBED])
def test_errors_are_absorbed_where_cel_says_and_nowhere_else(text: str, expected: bool | None) -> None:
    """`&&`, `||`, `all`, `exists` absorb an error that cannot matter; the code raises or agrees: INVARIANT I3."""
    outcome = exactly(text)
    assert outcome is expected if expected is not None else isinstance(outcome, EvalError)
    try:
        assert compiled(text) is outcome
    except KeyError:
        assert "path" in text or "producer" in text


def test_an_absent_attribute_is_an_error_with_its_place() -> None:
    """INVARIANT I2: never a default; the message names the path, the offset the dot before the attribute."""
    assert exactly("resource.gpus == 8 && resource.path == 'x'") == EvalError("`resource.path` is absent", 30)


def test_a_value_of_another_type_is_an_error() -> None:
    """The exact evaluator does not trust facts: a bool is no integer, text is no list."""
    expression = check("resource.gpus <= 64")
    for value, words in ((True, "a bool"), ("8", "text"), ((8,), "a list")):
        outcome = evaluate(expression, {}, {"gpus": value}, {}, "job:submit", NOW)
        assert outcome == EvalError(f"`resource.gpus` is {words}, expected an integer", 8)


def test_a_result_that_is_no_bool_is_an_error() -> None:
    """INVARIANT I2: an expression of another type, as corrupt data may hold, is not taken for true."""
    for expression in (Constant(1, "int"), Constant("x", "string"), Variable("action", "string")):
        assert isinstance(evaluate(expression, {}, {}, {}, "job:submit", NOW), EvalError)
    disguised = Call("logical_or", (Constant(1, "int"), Constant(False, "bool")), "bool")
    assert isinstance(evaluate(disguised, {}, {}, {}, "job:submit", NOW), EvalError)


def test_an_error_is_no_truth_value() -> None:
    """`if evaluate(...)` fails loudly in place of granting."""
    with pytest.raises(TypeError, match="not a truth value"):
        bool(EvalError("x"))


def _codes(code: CodeType) -> list[CodeType]:
    return [code, *(inner for each in code.co_consts if isinstance(each, CodeType) for inner in _codes(each))]


def test_compiled_code_reaches_nothing_but_its_functions() -> None:
    """INVARIANT I7: no builtins, no import, no attribute but two text methods, no store beyond its own variables."""
    text = " && ".join(text for text, _ in (*DIFFERENT, *ABSORBED))
    run: Any = compile_shape(check(text))
    assert run.__globals__["__builtins__"] == {}
    for code in _codes(run.__code__):
        for instruction in dis.get_instructions(code):
            assert not instruction.opname.startswith(("IMPORT", "STORE_GLOBAL", "STORE_ATTR", "DELETE"))
            if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                assert instruction.argval in ("startswith", "endswith")


CALLED = {
    "resource.gpus + 1 < 9 && resource.nodes - 1 > 0": "",
    "resource.gpus * 2 == 16": "multiply_int64",
    "resource.team + 'x' == 'visionx'": "",
    "resource.flag == true && resource.team != 'x' && now > resource.started": "",
    "resource.team in ['vision', 'x'] && 'a' in resource.labels && resource.labels['a'] == 'b'": "",
    "resource.team.contains('is') && resource.team.startsWith('v') && resource.team.endsWith('n')": "",
    "size(resource.tags) == 2 && has(resource.code.dirty) && !resource.code.dirty": "len",
    "resource.flag ? resource.gpus == 8 : false": "",
    "size(resource.tags) + size(resource.tags) == 4": "len",
    "resource.gpus * resource.gpus * resource.gpus > 0": "multiply_int64",
    "resource.nums.map(n, n * 2).all(n, n + n > 0)": "add_int64 multiply_int64 new_budget tuple visit",
    "resource.nums.all(n, n + n > 0)": "within",
    "{'k': resource.gpus}.k + 1 == 9": "add_int64 distinct",
    "resource.tags == ['a', 'b'] || resource.tags != ['a']": "equals not_equals",
    "resource.tags[0] == 'a'": "index_list",
    "resource.team.matches('^vis')": "matches",
    "true in [resource.flag]": "in_list",
    "resource.tags.all(t, t == 'a' || t == 'b')": "within",
    "resource.gpus > 9 || resource.tags.exists(t, t == 'b')": "any within",
    "resource.gpus > 9 || resource.tags.all(t, t != 'c')": "all within",
    "resource.tags.exists_one(t, t == 'a')": "sum within",
    "resource.tags.exists(t, t in ['a', 'b'])": "within",
    "resource.nums.all(n, n in resource.nums)": "is_member new_budget visit",
    "resource.tags.all(t, t in [" + ", ".join(f"'{letter}'" for letter in "abcdefghijklmnopqrs") + "])": "within",
    "resource.tags.all(t, resource.team.contains(t) || true)": "charged new_budget visit",
    "resource.tags.all(t, true) && resource.nums.exists(n, n > 0)": "new_budget visit",
}


@pytest.mark.parametrize(("text", "names"), CALLED.items(), ids=CALLED)
def test_only_what_python_computes_otherwise_is_called(text: str, names: str) -> None:
    """Facts are within 2^53 - 1, so that their sums need no check; what is computed from others does, and costs."""
    pattern, constants = shape(check(text))
    run: Any = compile_shape(pattern)
    held = tuple(constant_list(value) if isinstance(value, tuple) else value for value in constants)
    assert run(SUBJECT, RESOURCE, {}, "job:submit", NOW, held) is exactly(text)
    assert called(run) == names


def called(run: Any) -> str:
    instructions = [instruction for code in _codes(run.__code__) for instruction in dis.get_instructions(code)]
    return " ".join(sorted({each.argval for each in instructions if each.opname == "LOAD_GLOBAL"}))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("resource.gpus * 1024 + 1023 > 0", ""),
        ("resource.gpus * 1024 + 1024 > 0", "add_int64"),
        ("resource.gpus * 1025 > 0", "multiply_int64"),
        ("resource.gpus * 1024 - 1023 - 1 > 0", "subtract_int64"),
        ("size(resource.tags) * 1024 > 0", "len"),
        ("resource.gpus / 2 + 1 > 0", "add_int64 divide"),
    ],
)
def test_a_sum_is_checked_from_the_first_one_that_could_overflow_on(text: str, names: str) -> None:
    """Facts of 2^53 - 1 and the constants of the condition itself, to the last bit of 64."""
    assert called(compile_shape(check(text))).replace("divide_int64", "divide") == names


def test_text_in_a_condition_never_becomes_code() -> None:
    """INVARIANT I7: quotes, names and dunders in literals and fields stay data."""
    text = "resource.team == '__import__(\"os\").system(\"x\")' || resource.labels['__class__'] == 'y'"
    pattern, constants = shape(check(text))
    assert constants == ('__import__("os").system("x")', "__class__", "y")
    run = compile_shape(pattern)
    assert run({}, {"team": constants[0], "labels": {}}, {}, "job:submit", NOW, constants) is True


def test_one_function_serves_all_constants_of_a_shape() -> None:
    """Conditions that differ in constants have equal shapes, lists of another length included."""
    one, first = shape(check("resource.gpus <= 64 && resource.team in ['a', 'b'] && resource.flag"))
    two, second = shape(check("resource.gpus <= 7 && resource.team in ['vision'] && resource.flag"))
    assert one == two
    assert hash(one) == hash(two)
    run = compile_shape(one)
    assert run(SUBJECT, RESOURCE, {}, "job:submit", NOW, first) is False
    assert run(SUBJECT, RESOURCE, {}, "job:submit", NOW, (8, ("vision",))) is True
    assert second == (7, ("vision",))


def test_a_trace_shows_each_atom_with_its_outcome() -> None:
    """What decided and what did not; what is absent says so."""
    text = (
        "resource.gpus <= 4 && (resource.path == 'x' || !has(resource.code.commit)) "
        "&& resource.tags.exists(t, t == 'b')"
    )
    found = [
        (render(atom.expression), atom.outcome) for atom in trace(check(text), SUBJECT, RESOURCE, {}, "job:submit", NOW)
    ]
    absent = EvalError("`resource.path` is absent", 31)
    assert found == [
        ("resource.gpus <= 4", False),
        ('resource.path == "x"', absent),
        ("has(resource.code.commit)", False),
        ('resource.tags.exists(t, t == "b")', True),
    ]


def test_one_macro_over_a_long_list_is_no_matter() -> None:
    """100,000 elements, one after the other, in the compiled code."""
    pattern, constants = shape(check("resource.nums.exists(n, n == 99999)"))
    assert compile_shape(pattern)({}, {"nums": tuple(range(100_000))}, {}, "job:submit", NOW, constants) is True
