"""The reader: nodes with exact places, scalars by YAML 1.2, refusals while reading."""

from __future__ import annotations

import pytest
import yaml

from policyguard import yaml_events
from policyguard.errors import PolicyError, PolicyErrors
from policyguard.policy import reader
from policyguard.policy.nodes import Mapping, Node, Scalar, Sequence
from policyguard.policy.reader import MAX_DEPTH, parse, read, read_value
from policyguard.policy.scalars import Kind, kind_of
from policyguard.values import FrozenMap, Span


def first(text: str) -> Node:
    return read(text, "a.yaml")[0]


def scalar(text: str, *path: str | int) -> Scalar:
    node = first(text)
    for step in path:
        if isinstance(step, int):
            assert isinstance(node, Sequence)
            node = node.items[step]
        else:
            assert isinstance(node, Mapping)
            found = node.get(step)
            assert found is not None
            node = found
    assert isinstance(node, Scalar)
    return node


def refusal(data: bytes | str) -> list[tuple[str, str]]:
    with pytest.raises(PolicyErrors) as caught:
        read(data, "a.yaml")
    return [(error.code, str(error)) for error in caught.value.errors]


def test_every_node_knows_its_line_and_column() -> None:
    """Lines and columns start at one and count code points, also after characters beyond the basic plane."""
    node = first("é: [𝄞, {b: x}]\nlist:\n  - one\n  - 'two'\n")
    assert node.span == Span("a.yaml", 1, 1)
    assert scalar("é: [𝄞, {b: x}]\n", "é", 1, "b").span == Span("a.yaml", 1, 12)
    assert scalar("list:\n  - one\n  - 'two'\n", "list", 1).span == Span("a.yaml", 3, 5)


SPELLINGS = {
    "plain": ("when: abc X def\n", (1, 11)),
    "plain after text": ("{é𝄞: y, when: abc X}\n", (1, 19)),
    "plain over lines": ("when: abc\n  def\n\n   X def\n", (4, 4)),
    "single quoted": ("when: 'it''s '' X'\n", (1, 17)),
    "single quoted over lines": ("when: 'it''s\n\n   ''X'\n", (3, 6)),
    "double quoted": ('when: "\\"a\\" \\u00e9 \\x41 \\U0001D11E X"\n', (1, 37)),
    "double quoted over lines": ('when: "a\n   b \\\n   c \\t  X"\n', (3, 10)),
    "literal": ("when: |\n  abc\n\n    more X\n", (4, 10)),
    "literal with a comment": ("when: |-  # why\n  abc\n  X\n", (3, 3)),
    "literal with explicit indentation": ("when: |2\n    abc\n  X\n", (3, 3)),
    "folded": ("when: >\n  abc\n  def X\n  ghi\n", (3, 7)),
    "folded with more indented lines": ("when: >-\n  abc\n    X def\n\n  ghi\n", (3, 5)),
    "literal with CRLF": ("when: |\r\n  abc\r\n  é X\r\n", (3, 5)),
    "literal in a list in a map": ("a:\n  - when: |\n      abc\n      X\n", (4, 7)),
}


@pytest.mark.parametrize(("text", "place"), SPELLINGS.values(), ids=SPELLINGS.keys())
def test_an_offset_in_a_text_leads_back_to_the_file(text: str, place: tuple[int, int]) -> None:
    """The column of an error inside a condition is the column the author sees, however the text is written."""
    node = scalar(text, "when") if "a:\n" not in text else scalar(text, "a", 0, "when")
    span = node.at(node.text.index("X"))
    assert place == (span.line, span.column)
    segments = [s for s in node.segments() if s[0] <= node.text.index("X")]
    offset, line, column = segments[-1]
    assert place == (line, column + node.text.index("X") - offset)


SCALARS: dict[str, Kind] = {
    "true": "bool",
    "false": "bool",
    "12": "integer",
    "-3": "integer",
    "+3": "integer",
    "0": "integer",
    "": "null",
    "~": "null",
    "null": "null",
    "1.5": "float",
    "1e3": "float",
    "1.0e+3": "float",
    ".inf": "float",
    ".nan": "float",
    "-.5": "float",
    "no": "ambiguous",
    "on": "ambiguous",
    "Yes": "ambiguous",
    "y": "ambiguous",
    "TRUE": "ambiguous",
    "Null": "ambiguous",
    "0777": "ambiguous",
    "010": "ambiguous",
    "0o17": "ambiguous",
    "0x1F": "ambiguous",
    "1_000": "ambiguous",
    "12:30:45": "ambiguous",
    "2026-01-01": "ambiguous",
    "2026-01-01T00:00:00Z": "ambiguous",
    "=": "ambiguous",
    "none": "text",
    "nothing": "text",
    "1.2.3": "text",
    "user:alice": "text",
    "-": "text",
    "12h": "text",
    "1e": "text",
    "yes-man": "text",
    "not": "text",
}


@pytest.mark.parametrize(("spelt", "kind"), SCALARS.items(), ids=lambda x: x or "empty")
def test_a_plain_scalar_is_what_yaml_1_2_says(spelt: str, kind: Kind) -> None:
    """Core rules of YAML 1.2; what YAML 1.1 or a human reads otherwise is `ambiguous`. Quoted, all of it is text."""
    source = first(f"a: {spelt}\n") if spelt != "-" else first('a: "-"\n')
    assert isinstance(source, Mapping)
    node = source.get("a")
    assert isinstance(node, Scalar)
    assert kind == kind_of(node)
    assert kind_of(scalar(f'a: "{spelt}"', "a")) == "text"


REFUSED: dict[str, tuple[bytes, str, str]] = {
    "a duplicate key": (b"a: 1\nb: {c: 1, 'c': 2}\n", "PG002", "2:11: duplicate key `c`, first at line 2 column 5"),
    "an anchor": (b"a: &x 1\n", "PG001", "1:4: found the anchor `&x`"),
    "an alias": (b"a: *x\n", "PG001", "1:4: found the alias `*x`"),
    "a merge key": (b"<<: {a: 1}\n", "PG001", "1:1: found the merge key `<<`"),
    "a tag": (b"a: !!python/object:os.system x\n", "PG001", "1:4: found the tag"),
    "a non-specific tag": (b"a: ! x\n", "PG001", "1:4: found the tag `!`"),
    "a directive": (b"%YAML 1.1\n---\na: 1\n", "PG001", "1:1: found a `%` directive"),
    "bytes that are no UTF-8": (b"a: 1\nb: \xc3\x28\n", "PG001", "2:4: found the byte 0xc3"),
    "UTF-16": ("a: 1".encode("utf-16"), "PG001", "1:1: found the byte 0xff"),
    "a byte order mark": (b"\xef\xbb\xbfa: 1\n", "PG001", "1:1: found a byte order mark"),
    "a tab as indentation": (b"a:\n \tb: 1\n", "PG001", "2:2: found a tab"),
    "a control character": (b"a: x\x07\n", "PG011", "1:5: found the control character U+0007"),
    "a C1 character": ("a: x\x85y\n".encode(), "PG011", "U+0085"),
    "a bidi override": ("a: x\u202ey\n".encode(), "PG011", "1:5: found the invisible or direction-changing"),
    "a zero-width space": ("a: x\u200by\n".encode(), "PG011", "U+200B"),
    "a bidi override as an escape": (b'a: "x\\u202ey"\n', "PG011", "1:6: found an escape for"),
    "a null as an escape": (b'a: "x\\0y"\n', "PG011", "1:6: found an escape for the control character U+0000"),
    "a surrogate as an escape": (b'a: "\\ud800"\n', "PG001", "not YAML"),
    "a lone carriage return": (b"a: 1\rb: 2\n", "PG001", "1:5: found a carriage return"),
    "a list as a key": (b"? [a]\n: 1\n", "PG001", "1:3: found a list as a key"),
    "a map as a key": (b"{{a: 1}: 2}\n", "PG001", "1:2: found a map as a key"),
    "an unclosed list": (b"a: [1\n", "PG001", "not YAML"),
    "65 levels": (b"[" * 65 + b"]" * 65, "PG010", "1:65: found nesting deeper than 64 levels"),
    "200,000 documents": (b"--- a\n" * 200_000, "PG010", "found more than 10000 documents in one file"),
    "a text too long": (b"a: " + b"x" * 65_537, "PG010", "found text of 65537 characters"),
}


@pytest.mark.parametrize(("data", "code", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(data: bytes, code: str, words: str) -> None:
    """I6: each is refused with its code and its place."""
    found = refusal(data)
    assert code in [code for code, _ in found]
    assert any(words in text for _, text in found), found


ACCEPTED = {
    "the same key in two maps": b"a: {c: 1}\nb: {c: 2}\n",
    "an ampersand in text": b"a: x &x\n",
    "a star in quotes": b"a: '*'\n",
    "an exclamation mark in text": b"a: x !x\n",
    "a percent sign in a line": b"a: 100%\n",
    "two angle brackets in quotes": b"'<<': 1\n",
    "a tab between words": b"a: x\ty\n",
    "CRLF line ends": b"a: 1\r\nb: 2\r\n",
    "64 levels": b"[" * 64 + b"]" * 64,
    "a text just short enough": b"a: " + b"x" * 65_536,
    "accents, Greek and Chinese": "a: é λ 中 𝄞\n".encode(),
}


@pytest.mark.parametrize("data", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(data: bytes) -> None:
    """The twins, one step away from what is refused."""
    assert len(read(data, "a.yaml")) == 1


def test_all_errors_of_a_file_come_at_once() -> None:
    """A duplicate key, an anchor and a tag are three errors, not one."""
    assert [code for code, _ in refusal("a: &x 1\na: 2\nb: !t 3\n")] == ["PG001", "PG002", "PG001"]


def test_errors_of_one_file_are_counted() -> None:
    """A file of nothing but errors is not read to its end."""
    assert len(refusal("".join(f"k{i}: &a {i}\n" for i in range(1000)))) == reader.MAX_ERRORS


def test_a_document_that_breaks_is_left_out_and_those_before_remain() -> None:
    """Lint still sees what could be read."""
    errors: list[PolicyError] = []
    assert len(parse("a: 1\n---\nb: [\n", "a.yaml", errors)) == 1
    assert len(errors) == 1


def test_the_number_of_nodes_is_limited_while_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """I6: the parser is not asked for another event once the limit is reached."""
    monkeypatch.setattr(reader, "MAX_NODES", 10)
    assert "more than 10 values" in refusal("[" + "a," * 1000 + "]")[0][1]
    assert len(read("[" + "a," * 9 + "]", "a.yaml")) == 1


def test_size_is_judged_before_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """I6: no byte of a file that is too large is decoded."""
    monkeypatch.setattr(reader, "MAX_FILE_BYTES", 10)
    assert "found 11 bytes, expected at most 10" in refusal(b"\xff" * 11)[0][1]
    assert len(read(b"a: 1234567", "a.yaml")) == 1


def test_values_for_configuration() -> None:
    """`read_value` gives frozen values, and refuses floats, nulls and more than one document."""
    assert FrozenMap(a=(1, True, "x"), b=FrozenMap()) == read_value(b"a: [1, true, x]\nb: {}\n", "c.yaml")
    for wrong in (b"a: 1.5\n", b"a:\n", b"a: no\n", b"a: 9007199254740992\n", b"", b"---\na: 1\n---\nb: 1\n"):
        with pytest.raises(PolicyErrors):
            read_value(wrong, "c.yaml")


def test_the_pure_python_parser_gives_the_same_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyYAML has no C library, places and texts are the same; only the speed differs."""
    texts = [text for text, _ in SPELLINGS.values()] + ["a: &x 1\nb: *x\n<<: 1\n", "[[[1, {a: 'é'}]]]", "a: [\n"]
    fast = [_told(text) for text in texts]
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    slow = [_told(text) for text in texts]
    assert [(nodes, [code for code, _ in errors]) for nodes, errors in fast] == [
        (nodes, [code for code, _ in errors]) for nodes, errors in slow
    ]


def _told(text: str) -> tuple[list[tuple[str, Span, list[int]]], list[tuple[str, str]]]:
    errors: list[PolicyError] = []
    nodes = [node for document in parse(text, "a.yaml", errors) for node in reader.walk(document)]
    scalars = [(node.text, node.span, node.origins()) for node in nodes if isinstance(node, Scalar)]
    return scalars, [(error.code, str(error)) for error in errors]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every event that the reader takes from the parser."""
    event_parser, taken = yaml_events.event_parser, list[object]()

    class Counted:
        def __init__(self, text: str) -> None:
            self.parser = event_parser(text)

        def get_event(self) -> object:
            taken.append(self.parser.get_event())
            return taken[-1]

    monkeypatch.setattr(yaml_events, "event_parser", Counted)
    return taken


MERGES = "".join(
    f"a{i}: &a{i} {{<<: [{', '.join(f'*a{i - 1}' for _ in range(9))}]}}\n" if i else "a0: &a0 {x: 1}\n"
    for i in range(9)
)
ALIASES = "a: &a [x,x]\n" + "".join(f"b{i}: &b{i} [*a,*a,*a]\n" for i in range(20))
DIRECTIVES = "".join(f"%TAG !t{i}! x\n" for i in range(20_000)) + "--- a\n"

BOMBS = {
    "50,000 brackets": ("[" * 50_000, 2 * MAX_DEPTH),
    "200,000 brackets": ("[" * 200_000, 2 * MAX_DEPTH),
    "50,000 braces": ("{a: " * 50_000, 4 * MAX_DEPTH),
    "50,000 dashes": ("- " * 50_000, 2 * MAX_DEPTH),
    "50,000 question marks": ("? " * 50_000, 2 * MAX_DEPTH),
    "a merge-key bomb": (MERGES, len(MERGES)),
    "an alias bomb": (ALIASES, len(ALIASES)),
    "20,000 directives": (DIRECTIVES, 0),
}


@pytest.mark.parametrize(("bomb", "most_events"), BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_refused_before_it_is_expanded(bomb: str, most_events: int, events: list[object]) -> None:
    """I6: expanding one would take minutes; no more events are taken than levels or characters."""
    assert refusal(bomb)
    assert len(events) <= most_events


@pytest.mark.parametrize("time", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5+02:00"])
def test_operators_may_write_times_without_quotes(time: str) -> None:
    """In operator files a whole instant is text either way; a day alone, or a time without a zone, is still refused."""
    assert read_value(f"a: {time}\n", "t.yaml") == read_value(f'a: "{time}"\n', "t.yaml") == {"a": time}
    for less in (time[:10], time[:19]):
        with pytest.raises(PolicyErrors, match="YAML readers take for different things"):
            read_value(f"a: {less}\n", "t.yaml")
