"""The hazards of YAML and of PyYAML cannot reach us, whichever release of PyYAML is installed.

Nothing here requires PyYAML to be dangerous: what it did in some release is in the docstrings. Work is counted in
events and values, never timed; what would not end is ended by the time limit of the test run.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from policyguard.errors import PolicyError, PolicyErrors
from policyguard.policy.loader import analyse
from policyguard.policy.nodes import Mapping, Scalar
from policyguard.policy.reader import MAX_DEPTH, parse, read, read_value, walk
from policyguard.policy.scalars import kind_of

PACKAGE = Path(__file__).parents[2] / "policyguard"


def errors_of(text: str) -> list[PolicyError]:
    with pytest.raises(PolicyErrors) as caught:
        read(text, "a.yaml")
    return list(caught.value.errors)


def refused(text: str) -> str:
    return "\n".join(str(error) for error in errors_of(text))


@pytest.fixture(params=["libyaml", "pure Python"])
def events(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every event that our reader takes, with PyYAML's C parser and with its Python one."""
    if request.param == "libyaml" and not yaml.__with_libyaml__:
        pytest.skip("this PyYAML was built without libyaml")
    name = "CSafeLoader" if request.param == "libyaml" else "SafeLoader"
    taken: list[object] = []

    class Counted(getattr(yaml, name)):  # type: ignore[misc]
        def get_event(self) -> Any:
            taken.append(super().get_event())
            return taken[-1]

    monkeypatch.setattr(yaml, "__with_libyaml__", request.param == "libyaml")
    monkeypatch.setattr(yaml, name, Counted)
    return taken


def test_a_second_block_does_not_erase_the_first() -> None:
    """PyYAML 6.0 takes the last of two equal keys in silence, so a second block erases the first. We refuse."""
    assert "duplicate key `deny`, first at line 1 column 1" in refused("deny: [everything]\ndeny: []\n")


YAML_1_1 = ["no", "on", "yes", "0777", "010", "12:30:45", "1_000", "1.0e+3", "2026-01-01", "1e3"]


@pytest.mark.parametrize("written", YAML_1_1)
def test_implicit_typing_of_yaml_1_1(written: str) -> None:
    """YAML 1.1 makes these bools, octals, base-60 numbers and dates; each is refused unless it is quoted (PG005)."""
    with pytest.raises(PolicyErrors) as caught:
        read_value(f"a: {written}\n", "a.yaml")
    assert [error.code in ("PG005", "PG405") for error in caught.value.errors] == [True]
    assert read_value(f'a: "{written}"\n', "a.yaml") == {"a": written}


def test_a_role_named_no_is_no_bool() -> None:
    """Where text is wanted, a word that YAML 1.1 takes for a bool is an error at its place, not a bool."""
    node = read("role: no\n", "a.yaml")[0]
    assert isinstance(node, Mapping)
    role = node.get("role")
    assert isinstance(role, Scalar)
    assert role.text == "no"
    assert kind_of(role) == "ambiguous"


@pytest.mark.parametrize("text", ["a: &x [1]\nb: *x\n", "a: &x {c: 1}\nb: {<<: *x}\n", "a: !!set {x}\n"])
def test_anchors_aliases_merge_keys_and_tags_are_refused(text: str) -> None:
    """YAML has all four; we accept none (PG001)."""
    assert "found the" in refused(text)


def test_merge_keys_are_never_expanded(events: list[object]) -> None:
    """Thirty levels of nine merges would be 9 ** 30 entries: we take no more events, nor values, than characters."""
    levels = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 30)]
    text = "\n".join(levels)
    errors: list[PolicyError] = []
    documents = parse(text, "a.yaml", errors)
    assert "found the anchor `&a0`" in str(errors[0])
    assert len(events) <= len(text)
    assert sum(1 for document in documents for _ in walk(document)) <= len(text)


BRACKETS = 50_000


def assert_one_refusal_of_depth(errors: list[PolicyError]) -> None:
    """Assert one error, by our own limit or by that of a parser which has one (PyYAML 6.0.4: 1,000 levels)."""
    assert len(errors) == 1
    assert errors[0].code in ("PG010", "PG001")
    assert "nesting" in errors[0].message


def test_fifty_thousand_brackets_do_not_kill_the_process() -> None:
    """`yaml.compose` of 6.0.3 ends such a process by a segmentation fault; our reader answers with one error."""
    script = f"""
        from policyguard.errors import PolicyErrors
        from policyguard.policy.reader import read
        try:
            read("[" * {BRACKETS}, "a.yaml")
        except PolicyErrors as refused:
            print(len(refused.errors), refused)
    """
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("1 a.yaml:1:")
    assert "nesting" in run.stdout


@pytest.mark.parametrize(
    "text", ["[" * BRACKETS, "- " * BRACKETS + "x", "{a: " * BRACKETS], ids=["list", "rows", "map"]
)
def test_our_limit_ends_the_stream(text: str, events: list[object]) -> None:
    """However deep the file goes on, no event is taken below our limit."""
    assert_one_refusal_of_depth(errors_of(text))
    assert len(events) <= 4 * MAX_DEPTH


def test_a_parser_without_any_limit_is_ended_by_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that opens lists for ever is asked for as many as our limit allows, and one more."""
    opened: list[object] = []
    mark = yaml.Mark("a.yaml", 0, 0, 0, "", 0)

    class Endless:
        def __init__(self, text: str) -> None:
            pass

        def get_event(self) -> Any:
            opened.append(yaml.SequenceStartEvent(None, None, True, mark, mark))
            return opened[-1]

    monkeypatch.setattr(yaml, "CSafeLoader", Endless, raising=False)
    monkeypatch.setattr(yaml, "SafeLoader", Endless)
    assert f"found nesting deeper than {MAX_DEPTH} levels" in refused("a")
    assert len(opened) == MAX_DEPTH + 1


def test_the_limit_of_depth_is_exact(events: list[object]) -> None:
    """As many levels as allowed are read; one more is refused, in our own words."""
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH, "a.yaml")
    deeper = "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)
    assert refused(deeper) == f"a.yaml:1:{MAX_DEPTH + 1}: found nesting deeper than {MAX_DEPTH} levels"


def test_a_directive_is_refused_before_the_parser_is_asked(events: list[object]) -> None:
    """libyaml compares each %TAG with all before it, ahead of the first event; we refuse the line before parsing."""
    assert "directive" in refused("".join(f"%TAG !t{i}! x\n" for i in range(50_000)) + "--- a\n")
    assert events == []


def test_a_place_inside_a_block_scalar_is_the_character_itself() -> None:
    """PyYAML marks a block scalar at its `|`; our offsets point at the character."""
    node = read("when: |\n  abc X\n", "a.yaml")[0]
    assert isinstance(node, Mapping)
    when = node.get("when")
    assert isinstance(when, Scalar)
    assert str(when.at(4)) == "a.yaml:2:7"


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_line_separators_of_yaml_1_1_do_not_shift_lines(separator: str) -> None:
    """YAML 1.1 breaks lines there, which no editor does, so later line numbers would be wrong: refused."""
    assert "U+" in refused(f"a: 'x{separator}y'\nb: 1\n")


def test_python_objects_are_not_made() -> None:
    """`yaml.unsafe_load` runs code that a tag names; tags are refused before anything is made of them."""
    assert "found the tag" in refused("!!python/object/apply:os.system ['true']\n")


def test_only_events_are_used() -> None:
    """The reader takes parsers and event classes from PyYAML, never `load`, `compose` or a constructor's result."""
    tree = ast.parse((PACKAGE / "policy" / "reader.py").read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "yaml"
    }
    assert not used & {"load", "safe_load", "full_load", "unsafe_load", "load_all", "compose", "compose_all", "dump"}
    called = {n.func.attr for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)}
    assert not called & {"get_data", "get_single_data", "get_single_node", "get_node", "check_data", "check_node"}


def test_a_bomb_among_good_files_is_one_error() -> None:
    """A folder with one hostile file is refused with that file's error and no other."""
    good = {path.name: path.read_bytes() for path in (PACKAGE.parent / "tests/data/policy/base").glob("*.yaml")}
    errors = list(analyse(good | {"bomb.yaml": b"[" * BRACKETS}).errors)
    assert_one_refusal_of_depth(errors)
    assert str(errors[0]).startswith("bomb.yaml:1:")
