"""Reads YAML tolerantly: anchors, merge keys, tags and several documents, as other libraries do.

Scalars stay text. An alias is the node itself, so nothing grows; a merge key adds the entries it names. Tags are
handed on resolved, with `%TAG` and percent-encoding taken out by the parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from policyguard import yaml_events as yaml
from policyguard.scan.settings.tree import MAX_NODES, Map, TooDeep, Unreadable

MAX_DEPTH = 500
MAX_DIRECTIVES = 64
MAX_PURE_CHARS = 2**18
"""PyYAML's slow parser only reads up to this many characters, after libyaml refused the text."""

_DIRECTIVE = re.compile("^%", re.MULTILINE)
_END = re.compile(r"^\.\.\.(?=[ \t]*\r?\n\s*[^\s%#-])", re.MULTILINE)
OnTag = Callable[[str, object, str], None]
"""Called with a resolved tag, the node (collections are still empty) and its `line:column`."""


def yaml_documents(text: str, on_tag: OnTag, check_time: Callable[[], None]) -> list[object]:
    """Read the YAML documents in a text.

    Args:
        on_tag: receives each tag that is written in the text.
        check_time: called now and then; raises when the time is up.

    Raises:
        TooDeep: too deep, too many nodes, or too many directives.
        Unreadable: not YAML for either parser; complete documents and the one that breaks are in `partial`.
    """
    # The parser compares each %TAG with all before it, ahead of the first event.
    if sum(1 for _ in zip(_DIRECTIVE.finditer(text), range(MAX_DIRECTIVES + 1), strict=False)) > MAX_DIRECTIVES:
        raise TooDeep(f"more than {MAX_DIRECTIVES} lines that begin with `%`")
    # Other parsers accept a bare document behind `...`, where PyYAML wants `---`.
    text = _END.sub("---", text)
    try:
        return _Composer(on_tag, check_time).documents_of(text)
    except Unreadable as problem:
        if len(text) > MAX_PURE_CHARS:
            raise
        try:
            return _Composer(on_tag, check_time).documents_of(text, pure=True)
        except Unreadable as again:
            raise max(problem, again, key=lambda one: len(one.partial)) from None


class _Composer:
    def __init__(self, on_tag: OnTag, check_time: Callable[[], None]) -> None:
        self.on_tag, self.check_time = on_tag, check_time
        self.documents: list[object] = []
        self.anchors: dict[str, object] = {}
        self.sizes: dict[int, int] = {}
        """The number of values in each anchored collection, with aliases expanded."""
        self.stack: list[_Open] = []
        self.count = 0

    def documents_of(self, text: str, *, pure: bool = False) -> list[object]:
        try:
            self._read(yaml.event_parser(text, pure=pure).get_event)
        except (yaml.YAMLError, ValueError, RecursionError, IndexError, AttributeError, TypeError) as problem:
            mark = getattr(problem, "problem_mark", None) or getattr(problem, "context_mark", None)
            location = f"{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
            reason = getattr(problem, "problem", None) or str(problem).partition("\n")[0] or "an error of the parser"
            if "nesting depth" in reason:
                raise TooDeep(f"YAML: {reason}") from None
            while self.stack:
                self._close()
            raise Unreadable(f"not YAML: {reason}", location, tuple(self.documents)) from None
        return self.documents

    def _read(self, next_event: Callable[[], Any]) -> None:
        while True:
            event = next_event()
            kind = type(event)
            if kind is yaml.StreamEndEvent:
                return
            if kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                self._close()
            elif kind is yaml.DocumentEndEvent:
                self.anchors.clear()
            elif kind is yaml.AliasEvent:
                node = self.anchors.get(event.anchor, "")
                self._add(node, self.sizes.get(id(node), 1))
            elif kind in (yaml.ScalarEvent, yaml.MappingStartEvent, yaml.SequenceStartEvent):
                self._node(event, kind)

    def _node(self, event: Any, kind: type) -> None:
        is_scalar = kind is yaml.ScalarEvent
        node: object = event.value if is_scalar else Map() if kind is yaml.MappingStartEvent else []
        if event.tag is not None and event.tag != "!":
            self.on_tag(event.tag, node, f"{event.start_mark.line + 1}:{event.start_mark.column + 1}")
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        if is_scalar:
            self._add(node)
            return
        self.stack.append(_Open(node, event.anchor is not None))
        if len(self.stack) > MAX_DEPTH:
            raise TooDeep(f"YAML nested deeper than {MAX_DEPTH} levels")

    def _close(self) -> None:
        closed = self.stack.pop()
        if closed.has_anchor:
            self.sizes[id(closed.node)] = closed.size
        self._add(closed.node, closed.size)

    def _add(self, node: object, size: int = 1) -> None:
        self._spend(1)
        if self.stack:
            self.stack[-1].size += size
            if self.stack[-1].size > MAX_NODES:
                raise TooDeep(f"more than {MAX_NODES} values, aliases counted")
        if not self.stack:
            self.documents.append(node)
            return
        top = self.stack[-1]
        if type(top.node) is list:
            top.node.append(node)
        elif not top.has_key:
            top.key, top.has_key = node, True
        else:
            self._entry(top, node)

    def _entry(self, top: _Open, value: object) -> None:
        entries, key = top.node, top.key
        assert type(entries) is Map
        top.key, top.has_key = None, False
        if key == "<<":
            for merged in value if type(value) is list else [value]:
                if type(merged) is Map and merged is not entries:
                    self._spend(len(merged))
                    entries.extend(merged)
        elif type(key) is str:
            entries.append((key, value))
        else:
            entries.extend((("", key), ("", value)))

    def _spend(self, count: int) -> None:
        before = self.count
        self.count += count
        if self.count > MAX_NODES:
            raise TooDeep(f"more than {MAX_NODES} values")
        if before >> 14 != self.count >> 14:
            self.check_time()


class _Open:
    """A collection that is being read, with the map key that waits for its value."""

    __slots__ = ("has_anchor", "has_key", "key", "node", "size")

    def __init__(self, node: object, has_anchor: bool) -> None:
        self.node, self.has_anchor, self.size = node, has_anchor, 1
        self.key: object = None
        self.has_key = False
