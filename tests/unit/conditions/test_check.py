"""What an author reads when a condition is wrong, where it points, and that equal shapes are judged alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given, settings
from hypothesis import strategies as st

from policyguard.conditions.ast import filled, folded, shape
from policyguard.conditions.check import MAX_TEXT, Checker, _add_message, _compiled
from policyguard.conditions.checker_messages import Names, translate_report
from policyguard.conditions.lexing import rename_ip_in, tokens
from policyguard.conditions.literals import literal_errors
from policyguard.conditions.problems import ConditionError, ConditionErrors
from policyguard.conditions.rendering import render
from policyguard.errors import PolicyErrors
from policyguard.model.expression import Expression, walk
from policyguard.model.policy import Attribute, EntityType, Schema, ValueType
from policyguard.values import Span

INT, STRING, BOOL = ValueType(kind="int"), ValueType(kind="string"), ValueType(kind="bool")


def attributes(**types: ValueType) -> dict[str, Attribute]:
    return {name: Attribute(name=name, type=kind) for name, kind in types.items()}


JOB: Mapping[str, Attribute] = {
    **attributes(
        gpus=INT,
        team=STRING,
        flag=BOOL,
        started=ValueType(kind="timestamp"),
        user_labels=ValueType(kind="map", element=STRING),
        checkpoints=ValueType(kind="list", element=ValueType(kind="record", record="ckpt")),
        tags=ValueType(kind="list", element=STRING),
        a_b=INT,
        aB=INT,
    ),
    "kind": Attribute(name="kind", type=STRING, enum=("train", "eval")),
}
SCHEMA = Schema(
    subjects={
        "user": EntityType(name="user", attributes=attributes(level=INT)),
        "service": EntityType(name="service", attributes=attributes(owner=STRING)),
    },
    resources={"job": EntityType(name="job", attributes=JOB), "queue": EntityType(name="queue")},
    context=attributes(addr=STRING),
    records={
        "ckpt": {
            **attributes(producer=STRING),
            "format": Attribute(name="format", type=STRING, enum=("pickle", "safetensors")),
        }
    },
)
CHECKER = Checker(SCHEMA)
NAMES = Names(SCHEMA, {})


def check(text: str) -> Expression:
    return CHECKER.check(text, resource_type="job")


def errors(text: str) -> tuple[ConditionError, ...]:
    with pytest.raises(ConditionErrors) as caught:
        check(text)
    return caught.value.errors


CASES: list[tuple[str, int, str, str, str | None]] = [
    (
        "resource.gpu <= 64",
        9,
        "PG103",
        (
            "unknown attribute `resource.gpu`, expected one of `aB`, `a_b`, `checkpoints`, `domain`, `flag`, `gpus`, "
            "`id`, `kind`, `started`, `tags`, `team`, `type` and 1 more"
        ),
        "did you mean `gpus`?",
    ),
    (
        "resource.checkpoints.exists(c, c.formt == 'x')",
        33,
        "PG103",
        "unknown attribute `formt` of `ckpt`, expected one of `format`, `producer`",
        "did you mean `format`?",
    ),
    (
        "subject.levle > 1",
        8,
        "PG103",
        "unknown attribute `subject.levle`, expected one of `id`, `level`, `name`, `owner`, `type`",
        "did you mean `level`?",
    ),
    (
        "gpus <= 64",
        0,
        "PG103",
        "unknown name `gpus`, expected one of `action`, `context`, `now`, `resource`, `subject`",
        "did you mean `resource.gpus`?",
    ),
    (
        "resorce.gpus <= 64",
        0,
        "PG103",
        "unknown name `resorce`, expected one of `action`, `context`, `now`, `resource`, `subject`",
        "did you mean `resource`?",
    ),
    ("resource.gpus == 'x'", 14, "PG104", "`==` does not take an integer and text", None),
    ("resource.gpus && true", 14, "PG104", "`&&` does not take an integer and a bool", None),
    ("!resource.gpus", 0, "PG104", "`!` does not take an integer", None),
    (
        "resource.started < '2026'",
        17,
        "PG104",
        "`<` does not take a timestamp and text",
        'write a time as `timestamp("2026-03-01T09:00:00Z")`',
    ),
    ("resource.tags == 'x'", 14, "PG104", "`==` does not take a list of text and text", None),
    ("resource.gpus.all(x, x)", 8, "PG104", "a macro runs over a list or a map, found an integer", None),
    ("glob(resource.gpus, 'a')", 0, "PG110", "`glob` does not take an integer and text, expected (text, text)", None),
    ("glob(resource.team)", 0, "PG110", "`glob` does not take this number of arguments, expected (text, text)", None),
    ("ip.in(context.addr, 8)", 0, "PG110", "`ip.in` does not take text and an integer, expected (text, text)", None),
    ("resource.tags.all(a, b, true)", 14, "PG110", "`all` takes a variable and a condition on it", None),
    ("resource.gpus", 0, "PG106", "the condition is an integer, expected a bool", None),
    (
        "resource.kind == 'trian'",
        17,
        "PG107",
        "`trian` is no value of `resource.kind`, expected one of `train`, `eval`",
        None,
    ),
    (
        "'Train' != resource.kind",
        0,
        "PG107",
        "`Train` is no value of `resource.kind`, expected one of `train`, `eval`",
        "did you mean `train`?",
    ),
    (
        "resource.kind in ['train', 'x']",
        27,
        "PG107",
        "`x` is no value of `resource.kind`, expected one of `train`, `eval`",
        None,
    ),
    (
        "resource.checkpoints.all(c, c.format == 'pickel')",
        40,
        "PG107",
        "`pickel` is no value of `c.format`, expected one of `pickle`, `safetensors`",
        "did you mean `pickle`?",
    ),
    ("resource.gpus = 3", 14, "PG117", "not a condition: unexpected `= `", "equality is `==`"),
    ("resource.flag and true", 14, "PG117", "not a condition: unexpected `and`", "write `&&`"),
    ("(resource.flag", 14, "PG117", "the condition ends too early, expected `)`", None),
    ("", 0, "PG117", "the condition ends too early", None),
    ("resource.gpus / 0 > 1", 14, "PG314", "`resource.gpus / 0` always fails: division by zero", None),
    (
        "resource.team.matches('(')",
        21,
        "PG207",
        '`resource.team.matches("(")` always fails: `(` is no regular expression of RE2: missing ): (',
        None,
    ),
    (
        "ip.in(context.addr, '10.0.0.1/8')",
        5,
        "PG314",
        (
            '`ip.in(context.addr, "10.0.0.1/8")` always fails: `10.0.0.1/8` is no address prefix, expected a length '
            "that covers its last set bit"
        ),
        None,
    ),
    (
        "resource.gpus < 9007199254740992",
        16,
        "PG405",
        "found an integer beyond 2^53 - 1: `9007199254740992`",
        "no fact holds one",
    ),
    ("resource.gpus < 9223372036854775808", 16, "PG405", "found an integer beyond 64 bits", None),
    ("resource.user_labels == 'x'", 21, "PG104", "`==` does not take a map and text", None),
    ("resource.gpus.all(x, true)", 8, "PG104", "a macro runs over a list or a map, found an integer", None),
    ("ip.out(context.addr, 'x')", 0, "PG109", "unknown function of `ip`, expected `ip.in`", None),
    ("resource.tags.bind(a, 1, a)", 14, "PG110", "the macro `bind` is outside the profile", None),
    ("cel.bind(a, 1, a > 1)", 4, "PG110", "the macro `bind` is outside the profile", None),
    ("resource.tags.sortBy(x, x)", 14, "PG110", "the macro `sortBy` is outside the profile", None),
    ("resource.tags.transformList(i, v, v)", 14, "PG110", "the macro `transformList` is outside the profile", None),
    ("all(resource.tags, true)", 0, "PG110", "`all` takes a variable and a condition on it", None),
    ("exists(1)", 0, "PG110", "`exists` takes a variable and a condition on it", None),
    ("resource.flag or true", 14, "PG117", "not a condition: unexpected `or`", "write `||`"),
    ("not resource.flag", 4, "PG117", "not a condition: unexpected `resource`", None),
    ("resource.flag & true", 14, "PG117", "not a condition: unexpected `& `", "write `&&`"),
    ("resource.flag | true", 14, "PG117", "not a condition: unexpected `| `", "write `||`"),
    ("resource.?flag", 0, "PG116", "optional selection is outside the profile", None),
    ("resource.flag &&", 16, "PG117", "the condition ends too early", None),
    ("resource.flag)", 13, "PG117", "not a condition: unexpected `)`", None),
    ("resource == 'x'", 9, "PG104", "`==` does not take `resource` and text", None),
    ("subject == resource", 8, "PG104", "`==` does not take `subject` and `resource`", None),
    ("resource.checkpoints == 'x'", 21, "PG104", "`==` does not take a list of `ckpt` and text", None),
    ("resource.checkpoints[0] == 'x'", 24, "PG104", "`==` does not take a `ckpt` and text", None),
    ("-resource.flag", 0, "PG104", "`-` does not take a bool", None),
    ("resource.tags['x'] == 'y'", 13, "PG104", "`[]` does not take a list of text and text", None),
    ("resource.flag ? 1 : 'x'", 14, "PG104", "`?:` does not take a bool, an integer, text", None),
    ("1 in resource.gpus", 2, "PG104", "`in` does not take an integer and an integer", None),
    (
        "now < 'x'",
        4,
        "PG104",
        "`<` does not take a timestamp and text",
        'write a time as `timestamp("2026-03-01T09:00:00Z")`',
    ),
    (
        "now - now == 'x'",
        10,
        "PG104",
        "`==` does not take a duration and text",
        'write a duration as `duration("1h30m")`',
    ),
    ("now - now == 5", 10, "PG104", "`==` does not take a duration and an integer", None),
    ("1u == 1.0", 3, "PG104", "`==` does not take an unsigned integer and a floating-point number", None),
    ("null == 1", 5, "PG104", "`==` does not take null and an integer", None),
    ("b'x' == 'x'", 5, "PG104", "`==` does not take bytes and text", None),
    ("type(1) == 1", 8, "PG104", "`==` does not take a `type(int)` and an integer", None),
    ("dyn(1) == 'x'", 3, "PG116", "a value of any type is outside the profile", "give every value one type"),
    (
        "levl > 1",
        0,
        "PG103",
        "unknown name `levl`, expected one of `action`, `context`, `now`, `resource`, `subject`",
        None,
    ),
    (
        "lvel",
        0,
        "PG103",
        "unknown name `lvel`, expected one of `action`, `context`, `now`, `resource`, `subject`",
        None,
    ),
    (
        "addr == 'x'",
        0,
        "PG103",
        "unknown name `addr`, expected one of `action`, `context`, `now`, `resource`, `subject`",
        "did you mean `context.addr`?",
    ),
    (
        "xyzzy",
        0,
        "PG103",
        "unknown name `xyzzy`, expected one of `action`, `context`, `now`, `resource`, `subject`",
        None,
    ),
    (
        "resource.flag && xyzzy.foo",
        17,
        "PG103",
        "unknown name `xyzzy`, expected one of `action`, `context`, `now`, `resource`, `subject`",
        None,
    ),
    ("matches(1, 2)", 0, "PG110", "`matches` does not take an integer and an integer, expected (text, text)", None),
    (
        "resource.team.matches(1)",
        14,
        "PG110",
        "`matches` does not take text and an integer, expected (text, text)",
        None,
    ),
    ("timestamp() == now", 0, "PG110", "`timestamp` does not take this number of arguments, expected (text)", None),
    ("duration(true) == duration('1h')", 0, "PG110", "`duration` does not take a bool, expected (text)", None),
    ("size(1) == 1", 0, "PG110", "`size` does not take an integer", None),
    ("size() == 1", 0, "PG110", "`size` does not take this number of arguments", None),
    ("startsWith('x')", 0, "PG110", "`startsWith` does not take this number of arguments", None),
    ("resource.team.startsWith(1)", 14, "PG110", "`startsWith` does not take text and an integer", None),
    ("has(resource)", 4, "PG117", "not a condition: unexpected `r`", None),
    ("resource.gpus == 99999999999999999999", 17, "PG405", "found an integer beyond 64 bits", None),
    ("a b", 2, "PG117", "not a condition: unexpected `b`", None),
    ("resource.team == 'x", 17, "PG117", "not a condition: unexpected `'x`", None),
    ("$", 0, "PG117", "not a condition: unexpected `$`", None),
    ("resource.flag && (", 18, "PG117", "the condition ends too early", None),
    ("resource.flag && [", 18, "PG117", "the condition ends too early", None),
    ("{", 1, "PG117", "the condition ends too early", None),
    ("resource.tags.map(x)", 14, "PG110", "`map` takes a variable and a condition on it", None),
    ("resource.tags.filter(x)", 14, "PG110", "`filter` takes a variable and a condition on it", None),
    ("resource.tags.exists_one(x)", 14, "PG110", "`exists_one` takes a variable and a condition on it", None),
    ("map(1)", 0, "PG110", "`map` takes a variable and a condition on it", None),
    ("ip.in()", 0, "PG110", "`ip.in` does not take this number of arguments, expected (text, text)", None),
    ("ip.in(1)", 0, "PG110", "`ip.in` does not take this number of arguments, expected (text, text)", None),
    ("context.addrr == 'x'", 8, "PG103", "unknown attribute `context.addrr`, expected `addr`", "did you mean `addr`?"),
    (
        "resource.checkpoints.all(c, c.nope)",
        30,
        "PG103",
        "unknown attribute `nope` of `ckpt`, expected one of `format`, `producer`",
        None,
    ),
    ("resource.user_labels.x.y", 22, "PG117", "not a condition: unexpected `.`", None),
    ("ip.iN(context.addr, '10.0.0.0/8')", 0, "PG109", "unknown function of `ip`, expected `ip.in`", None),
    ("resource.gpus == 3 = 4", 19, "PG117", "not a condition: unexpected `= `", "equality is `==`"),
    ("resource.team == 'é' && 'x' && true", 21, "PG104", "`&&` does not take a bool and text", None),
    ("resource.kind == 'train' && resource.flag == 'x'", 42, "PG104", "`==` does not take a bool and text", None),
]


@pytest.mark.parametrize(("text", "offset", "code", "message", "help_text"), CASES, ids=[case[0] for case in CASES])
def test_the_author_reads_what_is_wrong_and_where(
    text: str, offset: int, code: str, message: str, help_text: str | None
) -> None:
    """Offset in code points, the catalogue's code, the house's words, what was probably meant."""
    assert errors(text) == (ConditionError(offset, message, help_text, code),)


def test_offsets_count_code_points_and_lines() -> None:
    """After characters beyond the basic plane, and on the third line of a block."""
    assert errors('"\U0001f600é" == resource.team && resource.gpu > 1')[0].offset == 34
    assert errors("resource.flag\n  && true\n  && resource.gpu > 1")[0].offset == 38


def test_all_mistakes_of_one_condition_are_reported_in_order() -> None:
    """Two unknown attributes and an unknown function come together."""
    found = errors("resource.gpu > 1 && resource.tem == 'x' && globb(resource.team, 'a')")
    assert [(error.offset, error.code) for error in found] == [(9, "PG103"), (29, "PG103"), (43, "PG109")]
    assert found[2].help == "did you mean `glob`?"


@pytest.mark.parametrize(
    ("text", "offset", "help_text"),
    [
        ("resource.foo()", 9, None),
        ("resource.team.mtches('x')", 14, "did you mean `matches`?"),
        ("glb(resource.team, 'a')", 0, "did you mean `glob`?"),
        ("iN(1)", 0, None),
    ],
)
def test_an_unknown_function_is_named_with_those_that_there_are(text: str, offset: int, help_text: str | None) -> None:
    """At its name, whether it is called as a function or on a value."""
    (error,) = errors(text)
    name = text[offset:].partition("(")[0]
    assert error.message.startswith(f"unknown function `{name}`, expected one of `all`, `bool`, `contains`, ")
    assert error.message.endswith(" and 17 more")
    assert (error.offset, error.code, error.help) == (offset, "PG109", help_text)


@pytest.mark.parametrize(
    ("report", "code", "message"),
    [
        ("", "PG117", "the condition cannot be checked"),
        ("something new", "PG117", "the condition cannot be checked"),
        ("expression recursion exceeded", "PG010", "the condition is nested too deeply"),
        ("size limit reached", "PG010", "the condition is nested too deeply"),
        ("max depth", "PG010", "the condition is nested too deeply"),
    ],
)
def test_a_report_that_names_no_place_is_an_error_at_the_start(report: str, code: str, message: str) -> None:
    """Whatever the checker says, the author reads one line of ours."""
    assert translate_report("true", report, NAMES) == [ConditionError(0, message, code=code)]


NO_NAME = "undeclared reference to '{}' (in container '')"
NO_OVERLOAD = "found no matching overload for '{}' applied to '{}'"


@pytest.mark.parametrize(
    ("text", "column", "report", "code", "message"),
    [
        ("cel", 1, NO_NAME.format("cel"), "PG117", "the condition cannot be checked"),
        ("all", 1, NO_NAME.format("all"), "PG117", "the condition cannot be checked"),
        (
            "1 + 2",
            3,
            NO_OVERLOAD.format("_+_", "(int, list(int))"),
            "PG104",
            "`+` does not take an integer and a list of integer",
        ),
        ("f()", 2, NO_OVERLOAD.format("f", "()"), "PG110", "`f` does not take nothing"),
        ("1 ", 2, "Syntax error: mismatched input ')' expecting '('", "PG117", "the condition ends too early"),
        ("(1 2", 2, "Syntax error: mismatched input '<EOF>' expecting ')'", "PG117", "the condition ends too early"),
        ("(1 2", 2, "Syntax error: mismatched input '1' expecting <EOF>", "PG117", "not a condition: unexpected `1`"),
        (
            "c.x",
            2,
            "undefined field 'x' not found in struct 'policyguard.record_ckpt'",
            "PG103",
            "unknown attribute `x` of `ckpt`, expected none",
        ),
    ],
)
def test_a_report_is_translated_to_our_words(text: str, column: int, report: str, code: str, message: str) -> None:
    """Reports that the checker makes of few conditions, one at a time."""
    (error,) = translate_report(text, f"ERROR: <input>:1:{column}: {report}\n | {text}\n", NAMES)
    assert (error.code, error.message) == (code, message)


def test_a_place_behind_the_condition_is_its_end() -> None:
    """The checker counts lines of which the last may be empty."""
    report = "ERROR: <input>:9:99: found no matching overload for '_==_' applied to '(int, string)'\n | x"
    assert translate_report("1 ==\n'x'", report, NAMES) == [
        ConditionError(8, "`==` does not take an integer and text", None, "PG104")
    ]


def test_a_syntax_error_hides_what_follows_from_it_and_equal_errors_are_one() -> None:
    """The checker goes on after a mistake, and reports what is none."""
    overload = "ERROR: <input>:1:1: found no matching overload for '!_' applied to '(int)'\n | x\n"
    assert len(translate_report("!1", overload * 2, NAMES)) == 1
    syntax = "ERROR: <input>:1:2: Syntax error: extraneous input 'x' expecting <EOF>\n | x\n"
    assert [error.code for error in translate_report("!1 x", overload + syntax + syntax, NAMES)] == ["PG117"]
    macro = "ERROR: <input>:1:1: undeclared reference to 'all' (in container '')\n | x\n"
    found = translate_report("(1)", macro + overload, NAMES)
    assert [(error.code, error.message) for error in found] == [
        ("PG110", "`all` takes a variable and a condition on it")
    ]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (" int ", "an integer"),
        ("list(int)", "a list of integer"),
        ("list(map(string, int))", "a list of map"),
        ("map(string, int)", "a map"),
        ("policyguard.record_ckpt", "a `ckpt`"),
        ("policyguard.resource_job", "`resource`"),
        ("timestamp", "a timestamp"),
        ("dyn", "any value"),
    ],
)
def test_types_are_described_in_words(kind: str, text: str) -> None:
    assert NAMES.describe(kind) == text


@pytest.mark.parametrize(
    "text",
    [
        "resource.gpus <= 64 && !(resource.team in ['a', 'b'])",
        "has(resource.user_labels.x)",
        "resource.a_b == resource.aB",
        "resource.user_labels['x'] == 'y'",
        "subject.level > 1 || subject.owner == subject.id",
        "action == 'job:submit'",
        "now - resource.started < duration('24h')",
        "ip.in(context.addr, '10.0.0.0/8')",
        "true",
        "  resource.flag // note",
        "under(resource.id, 'team/vision') && glob(resource.id, '**') && resource.domain == 'vision'",
        "resource.kind == 'train' ? resource.gpus > 1 : resource.type == 'job'",
        "resource.kind.startsWith('tr')",
    ],
)
def test_what_is_right_is_accepted(text: str) -> None:
    """The twin of the refusals: every piece of the language, as authors write it."""
    assert check(text).type == "bool"


def test_a_subject_type_narrows_what_may_be_read() -> None:
    """Without one, attributes of all subject types are there; with one, only its own."""
    assert check("subject.level > 1 && subject.owner == 'x'")
    assert CHECKER.check("subject.level > 1", resource_type="job", subject_type="user")
    with pytest.raises(ConditionErrors, match=r"unknown attribute `subject\.owner`"):
        CHECKER.check("subject.owner == 'x'", resource_type="job", subject_type="user")


def test_ip_in_is_a_name_and_not_an_operator() -> None:
    """`ip.in(` is spelled for the checker outside texts and comments only, with columns kept."""
    assert rename_ip_in('ip.in(a, "ip.in(") && x.ip.in(b) // ip.in(c)') == (
        'ip.iN(a, "ip.in(") && x.ip.in(b) // ip.in(c)'
    )
    assert rename_ip_in("ip . in (a) && 'ip.in(' == r'\\' && ip in [a]") == (
        "ip . iN (a) && 'ip.in(' == r'\\' && ip in [a]"
    )
    for other in ("iN", "within", "i_"):
        (error,) = errors(f"ip.{other}(context.addr, '10.0.0.0/8')")
        assert error.message == "unknown function of `ip`, expected `ip.in`"


SHAPES = [
    "resource.gpus <= 64 && resource.team == 'vision'",
    "resource.gpus==-64||resource.team in ['a', \"b\"]",
    "resource.checkpoints.exists(c, c.producer == 'bob' && resource.gpus - 3 > 2)",
    "glob(resource.id, 'team/*') && now - resource.started < duration('1h')",
]


@pytest.mark.parametrize("text", SHAPES)
def test_a_template_gives_what_the_checker_gives(text: str) -> None:
    """Filled templates equal long-way results node by node, offsets included."""
    split = tokens(text)
    assert split is not None
    checker = Checker(SCHEMA)
    checker.check(text, resource_type="job")
    scope = checker._scope("job", None)
    other = text.replace("64", "7").replace("'vision'", "'x y z'").replace("'bob'", "'robert'").replace("'1h'", "'90m'")
    fast = checker.check(f"  {other}", resource_type="job")
    slow = folded(_compiled(f"  {other}", scope))
    assert fast == slow
    assert [node.offset for node in walk(fast)] == [node.offset for node in walk(slow)]


@settings(max_examples=60, deadline=None)
@given(st.integers(-(2**63), 2**64), st.text(max_size=8))
def test_any_literal_in_a_known_shape_is_judged_as_if_it_came_first(number: int, word: str) -> None:
    """A checker that has seen the shape and a fresh one agree on every integer and every text."""
    text = f"resource.gpus <= {number} && resource.team == '{word}'"
    checker = Checker(SCHEMA)
    checker.check("resource.gpus <= 1 && resource.team == 'a'", resource_type="job")
    checker.check("resource.gpus <= -1 && resource.team == 'a'", resource_type="job")
    try:
        expected: object = folded(_compiled(text, CHECKER._scope("job", None)))
        problems = literal_errors(expected, CHECKER._scope("job", None).names.attributes)  # type: ignore[arg-type]
        expected = tuple(problems) or expected
    except ConditionErrors as problem:
        expected = problem.errors
    try:
        found: object = checker.check(text, resource_type="job")
    except ConditionErrors as problem:
        found = problem.errors
    assert found == expected


def test_a_known_shape_is_checked_by_the_library_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 conditions of one shape."""
    checker, texts = Checker(SCHEMA), list[str]()

    def counted(text: str, scope: Any) -> Expression:
        texts.append(text)
        return _compiled(text, scope)

    monkeypatch.setattr("policyguard.conditions.check._compiled", counted)
    for number in range(1000):
        text = (
            f"resource.gpus <= {number} && resource.team == 't{number}' "
            "&& resource.checkpoints.exists(c, has(c.format))"
        )
        checker.check(text, resource_type="job")
    assert len(texts) == 1


SPAN = Span("schema.yaml", 3, 5)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        (Attribute(name="in", type=INT, span=SPAN), "resource job: `in` cannot be named in a condition"),
        (
            Attribute(name="id", type=INT, span=SPAN),
            "resource job: `id` is int, expected string; every resource has a text `id`",
        ),
        (
            Attribute(name="m", type=ValueType(kind="list", element=ValueType(kind="list", element=INT)), span=SPAN),
            "resource job: `m` is list(list(int)), expected no list or map directly inside another",
        ),
        (
            Attribute(name="m", type=ValueType(kind="record", record="nope"), span=SPAN),
            "resource job: `m` has the unknown type `nope`",
        ),
    ],
)
def test_a_schema_that_conditions_cannot_use_is_refused(attribute: Attribute, message: str) -> None:
    """Each with its place in the file."""
    job = EntityType(name="job", attributes={attribute.name: attribute})
    with pytest.raises(PolicyErrors) as caught:
        Checker(Schema(subjects={}, resources={"job": job}))
    assert [str(error) for error in caught.value.errors] == [f"schema.yaml:3:5: {message}"]


def test_subjects_that_disagree_on_a_type_are_refused() -> None:
    """Same-named attributes of two subject types must have one type; equal ones are fine."""
    one = EntityType(name="user", attributes=attributes(level=INT))
    same = EntityType(name="bot", attributes=attributes(level=INT))
    other = EntityType(name="bot", attributes=attributes(level=STRING))
    assert Checker(Schema(subjects={"user": one, "bot": same}, resources={}))
    with pytest.raises(PolicyErrors, match="subject bot: `level` is string, but int on subject user"):
        Checker(Schema(subjects={"user": one, "bot": other}, resources={}))


def test_a_record_cannot_take_the_name_of_a_type() -> None:
    """`string`, `dyn` and the entities are taken."""
    for name in ("string", "dyn", "resource", "a-b", "1a", "\u00e9"):
        with pytest.raises(PolicyErrors, match=f"a record cannot be called `{name}`"):
            Checker(Schema(subjects={}, resources={}, records={name: {}}))


def test_the_longest_condition_is_checked_and_a_longer_one_is_not() -> None:
    """Its length is bounded before anything else is done with it."""
    assert check("true".ljust(MAX_TEXT)) == check("true")
    with pytest.raises(ConditionErrors, match=f"{MAX_TEXT + 1} characters long"):
        check("true".ljust(MAX_TEXT + 1))


def test_a_type_of_very_many_attributes_avoids_the_numbers_that_protobuf_reserves() -> None:
    """19,000 to 19,999 cannot number a field."""
    file = FileDescriptorProto()
    _add_message(file, "job", attributes(**{f"a{number}": INT for number in range(1, 19_002)}))
    numbers = [field.number for field in file.message_type[0].field]
    assert numbers[18_997:] == [18_998, 18_999, 20_000, 20_001]
    assert numbers[0] == 1


@pytest.mark.parametrize(
    "text",
    ["{'a': 1}.b == 2", "resource.tags[-1] == 'a'", "[1][1] == 1", "resource.team.matches('(')", "under('a', '')"],
    ids=["a field that no map literal has", "an index below zero", "an index beyond", "no pattern", "under nothing"],
)
def test_a_condition_that_can_only_fail_does_not_load(text: str) -> None:
    """INVARIANT I6: as an allow it never grants, as a deny it always denies, and neither is what was meant."""
    with pytest.raises(ConditionErrors, match="always fails"):
        check(text)
    assert check("{'a': 1}.a == 2 || has({'a': 1}.b) || resource.tags[0] == 'a'")


def test_no_mistakes_are_no_error() -> None:
    """An error without a mistake in it would say nothing."""
    with pytest.raises(ValueError, match="none given"):
        ConditionErrors([])
    later, earlier = ConditionError(5, "later"), ConditionError(2, "earlier")
    assert ConditionErrors([later, earlier]).errors == (earlier, later)


@pytest.mark.parametrize(
    "text", ["a ; b", "a ;", ";", "r'a'", 'b"a"', "1.5", "1u", "0x1", "'a\\n'", "\u00e9", "'a", "`a`"]
)
def test_what_is_not_split_into_tokens_goes_to_the_checker_as_it_is(text: str) -> None:
    """Escapes, other literals, other letters, unknown characters in the middle or at the end; the twin is plain."""
    assert tokens(text) is None
    plain = tokens("a == 'b' // c")
    assert plain is not None
    assert (plain.texts, plain.starts) == (("a", "==", "'b'"), (0, 2, 5))


def test_the_greatest_integer_of_a_fact_may_be_compared() -> None:
    """2^53 - 1 on either side of zero, and no more; it is a constant of the rule like any other."""
    for text in ("resource.gpus > 9007199254740991", "resource.gpus > -9007199254740991"):
        form, constants = shape(check(text))
        assert constants == (int(text.partition("> ")[2]),)
        assert filled(form, constants) == check(text)
        assert render(check(text)) == text
    for text in ("resource.gpus > 9007199254740992", "resource.gpus > -9007199254740992"):
        with pytest.raises(ConditionErrors, match="beyond 2"):
            check(text)
