"""Comments are found where YAML has them, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyguard.errors import PolicyError
from policyguard.lint.comments import Comment, comments
from policyguard.policy.nodes import Mapping, Node, Scalar
from policyguard.policy.reader import parse

ROOT = Path(__file__).parents[3]
MARK = "# mark"

GNARLY = """\
# a comment that stands alone
plain: text # trailing
url: http://host/#fragment
quoted: "a # b" # after
single: 'it''s # here' # after
plain_quotes: it's # after
list: [a, 'b # c', "d"] # after
multi: "first # no
  second # no
  third" # yes
block: |  # header
  line # no

    deeper # no
# outside # yes
  # deeper, but the block is over # yes
folded: >-
  # no
  text # no
nested:
  - when: |
      a # no
       b # no
    after: x # yes
  - |
   text # no
  - 'a' # yes
escaped: "a \\" # no" # yes
prose: yes, 'tis # yes
after_prose: 'x # no' # yes
index: a[0], 'b # yes
after_index: "c # no" # yes
flow: {a: [b, 'c # no', d], "e":'f # no', g: h} # yes
spread: [a, # yes
  'b # no', # yes
  c] # yes
wide: |2
     first # no
  second # no
 # yes
deep:
  - k: |1-
       a # no
     # no
    j: b # yes
  - >2
      a # no
    b # no
last: end
"""


def tree(node: Node) -> object:
    """Return the texts of a document as nested lists."""
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Mapping):
        return [(key.text, tree(value)) for key, value in node.entries]
    return [tree(item) for item in node.items]


def parsed(text: str) -> tuple[object, bool]:
    """Return what the strict reader makes of a text, and whether it had no objection."""
    errors: list[PolicyError] = []
    documents = parse(text, "file", errors)
    return [tree(document) for document in documents], not errors


def disagreements(text: str) -> list[str]:
    """Return the lines where a mark put at their end is a comment for one of lint and the reader only.

    A mark is a comment for the reader if the document with it reads as the document without; what the reader refuses
    is left aside.
    """
    expected, _ = parsed(text)
    lines = text.split("\n")
    found = []
    for number, line in enumerate(lines):
        marked = "\n".join([*lines[:number], f"{line} {MARK}", *lines[number + 1 :]])
        seen = any(comment.line == number + 1 and comment.text.endswith(MARK) for comment in comments(marked))
        read, sound = parsed(marked)
        if sound and seen != (read == expected):
            found.append(f"{number + 1}: {line}")
    return found


def test_comments_are_those_that_the_reader_skips() -> None:
    """In a document with every kind of scalar a mark is a comment for lint exactly where it is one for the reader."""
    assert disagreements(GNARLY) == []


@pytest.mark.parametrize("path", sorted((ROOT / "policies").rglob("*.yaml")), ids=lambda path: path.name)
def test_comments_of_the_example_lab_are_those_that_the_reader_skips(path: Path) -> None:
    """The same for the policies that ship, on up to 60 of their lines."""
    lines = path.read_text().split("\n")[:60]
    text = "\n".join(lines)
    if parsed(text)[1]:
        assert disagreements(text) == []


VALUES = st.sampled_from(
    [
        "x",
        "'a # b'",
        '"c # d"',
        "it's",
        "a#b",
        "a # b",
        "[p, 'q # r']",
        "{k: 'v # w'}",
        "|\n    t # u",
        ">\n    # v",
        '"m\n    n # o"',
        "'' # c",
        '{"k":"v # w"}',
        '"\\" # z"',
        "|-\n\n    late # x",
        "a ||\n    b",
    ]
)
DOCUMENTS = st.lists(st.tuples(st.sampled_from("abcdefgh"), VALUES), max_size=6, unique_by=lambda pair: pair[0])


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS)
def test_lint_never_sees_a_comment_that_is_text(entries: list[tuple[str, str]]) -> None:
    """Whatever is written, text is never taken for a suppression."""
    text = "".join(f"- {key}: {value}\n" for key, value in entries)
    lines = text.split("\n")
    expected, sound = parsed(text)
    if not sound:
        return
    for comment in comments(text):
        cut = [*lines]
        cut[comment.line - 1] = cut[comment.line - 1][: comment.column - 1]
        assert expected == parsed("\n".join(cut))[0]


def test_line_and_column_of_a_comment_count_from_one() -> None:
    """The place of a comment is that of its `#`."""
    assert [Comment("# x", 2, 6, False), Comment("# y", 3, 3, True)] == list(comments("a: b\nc: d # x\n  # y\r\n"))
