"""Each hazard of PyYAML: its behaviour, shown on PyYAML itself, and that it cannot reach us."""

from __future__ import annotations

import ast
import datetime
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml

from policyguard.errors import PolicyErrors
from policyguard.policy.loader import analyse
from policyguard.policy.nodes import Mapping, Scalar
from policyguard.policy.reader import read, read_value
from policyguard.policy.scalars import kind_of

PACKAGE = Path(__file__).parents[2] / "policyguard"


def refused(text: str) -> str:
    with pytest.raises(PolicyErrors) as caught:
        read(text, "a.yaml")
    return str(caught.value)


def test_a_second_block_does_not_erase_the_first() -> None:
    """PyYAML keeps the last of two equal keys in silence: so a second block erases the first. We refuse."""
    text = "deny: [everything]\ndeny: []\n"
    assert yaml.safe_load(text) == {"deny": []}
    assert "duplicate key `deny`, first at line 1 column 1" in refused(text)


IMPLICIT = {
    "no": False,
    "on": True,
    "yes": True,
    "0777": 511,
    "010": 8,
    "12:30:45": 45045,
    "1_000": 1000,
    "1.0e+3": 1000.0,
    "2026-01-01": datetime.date(2026, 1, 1),
    "1e3": "1e3",
}


@pytest.mark.parametrize(("spelt", "loaded"), IMPLICIT.items(), ids=IMPLICIT.keys())
def test_implicit_typing_of_yaml_1_1(spelt: str, loaded: object) -> None:
    """PyYAML makes these bools, octals, base-60 numbers and dates; here each is refused unless it is quoted (PG005)."""
    assert yaml.safe_load(f"a: {spelt}") == {"a": loaded}
    with pytest.raises(PolicyErrors) as caught:
        read_value(f"a: {spelt}\n", "a.yaml")
    assert [error.code in ("PG005", "PG405") for error in caught.value.errors] == [True]
    assert read_value(f'a: "{spelt}"\n', "a.yaml") == {"a": spelt}


def test_a_role_named_no_is_no_bool() -> None:
    """Where text is wanted, a spelling that YAML 1.1 takes for a bool is an error at its place, not a bool."""
    node = read("role: no\n", "a.yaml")[0]
    assert isinstance(node, Mapping)
    role = node.get("role")
    assert isinstance(role, Scalar)
    assert role.text == "no"
    assert kind_of(role) == "ambiguous"


@pytest.mark.parametrize("text", ["a: &x [1]\nb: *x\n", "a: &x {c: 1}\nb: {<<: *x}\n", "a: !!set {x}\n"])
def test_anchors_aliases_merge_keys_and_tags_are_refused(text: str) -> None:
    """PyYAML accepts all four; we accept none (PG001)."""
    assert yaml.safe_load(text)
    assert "found the" in refused(text)


def test_nine_levels_of_merge_keys_cost_milliseconds() -> None:
    """PyYAML spends 9 times more per level of nine merges (8 levels: a minute); we stop at the first anchor."""
    levels = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 30)]
    start = time.process_time()
    yaml.safe_load("\n".join(levels[:5]))
    four = time.process_time() - start
    start = time.process_time()
    yaml.safe_load("\n".join(levels[:6]))
    assert time.process_time() - start > 4 * four
    start = time.process_time()
    assert "anchor" in refused("\n".join(levels))
    assert time.process_time() - start < 0.1


def test_fifty_thousand_brackets_do_not_kill_the_process() -> None:
    """`yaml.compose` with the C loader dies of a segmentation fault (or raises RecursionError); our reader answers."""
    script = """
        import sys, yaml
        yaml.compose("[" * 50_000, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    """
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, timeout=60, check=False)
    assert died.returncode != 0
    start = time.process_time()
    assert "nesting deeper than 64" in refused("[" * 50_000)
    assert time.process_time() - start < 0.1


STOCK = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def test_many_brackets_are_read_to_the_end_by_the_parser_and_not_by_us() -> None:
    """libyaml's events know no depth, and each costs more the more levels are open; our limit ends the stream."""

    found: list[object] = []

    def read_all() -> None:
        found.extend(e for e in yaml.parse("[" * 4_000, Loader=STOCK) if isinstance(e, yaml.SequenceStartEvent))

    with pytest.raises(yaml.YAMLError):
        read_all()
    assert len(found) == 4_000
    assert refused("[" * 200_000)


def test_many_directives_are_all_taken_by_the_parser_and_the_first_is_refused_by_us() -> None:
    """libyaml compares each %TAG with all before it, ahead of the first event; we refuse the line before parsing."""

    def directives(number: int) -> str:
        return "".join(f"%TAG !t{i}! x\n" for i in range(number)) + "--- a\n"

    start = next(e for e in yaml.parse(directives(2_000), Loader=STOCK) if isinstance(e, yaml.DocumentStartEvent))
    assert len(start.tags or ()) >= 2_000
    assert "directive" in refused(directives(50_000))


def test_a_block_scalar_is_marked_at_its_bar() -> None:
    """PyYAML's mark of a block scalar points at the `|`; our offsets point at the character itself."""
    text = "when: |\n  abc X\n"
    event = next(e for e in yaml.parse(text) if isinstance(e, yaml.ScalarEvent) and "abc" in e.value)
    assert event.start_mark is not None
    assert (event.start_mark.line, event.start_mark.column) == (0, 6)
    node = read(text, "a.yaml")[0]
    assert isinstance(node, Mapping)
    when = node.get("when")
    assert isinstance(when, Scalar)
    assert str(when.at(4)) == "a.yaml:2:7"


def test_line_separators_of_yaml_1_1_do_not_shift_lines() -> None:
    """PyYAML breaks lines at U+2028 and U+0085, which no editor does, so all later line numbers are wrong."""
    for separator in ("\u2028", "\u2029", "\x85"):
        text = f"a: 'x{separator}y'\nb: 1\n"
        marks = [event.start_mark for event in yaml.parse(text) if isinstance(event, yaml.ScalarEvent)]
        assert marks[-1] is not None
        assert marks[-1].line == 2
        assert "U+" in refused(text)


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
    """A folder with one hostile file is refused in milliseconds, with that file's error and no other."""
    good = {path.name: path.read_bytes() for path in (PACKAGE.parent / "tests/data/policy/base").glob("*.yaml")}
    start = time.process_time()
    errors = analyse(good | {"bomb.yaml": b"[" * 50_000}).errors
    assert [str(error) for error in errors] == ["bomb.yaml:1:65: found nesting deeper than 64 levels"]
    assert time.process_time() - start < 0.5
