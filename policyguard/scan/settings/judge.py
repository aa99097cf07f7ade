"""Walks settings and judges each entry by its key, each map by its shape, and each text by its content."""

from __future__ import annotations

import base64
import enum
import re

from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.formats.chat_template import check_template, is_template
from policyguard.scan.formats.embedded_code import template_escape
from policyguard.scan.pickles.files import scan_whole
from policyguard.scan.pickles.machine import Dialect
from policyguard.scan.settings import rules
from policyguard.scan.settings.expressions import is_shell, judge_value
from policyguard.scan.settings.hub import NAMING_KEYS
from policyguard.scan.settings.json_tree import json_documents
from policyguard.scan.settings.names import reaches_code
from policyguard.scan.settings.report import Report
from policyguard.scan.settings.shapes import check_shapes
from policyguard.scan.settings.tree import Location, Map, TooDeep, Unreadable
from policyguard.scan.source import BytesSource

MAX_EMBEDDED = 4
"""The maximum depth of JSON in texts in JSON."""

MAX_EMBEDDED_CHARS = 2**24
_PARSED, _SEARCHED = 100, 4
_SUSPECT = re.compile(r"[$({=]|__|\.[A-Za-z_]|lambda|:[A-Za-z_]|^\s*\[|;|\||^\s*(?:gA[I-X]|80\s*0[2-5])")
_PICKLE = re.compile(r"\s*(?:gA[I-X][\w+/=\s-]{8,}|80\s*0[2-5][\da-fA-F\s]{8,})")
"""A pickle of protocol 2 to 5, in base64 or hexadecimal digits."""
_URL_SAFE = str.maketrans("+/", "-_")

_OVERRIDDEN = re.compile(r"(?:\+\+?|~)?[\w.@/()-]+")
_VOCABULARIES = ("BPE", "WordPiece", "Unigram", "WordLevel")


def judge_settings(
    root: object, findings: Findings, *, name: str = "", location: str = "$", is_records: bool = False
) -> None:
    """Add a finding for everything in the settings that a loader would run, or read from outside the folder.

    Args:
        root: what a reader of settings produced.
        findings: receives the findings, each with its path.
        name: what the file is called.
        location: the path to the root.
        is_records: a table of records, one a line: its texts are data, and only keys that name code count.
    """
    _Walk(Report(findings, name), is_records).run(root, Location(None, location))


def judge_embedded(key: str, text: str, findings: Findings, location: str) -> None:
    """Judge a metadata entry of another format: as settings if it is JSON, as a template, or as data.

    Args:
        key: the key of the entry.
        text: its value.
        findings: receives the findings.
        location: the path to the metadata.
    """
    walk, below = _Walk(Report(findings), is_records=True), Location(Location(None, location), key)
    if key in rules.INSTANTIATED:
        rules.entry(key, text, below, walk.report)
    walk.run(text, below)


class _Context(enum.Enum):
    """The context of a value: below a key that names hub code, among the words of a vocabulary, or in settings."""

    SETTINGS = enum.auto()
    NAMED = enum.auto()
    VOCABULARY = enum.auto()


def _has_vocabulary(entries: Map) -> bool:
    """Return True for a tokenizer's model; older files do not say which kind it is."""
    if any(key == "vocab" for key, _ in entries):
        return entries.has("merges") or any(kind in _VOCABULARIES for kind in entries.texts("type"))
    return False


def _is_plain_word(item: object) -> bool:
    """Return True for a word, or a pair with a word in it, that no loader evaluates. Vocabularies have a million."""
    if type(item) is str:
        return "$" not in item
    return type(item) is list and all(type(part) is float or (type(part) is str and "$" not in part) for part in item)


class _Walk:
    def __init__(self, report: Report, is_records: bool, depth: int = 0) -> None:
        self.report, self.is_records, self.depth = report, is_records, depth
        self.waiting: list[tuple[object, Location, _Context]] = []
        self.seen: set[int] = set()
        self.is_named = False

    def run(self, root: object, location: Location) -> None:
        self.visit(root, location, _Context.SETTINGS)
        count = 0
        while self.waiting:
            count += 1
            if not count & 1023:
                self.report.check_time()
            node, location, context = self.waiting.pop()
            # An alias is the node itself: judged once, and a circle ends.
            if id(node) in self.seen:
                continue
            self.seen.add(id(node))
            if type(node) is Map:
                self.map(node, location, context)
            elif type(node) is list:
                self.items(node, location, context)

    def items(self, items: list[object], location: Location, context: _Context) -> None:
        is_vocabulary = context is _Context.VOCABULARY
        for index, item in enumerate(items):
            if type(item) is not float and not (is_vocabulary and _is_plain_word(item)):
                self.visit(item, Location(location, index), context)

    def visit(self, value: object, location: Location, context: _Context) -> None:
        if type(value) is str:
            if context is _Context.VOCABULARY:
                if value.lstrip().startswith("$"):
                    self.expression(value, location)
            elif _SUSPECT.search(value):
                self.text(value, location)
        elif type(value) is Map or type(value) is list:
            self.waiting.append((value, location, context))

    def map(self, entries: Map, location: Location, context: _Context) -> None:
        check_shapes(entries, location, self.report)
        has_vocabulary = _has_vocabulary(entries)
        for index, (key, value) in enumerate(entries):
            if not index & 4095:
                self.report.check_time()
            if "{" in key and (escape := template_escape(key)):
                self.report.add("ckpt.template_unread", f"a key: {escape}", Location(location, key))
            if value is None or (type(value) is float and key not in rules.SWITCHES):
                continue
            below = Location(location, key)
            if has_vocabulary and key in ("vocab", "merges"):
                self.visit(value, below, _Context.VOCABULARY)
                continue
            count = len(self.report.findings.reasons)
            rules.entry(key, value, below, self.report, is_named=context is _Context.NAMED)
            self.is_named = len(self.report.findings.reasons) > count
            self.visit(value, below, _Context.NAMED if key in NAMING_KEYS else context)
            self.is_named = False

    def text(self, text: str, location: Location) -> None:
        if is_template(text):
            is_declared = "template" in str(location).casefold()
            if is_declared or not self.is_records:
                check_template(text, self.report.findings, str(location), is_declared=is_declared)
            if text.lstrip().startswith(("{{", "{%")):
                return
        if _PICKLE.fullmatch(text) and self.pickle(text.strip(), location):
            return
        if self.embedded(text, location) or self.is_records:
            return
        # What the rule of its key has reported is not reported again.
        if self.is_named:
            return
        self.expression(text, location)
        if reaches_code(text.removeprefix("ext://").removeprefix("cfg://")):
            self.report.add("ckpt.target_unlisted", text, location)
        elif is_shell(text):
            self.report.add("ckpt.shell_text", text, location)
        elif rules.names_code_file(text):
            self.report.add("hub.own_code", text, location)
        elif override := _override(text):
            key, value = override
            rules.entry(key, value, Location(location, key), self.report)
            if reaches_code(value):
                self.report.add("ckpt.target_unlisted", value, location)

    def expression(self, text: str, location: Location) -> None:
        # Parsing takes as long as reading a number of opcodes.
        self.report.findings.spend_opcodes(_PARSED if text.lstrip().startswith("$") else _SEARCHED)
        verdict = judge_value(text)
        if verdict is Verdict.HOSTILE:
            self.report.add("ckpt.expression_call", text, location)
        elif verdict is not Verdict.CLEAN:
            self.report.add("ckpt.expression", text, location)

    def pickle(self, text: str, location: Location) -> bool:
        """Judge a pickle that is the whole of a text; return True if it is one."""
        try:
            data = bytes.fromhex(text) if text[:1] == "8" else base64.urlsafe_b64decode(text.translate(_URL_SAFE))
        except ValueError:
            return False
        if data[-1:] != b".":
            return False
        # INVARIANT I18: a loader that keeps pickles in settings reads them as `pickle.load` does.
        self.report.add("ckpt.pickled_column", "a pickle as text", location)
        scan_whole(BytesSource(data), self.report.findings, Dialect())
        return True

    def embedded(self, text: str, location: Location) -> bool:
        """Judge a text that is JSON as a whole; return True if it is."""
        stripped = text.strip()
        if stripped[:1] + stripped[-1:] not in ("{}", "[]") or len(stripped) > MAX_EMBEDDED_CHARS:
            return False
        try:
            values = json_documents(stripped)
        except (Unreadable, TooDeep):
            return False
        if self.depth >= MAX_EMBEDDED:
            self.report.add("ckpt.too_deep", "JSON in texts in JSON", location)
            return True
        for value in values:
            _Walk(self.report, False, self.depth + 1).run(value, location)
        return True


def _override(text: str) -> tuple[str, str] | None:
    """Split a hydra override such as `model.optimizer._target_=torch.optim.SGD` into last key and value."""
    path, equals, value = text.partition("=")
    if not equals or value[:1] in ("", "=", " ", "\t", "\n") or not _OVERRIDDEN.fullmatch(path):
        return None
    key = re.split(r"[.@/]", path)[-1].lstrip("+~")
    return (key, value.strip("\"' ")) if key else None
