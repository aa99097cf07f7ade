"""Reads YAML strictly, with line and column on every node. Opens no file.

Refused while reading: duplicate keys, anchors, aliases, merge keys, tags, directives, bytes that are not UTF-8,
control, bidi and zero-width characters, tabs as indentation, and anything too large, too long or too deep.
PyYAML only supplies events (`yaml_events.py`); the composer is ours: the C composer recurses and crashes on 50,000
brackets, and with merge keys 235 bytes can cost minutes. Scalars stay text here; `scalars.py` determines their types.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, cast

from policyguard import yaml_events as yaml
from policyguard.errors import PolicyError, PolicyErrors
from policyguard.policy.nodes import Mapping, Node, Scalar, Sequence, Source, Style, walk
from policyguard.policy.scalars import MAX_DIGITS, described, kind_of
from policyguard.text import MAX_QUOTED_CHARS, printable, quoted
from policyguard.values import MAX_INTEGER, FrozenMap, Span, Value

__all__ = ["Mapping", "Node", "Scalar", "Sequence", "Source", "field_span", "parse", "read", "read_value"]
__all__ += ["to_value", "walk"]

MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_NODES = 2_000_000
MAX_DOCUMENTS = 10_000
"""The maximum number of documents in one file, and in a whole folder."""

MAX_DEPTH = 64
MAX_TEXT = 65_536
MAX_ERRORS = 100
"""The reader stops after this number of errors in one file."""

_REFUSED_CHARACTER = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\uffff"
    "\ud800-\udfff\U000e0000-\U000e0fff]|\r(?!\n)"
)
_TAB_INDENT = re.compile("^ *\t", re.MULTILINE)
_DIRECTIVE = re.compile("^%", re.MULTILINE)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[-+]\d\d:\d\d)", re.ASCII)
_STYLES: dict[str | None, Style] = {
    None: "plain",
    "": "plain",
    "'": "single",
    '"': "double",
    "|": "literal",
    ">": "folded",
}


def read(data: bytes | str, file: str) -> list[Node]:
    """Read the documents of one YAML file.

    Raises:
        PolicyErrors: the file has errors; all of them are included.
    """
    errors: list[PolicyError] = []
    documents = parse(data, file, errors)
    if errors:
        raise PolicyErrors(errors)
    return documents


def read_value(data: bytes | str, file: str) -> Value:
    """Read one YAML document as a frozen value (configuration, trust, job files).

    A time with date, `T` and zone is text, quoted or not: YAML versions disagree on its type but not on its meaning.

    Raises:
        PolicyErrors: the reader refuses the file, it has no document or more than one, or a scalar is not a value.
    """
    documents = read(data, file)
    if len(documents) != 1:
        raise PolicyErrors([PolicyError(f"found {len(documents)} documents, expected one", span=Span(file, 1, 1))])
    errors: list[PolicyError] = []
    value = _value(documents[0], errors, instants=True)
    if errors:
        raise PolicyErrors([_named(error, documents[0]) for error in errors])
    return value


def _named(error: PolicyError, document: Node) -> PolicyError:
    """Put the key before a message about its value, where the document is a map."""
    entries = document.entries if isinstance(document, Mapping) else ()
    key = next((key.text for key, node in entries if node.span == error.span), None)
    if key is None:
        return error
    return PolicyError(f"{printable(key)}: {error.message}", span=error.span, code=error.code, help=error.help)


def field_span(data: bytes | str, file: str, path: Iterable[str]) -> Span:
    """Find where a readable file has a field: the last key of the path that it has, else its first character.

    Args:
        data: the content of the file, which `read_value` accepts.
        file: its name, for the span.
        path: the keys from the top.
    """
    node, span = read(data, file)[0], Span(file, 1, 1)
    for name in path:
        key = node.key(name) if isinstance(node, Mapping) else None
        if key is None or not isinstance(node, Mapping):
            break
        node, span = cast(Node, node.get(name)), key.span
    return span


def to_value(node: Node, errors: list[PolicyError]) -> Value | None:
    """Convert a node to a value; None if there is an error, which is added to `errors`."""
    before = len(errors)
    value = _value(node, errors)
    return value if len(errors) == before else None


def _value(node: Node, errors: list[PolicyError], *, instants: bool = False) -> Value:
    if isinstance(node, Mapping):
        return FrozenMap({key.text: _value(item, errors, instants=instants) for key, item in node.entries})
    if isinstance(node, Sequence):
        return tuple(_value(item, errors, instants=instants) for item in node.items)
    kind = kind_of(node)
    if kind == "text" or (instants and kind == "ambiguous" and _INSTANT.fullmatch(node.text)):
        return node.text
    if kind == "bool":
        return node.text == "true"
    if kind == "integer" and len(node.text) <= MAX_DIGITS and abs(int(node.text)) <= MAX_INTEGER:
        return int(node.text)
    if kind == "integer":
        _report(errors, "PG005", node.span, f"found {described(node)}, expected one within 2^53 - 1, or text in quotes")
    elif kind != "refused":
        code = "PG405" if kind == "float" else "PG005"
        _report(errors, code, node.span, f"found {described(node)}, expected a bool, an integer, or text in quotes")
    return ""


def parse(data: bytes | str, file: str, errors: list[PolicyError]) -> list[Node]:
    """Read the documents of a file; add every error to `errors`, and never raise on bad data.

    Args:
        data: the content of the file.
        file: its name, for spans.
        errors: where errors are added.

    Returns:
        The documents whose syntax is complete; refused parts (a duplicate key, an alias) are not in them.
    """
    text = _text(data, file, errors)
    if text is None:
        return []
    source = Source(file, text)
    if not _characters(source, errors):
        return []
    return _Composer(source, errors).compose()


def _text(data: bytes | str, file: str, errors: list[PolicyError]) -> str | None:
    # INVARIANT I6: size is checked before a byte is decoded or parsed.
    if len(data) > MAX_FILE_BYTES:
        _report(errors, "PG010", Span(file, 1, 1), f"found {len(data)} bytes, expected at most {MAX_FILE_BYTES}")
        return None
    if isinstance(data, str):
        return data
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        before = data[: problem.start].decode()
        span = Source(file, before).span(len(before))
        _report(errors, "PG001", span, f"found the byte 0x{data[problem.start]:02x}, expected UTF-8 text")
        return None


def _characters(source: Source, errors: list[PolicyError]) -> bool:
    """Return True if the parser may read the text; report every refused character."""
    before = len(errors)
    for match in _REFUSED_CHARACTER.finditer(source.text):
        if len(errors) - before >= MAX_ERRORS:
            return False
        code, name = _character(match[0], match.start())
        _report(errors, code, source.span(match.start()), f"found {name}, expected printable text")
    for match in _TAB_INDENT.finditer(source.text):
        if len(errors) - before >= MAX_ERRORS:
            return False
        _report(errors, "PG001", source.span(match.end() - 1), "found a tab as indentation, expected spaces")
    # The parser compares each %TAG with all before it, ahead of the first event: refused here, not there.
    directive = _DIRECTIVE.search(source.text)
    if directive is not None:
        _report(errors, "PG001", source.span(directive.start()), "found a `%` directive, expected none")
    return len(errors) == before


def _character(character: str, index: int) -> tuple[str, str]:
    if character == "\ufeff" and index == 0:
        return "PG001", "a byte order mark"
    if character == "\r":
        return "PG001", "a carriage return without a line feed"
    kind = "control character" if character < "\xa0" else "invisible or direction-changing character"
    return "PG011", f"the {kind} U+{ord(character):04X}"


class _StopReading(Exception):
    """Stops reading this file; the error has already been reported."""


class _Composer:
    """Builds nodes from YAML events with an explicit stack, so that deep nesting cannot overflow."""

    def __init__(self, source: Source, errors: list[PolicyError]) -> None:
        self.source = source
        self.errors = errors
        self.error_limit = len(errors) + MAX_ERRORS
        self.documents: list[Node] = []
        self.open: list[tuple[Mapping | Sequence | None, Scalar | None]] = []
        """The open collections, outermost first: each with its parent, and the parent's key that awaits a value."""

    def compose(self) -> list[Node]:
        """Read all events and return the complete documents."""
        parser = yaml.event_parser(self.source.text)
        first = Span(self.source.file, 1, 1)
        try:
            self.read(parser.get_event)
        except _StopReading:
            pass
        except yaml.MarkedYAMLError as problem:
            mark = problem.problem_mark or problem.context_mark
            span = Span(self.source.file, mark.line + 1, mark.column + 1) if mark else first
            detail = " ".join(part for part in (problem.context, problem.problem) if part)
            _report(self.errors, "PG001", span, f"not YAML: {_plain_words(detail)}")
        except yaml.YAMLError as problem:
            _report(self.errors, "PG001", first, f"not YAML: {_plain_words(str(problem))}")
        if self.open:
            self.documents.pop()
        return self.documents

    def read(self, next_event: Callable[[], Any]) -> None:
        """Read events to the end of the stream.

        One loop without calls, for speed: it runs once per value.
        """
        parent: Mapping | Sequence | None = None
        waiting: Scalar | None = None
        for _ in range(2 * MAX_NODES):
            event = next_event()
            kind = type(event)
            if kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                parent, waiting = self.open.pop()
                continue
            node = self.node(event, kind)
            if node is None:
                if kind is yaml.StreamEndEvent:
                    return
                continue
            if parent is None:
                self.documents.append(node)
                if len(self.documents) > MAX_DOCUMENTS:
                    self.stop(node, f"found more than {MAX_DOCUMENTS} documents in one file")
            elif type(parent) is Sequence:
                parent.items.append(node)
            elif waiting is None:
                waiting = node if type(node) is Scalar else self.key(node)
            else:
                self.entry(cast(Mapping, parent), waiting, node)
                waiting = None
            if type(node) is not Scalar:
                self.open.append((parent, waiting))
                parent, waiting = cast("Mapping | Sequence", node), None
                # INVARIANT I6: depth and the number of values are checked before the next event is read.
                if len(self.open) > MAX_DEPTH:
                    self.stop(node, f"found nesting deeper than {MAX_DEPTH} levels")
        self.stop(self.documents[-1], f"found more than {MAX_NODES} values in one file")

    def node(self, event: Any, kind: type) -> Node | None:
        """Return the node that an event begins; None for events of the stream and of documents."""
        if kind is yaml.ScalarEvent:
            text, style = event.value, _STYLES[event.style]
            scalar = Scalar(self.source, event.start_mark.index, event.end_mark.index, text, style)
            if len(text) > MAX_TEXT or style == "double":
                self.check_text(scalar)
            node: Node = scalar
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            node = (Mapping if kind is yaml.MappingStartEvent else Sequence)(self.source, event.start_mark.index)
        elif kind is yaml.AliasEvent:
            return self.alias(event)
        else:
            return None
        if event.anchor is not None:
            self.report(
                "PG001", node.span, f"found the anchor `&{printable(event.anchor, MAX_QUOTED_CHARS)}`, expected none"
            )
        if event.tag is not None:
            self.report("PG001", node.span, f"found the tag {quoted(event.tag)}, expected none")
        return node

    def check_text(self, node: Scalar) -> None:
        """Report a text that is too long, or has a refused character as an escape."""
        if len(node.text) > MAX_TEXT:
            self.report("PG010", node.span, f"found text of {len(node.text)} characters, expected at most {MAX_TEXT}")
        elif match := _REFUSED_CHARACTER.search(node.text):
            _, name = _character(match[0], 1)
            self.report("PG011", node.at(match.start()), f"found an escape for {name}, expected printable text")

    def alias(self, event: Any) -> Scalar:
        # INVARIANT I6: an alias is never followed, so nothing is larger in memory than in the file.
        node = Scalar(self.source, event.start_mark.index, event.start_mark.index, "", "refused")
        self.report(
            "PG001",
            node.span,
            f"found the alias `*{printable(event.anchor, MAX_QUOTED_CHARS)}`, expected the text itself",
        )
        return node

    def key(self, node: Node) -> Scalar:
        """Report a collection used as a key; return a placeholder for it."""
        shape = "a map" if isinstance(node, Mapping) else "a list"
        self.report("PG001", node.span, f"found {shape} as a key, expected text")
        return Scalar(self.source, node.index, node.index, "", "refused")

    def entry(self, parent: Mapping, key: Scalar, node: Node) -> None:
        """Add an entry to a map, or report a merge key or a duplicate."""
        if key.text == "<<" and key.style == "plain":
            self.report("PG001", key.span, "found the merge key `<<`, expected the fields themselves")
        # INVARIANT I6: keys are unique; a second block cannot silently replace the first.
        elif key.style != "refused" and not parent.add(key, node):
            first = next(other for other, _ in parent.entries if other.text == key.text)
            at = f"line {first.span.line} column {first.span.column}"
            self.report("PG002", key.span, f"duplicate key {quoted(key.text)}, first at {at}")

    def stop(self, node: Node, message: str) -> None:
        self.report("PG010", node.span, message)
        raise _StopReading

    def report(self, code: str, span: Span, message: str) -> None:
        _report(self.errors, code, span, message)
        if len(self.errors) >= self.error_limit:
            raise _StopReading


def _plain_words(text: str) -> str:
    sentence = " ".join(text.replace("`", "'").split()).lower()
    return printable(re.sub(r"'([^']*)'", r"`\1`", sentence), 160)


def _report(errors: list[PolicyError], code: str, span: Span, message: str, help: str | None = None) -> None:
    errors.append(PolicyError(message, span=span, code=code, help=help))
