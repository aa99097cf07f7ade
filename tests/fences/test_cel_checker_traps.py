"""What the CEL checker does that would hurt us, and that it cannot: one test for the trap, one for the hold."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from cel_expr_python import cel

from policyguard.conditions.canonical import canonical_form
from policyguard.conditions.check import Checker
from policyguard.conditions.decoding import decode
from policyguard.conditions.problems import ConditionErrors
from policyguard.model.expression import Call, Constant, Has, walk
from policyguard.model.policy import Attribute, EntityType, Schema, ValueType
from tests.fences.notes import noted

STRING, INT, BOOL = ValueType(kind="string"), ValueType(kind="int"), ValueType(kind="bool")


def attributes(**types: ValueType) -> dict[str, Attribute]:
    return {name: Attribute(name=name, type=kind) for name, kind in types.items()}


SCHEMA = Schema(
    subjects={"user": EntityType(name="user", attributes=attributes(level=INT))},
    resources={
        "job": EntityType(
            name="job",
            attributes=attributes(
                gpus=INT,
                team=STRING,
                tags=ValueType(kind="list", element=STRING),
                checkpoints=ValueType(kind="list", element=ValueType(kind="record", record="ckpt")),
                code=ValueType(kind="record", record="code"),
            ),
        )
    },
    records={"ckpt": attributes(format=STRING), "code": attributes(dirty=BOOL)},
)
CHECKER = Checker(SCHEMA)


def refusal(text: str) -> str:
    with pytest.raises(ConditionErrors) as caught:
        CHECKER.check(text, resource_type="job")
    return str(caught.value)


def dotted(**variables: Any) -> Any:
    return cel.NewEnv(variables={name.replace("__", "."): kind for name, kind in variables.items()})


def test_has_vanishes_on_dotted_variables() -> None:
    """The trap: declared as `resource.gpus`, `has(resource.gpus)` is the plain value, typed int."""
    with noted():
        compiled = dotted(resource__gpus=cel.Type.INT).compile("has(resource.gpus)")
        assert compiled.return_type() == cel.Type.INT
    expression = CHECKER.check("has(resource.gpus)", resource_type="job")
    assert isinstance(expression, Has)
    assert expression.type == "bool"


def test_has_stays_a_test_of_presence_with_message_types() -> None:
    """INVARIANT I2: the hold, `has()` is kept as a node of its own, typed bool, on entities and inside records."""
    for text in ("has(resource.gpus)", "has(resource.code.dirty)", "resource.checkpoints.all(c, has(c.format))"):
        expression = CHECKER.check(text, resource_type="job")
        assert [node.type for node in walk(expression) if isinstance(node, Has)] == ["bool"]


def test_misspelt_fields_of_records_in_lists_are_refused() -> None:
    """The trap: typed as a list of maps, a misspelt field of an element passes the checker. The hold: record types
    are messages, so the typo is an error with its place and what was meant."""
    with noted():
        kind = cel.Type.List(cel.Type.Map(cel.Type.STRING, cel.Type.STRING))
        assert dotted(checkpoints=kind).compile('checkpoints.exists(c, c.formatt == "x")')
    with pytest.raises(ConditionErrors) as caught:
        CHECKER.check('resource.checkpoints.exists(c, c.formatt == "x")', resource_type="job")
    (error,) = caught.value.errors
    assert (error.offset, error.message, error.help, error.code) == (
        33,
        "unknown attribute `formatt` of `ckpt`, expected `format`",
        "did you mean `format`?",
        "PG103",
    )


_SERIALIZE = """
from cel_expr_python import cel
text = '1 + 2 == 3 && [1, 2].exists(x, x > 1) && "a".size() + 1 < 3 && {"a": 1}.a == 1'
print(cel.NewEnv().compile(text).serialize().hex())
"""


def test_serialized_bytes_are_not_compared_but_decoded_trees_are() -> None:
    """The trap: maps are serialized in hash order. The hold: decoded trees are equal, whatever the order."""
    runs = [subprocess.run([sys.executable, "-c", _SERIALIZE], capture_output=True, check=True) for _ in range(4)]
    serialized = [bytes.fromhex(run.stdout.decode().strip()) for run in runs]
    assert len({str(canonical_form(decode(each))) for each in serialized}) == 1


def test_negative_literals_are_one_constant_of_64_signed_bits() -> None:
    """The trap: `-64` arrives as one varint of ten bytes. The hold: it is decoded as signed."""
    expression = CHECKER.check("resource.gpus == -64", resource_type="job")
    assert isinstance(expression, Call)
    assert expression.arguments[1] == Constant(-64, "int")


def test_equality_carries_no_types_and_ours_are_taken_from_the_operands() -> None:
    """The trap: `==` has one overload for all types. The hold: the operands' types decide what may be compared."""
    expression = CHECKER.check("resource.gpus == 1", resource_type="job")
    assert isinstance(expression, Call)
    assert expression.function == "equals"
    assert [argument.type for argument in expression.arguments] == ["int", "int"]
    assert "cannot be compared" in refusal("resource.code == resource.code")
    assert "cannot be compared" in refusal("resource.checkpoints == resource.checkpoints")
    assert "cannot be compared" in refusal("resource.code in [resource.code]")


def test_has_of_an_empty_list_means_present() -> None:
    """The trap: for protobuf a repeated field is there when it is not empty. The hold: ours means present."""
    from policyguard.conditions.codegen import compile_shape
    from policyguard.conditions.exact import evaluate

    expression = CHECKER.check("has(resource.tags)", resource_type="job")
    for resource, expected in (({"tags": ()}, True), ({}, False)):
        assert evaluate(expression, {}, resource, {}, "job:submit", 0) is expected
        assert compile_shape(expression)({}, resource, {}, "job:submit", 0, ()) is expected


ACCEPTED_BY_THE_LIBRARY = {
    '"a".matches("(")': '`"a".matches("(")` always fails: `(` is no regular expression of RE2: missing ): (',
    "1 / 0 == 1": "`1 / 0` always fails: division by zero",
    "1 % 0 == 1": "`1 % 0` always fails: modulus by zero",
    "[1, 2][2] == 1": "`[1, 2][2]` always fails: index 2 is outside a list of 2",
    '{"a": 1}["b"] == 1': '`{"a": 1}["b"]` always fails: there is no key `b`',
    "9007199254740991 * 9007199254740991 > 0": (
        "`9007199254740991 * 9007199254740991` always fails: the integer is beyond 64 bits"
    ),
    "9007199254740992 > 0": "found an integer beyond 2^53 - 1: `9007199254740992`",
    'timestamp("yesterday") < now': (
        '`timestamp("yesterday")` always fails: `yesterday` is no timestamp, expected a time such as '
        "`2026-03-01T09:00:00Z`"
    ),
    'duration("1 day") < duration("2h")': (
        '`duration("1 day")` always fails: `1 day` is no duration, expected one such as `90m`, `1h30m` or `2.5s`'
    ),
    "1.5 < 2.5": "a floating-point number is outside the profile",
    "1u < 2u": "an unsigned integer is outside the profile",
    'b"a" == b"a"': "bytes is outside the profile",
    "null == null": "null is outside the profile",
    "dyn(1) == 1": "a value of any type is outside the profile",
    "type(1) == int": "a type as a value is outside the profile",
    '[1, "a"] == [1]': "a value of any type is outside the profile",
    "{1: 2} == {1: 2}": "a key of a map is text, nothing else",
    'now.getHours("Europe/Berlin") > 1': "a time zone is `UTC` or an offset such as `+02:00`, written out",
}


@pytest.mark.parametrize("text", ACCEPTED_BY_THE_LIBRARY)
def test_what_the_library_accepts_and_we_refuse(text: str) -> None:
    """INVARIANT I6: the library compiles it without a word; here it stops the load, by name."""
    with noted():
        assert dotted(now=cel.Type.TIMESTAMP).compile(text)
    assert refusal(text) == ACCEPTED_BY_THE_LIBRARY[text]


@pytest.mark.parametrize(
    ("text", "wording"),
    [
        ("resource == null", "`resource` is no value by itself"),
        ("resource == resource", "`resource` is no value by itself"),
        ("[subject] == [subject]", "`subject` is no value by itself"),
        ("policyguard.context{} == context", "building a record is outside the profile"),
        ("policyguard.record_code{dirty: true}.dirty", "building a record is outside the profile"),
    ],
)
def test_entities_are_no_values_and_no_message_is_built(text: str, wording: str) -> None:
    """INVARIANT I2: nothing can look at an entity as a whole, so nothing sees that a fact is absent."""
    assert refusal(text) == wording


def test_nesting_and_length_end_in_an_error_not_in_a_crash() -> None:
    """400 parentheses, a long chain and a long text are refused; 1,200 alternatives are fine."""
    assert "nested too deeply" in refusal("(" * 400 + "true" + ")" * 400)
    assert "expected at most" in refusal("resource.gpus == 1 || " * 1000 + "true")
    assert refusal(" + ".join(["resource.gpus"] * 120) + " == 1")
    assert CHECKER.check(" || ".join(["true"] * 1200), resource_type="job").type == "bool"


def test_shapes_do_not_leak_between_types_of_resources() -> None:
    """One text checked for two types is checked twice: what is cached for `job` says nothing about `queue`."""
    schema = Schema(
        subjects={}, resources={**SCHEMA.resources, "queue": EntityType(name="queue")}, records=SCHEMA.records
    )
    checker = Checker(schema)
    assert checker.check("resource.gpus == 1", resource_type="job")
    with pytest.raises(ConditionErrors, match=r"unknown attribute `resource\.gpus`"):
        checker.check("resource.gpus == 2", resource_type="queue")


def test_regular_expressions_are_linear_and_silent(capfd: pytest.CaptureFixture[str]) -> None:
    """`(a+)+$` on 28 characters costs microseconds, and a bad pattern writes nothing to the terminal."""
    from policyguard.conditions.functions import Failure, matches

    assert matches("a" * 28 + "b", "(a+)+$") is False
    with pytest.raises(Failure, match="is no regular expression of RE2"):
        matches("a", "(?=lookahead)")
    assert capfd.readouterr() == ("", "")
