"""Theorems of the front end, searched by Hypothesis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policyguard.errors import PolicyError
from policyguard.patterns.overlap import overlap, pattern_problem
from policyguard.policy.loader import analyse, load
from policyguard.policy.nodes import Mapping, Scalar, walk
from policyguard.policy.reader import parse, read, read_value
from policyguard.values import FrozenMap, freeze

BASE = Path(__file__).parents[1] / "data" / "policy" / "base"

brief = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

YAMLISH = st.lists(
    st.sampled_from(
        [
            *"abz019 -?:,[]{}#&*!|>'\"%@`~=\n\t\r.\\",
            "\n  ",
            "\n- ",
            ": ",
            "<<: ",
            "--- ",
            "...\n",
            "!!str ",
            "&a ",
            "*a",
            "|\n  ",
            ">-\n  ",
            "é",
            "𝄞",
            "\u2028",
            "\x00",
            "\x85",
            "null",
            "true",
            "0x1",
            "1e3",
        ]
    ),
    max_size=60,
).map("".join)

TEXT = st.text(
    st.characters(
        codec="utf-8",
        max_codepoint=0xDFFFF,
        exclude_categories=("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"),
        exclude_characters="\ufffc\ufffd",
    ),
    max_size=30,
)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@brief
@given(YAMLISH | st.text(max_size=80))
def test_reading_never_raises_anything_but_policy_errors(text: str) -> None:
    """Whatever the text, `read` gives documents or `PolicyErrors`, and `analyse` never raises."""
    errors: list[PolicyError] = []
    for document in parse(text, "a.yaml", errors):
        list(walk(document))
    assert all(error.span is not None for error in errors)
    assert analyse({"a.yaml": text.encode("utf-8", "surrogatepass")}).policy_set is None


@brief
@given(st.binary(max_size=60))
def test_reading_bytes_never_raises_anything_but_policy_errors(data: bytes) -> None:
    """The same for bytes that need be no text."""
    errors: list[PolicyError] = []
    parse(data, "a.yaml", errors)


@brief
@given(VALUES)
def test_what_json_says_is_read_as_json_says_it(value: Any) -> None:
    """JSON is YAML: a value written as JSON is read as itself."""
    text = json.dumps({"v": value}, ensure_ascii=False)
    assert FrozenMap(v=freeze(value)) == read_value(text, "a.yaml")


@brief
@given(VALUES, st.sampled_from(["'", '"', "|", ">", None]), st.integers(20, 120))
def test_what_pyyaml_writes_is_read_back(value: Any, style: str | None, width: int) -> None:
    """In every style that PyYAML writes, offsets lead to the characters that were written."""
    text = yaml.safe_dump({"v": value}, allow_unicode=True, default_style=style, width=width)
    errors: list[PolicyError] = []
    documents = parse(text, "a.yaml", errors)
    scalars = [node for document in documents for node in walk(document) if isinstance(node, Scalar)]
    for node in scalars if not errors else ():
        _leads_back(node)


def _leads_back(node: Scalar) -> None:
    origins = node.origins()
    assert len(origins) == len(node.text)
    assert origins == sorted(origins)
    for character, origin in zip(node.text, origins, strict=True):
        found = node.source.text[origin]
        if character not in " \n\t\r" and found != "\\":
            assert character == found


CHARACTERS = st.text(st.sampled_from("ab X'\"\\é𝄞#:&"), min_size=1, max_size=40)


@brief
@given(st.lists(CHARACTERS, min_size=1, max_size=5), st.sampled_from(["|", "|-", ">", ">-", "'", '"']))
def test_an_offset_leads_to_its_character(lines: list[str], style: str) -> None:
    """For each character of a text over several lines, `at` names the line and column where it stands."""
    body = "\n".join("    " + line.strip().replace("\t", " ") for line in lines)
    if style in "'\"":
        body = body.replace("\\", "").replace(style, "")
        text = f"v:\n  when: {style}{body}{style}\n"
    else:
        text = f"v:\n  when: {style}\n{body}\n"
    errors: list[PolicyError] = []
    documents = parse(text, "a.yaml", errors)
    if errors or not documents:
        return
    file_lines = text.split("\n")
    for node in walk(documents[0]):
        if isinstance(node, Scalar) and node.line > 1:
            for offset, character in enumerate(node.text):
                span = node.at(offset)
                if not character.isspace():
                    assert character == file_lines[span.line - 1][span.column - 1]
                    before = [s for s in node.segments() if s[0] <= offset][-1]
                    assert (span.line, span.column) == (before[1], before[2] + offset - before[0])


def sources() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(BASE.glob("*.yaml"))}


@brief
@given(st.data())
def test_a_damaged_policy_loads_or_says_where(data: st.DataObject) -> None:
    """Any one edit of a good policy is still good, or refused with places; nothing in between."""
    files = sources()
    name = data.draw(st.sampled_from(sorted(files)))
    text = files[name].decode()
    at = data.draw(st.integers(0, len(text)))
    end = min(len(text), at + data.draw(st.integers(0, 12)))
    patch = data.draw(
        st.sampled_from(["", " ", "\n", "x", ":", "- ", "[", "}", '"', "'", "#", "&a ", "*", "!", "0", "\t"])
    )
    files[name] = (text[:at] + patch + text[end:]).encode()
    analysis = analyse(files)
    assert (analysis.policy_set is None) == bool(analysis.errors)
    assert all(error.span is not None and error.message for error in analysis.errors)


@brief
@given(st.permutations(sorted(sources())))
def test_the_order_of_files_does_not_matter(names: list[str]) -> None:
    """A policy set is what its files say, however they are handed over."""
    files = sources()
    assert load(files) == load({name: files[name] for name in names})


SEGMENT = st.sampled_from(["a", "b", "ab", "*", "a*", "*b", "a*b", "**", "{team}"])
PATTERN = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join).filter(lambda p: pattern_problem(p) is None)
ID = st.lists(st.sampled_from(["a", "b", "ab", "aab", "abb", "axb"]), min_size=1, max_size=4).map("/".join)


def matches(pattern: list[str], parts: list[str]) -> bool:
    """The naive meaning of a pattern."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(matches(pattern[1:], parts[i:]) for i in range(len(parts) + 1))
    return bool(parts) and _one(pattern[0], parts[0]) and matches(pattern[1:], parts[1:])


def _one(segment: str, part: str) -> bool:
    if segment == "{team}":
        return True
    if not segment:
        return not part
    if segment[0] == "*":
        return any(_one(segment[1:], part[i:]) for i in range(len(part) + 1))
    return part[:1] == segment[0] and _one(segment[1:], part[1:])


@settings(max_examples=400, deadline=None)
@given(PATTERN, PATTERN, ID)
def test_two_patterns_that_match_one_id_overlap(one: str, other: str, identifier: str) -> None:
    """`overlap` is never False when an id matches both: no rule is refused that could apply."""
    parts = identifier.split("/")
    if matches(one.split("/"), parts) and matches(other.split("/"), parts):
        assert overlap(one, other)
        assert overlap(other, one)


def test_places_of_the_base_are_where_an_editor_shows_them() -> None:
    """Every key of the base policy stands at the line and column that its span names."""
    for name, content in sources().items():
        lines = content.decode().split("\n")
        for document in read(content, name):
            keys = [key for node in walk(document) if isinstance(node, Mapping) for key, _ in node.entries]
            for key in keys:
                assert lines[key.line - 1][key.column - 1 :].startswith(key.text)
