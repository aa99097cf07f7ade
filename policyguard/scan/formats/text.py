"""Text: clean if no loader of it runs anything. Settings are parsed, never searched by patterns.

text = template / *json / yaml / toml / ini / prose. A file that begins as JSON, or has a name of settings, but does not
parse is unknown, because it is neither plain text nor understood.
"""

from __future__ import annotations

import re

from policyguard.scan.findings import Findings
from policyguard.scan.formats.chat_template import MAX_TEMPLATE, check_template, is_template
from policyguard.scan.formats.embedded_code import begins_as_template, is_named_as_template, template_escape
from policyguard.scan.formats.side_files import check_side_file
from policyguard.scan.settings.expressions import is_program
from policyguard.scan.settings.flat_tree import begins_as_section, ini_tree, toml_tree
from policyguard.scan.settings.json_tree import json_documents, without_comments
from policyguard.scan.settings.judge import judge_settings
from policyguard.scan.settings.proto_tree import proto_tree
from policyguard.scan.settings.rules import is_requirement
from policyguard.scan.settings.tags import Tags
from policyguard.scan.settings.tree import Map, TooDeep, Unreadable
from policyguard.scan.settings.yaml_tree import yaml_documents
from policyguard.scan.source import Source

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_LFS = b"version https://git-lfs.github.com/spec/"
_JSON_LIKE = re.compile(r"(?:\s|//[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*(?:\{(?![{%#])|\[\s*(?:[\[{\"']|-?\d))")
_SETTINGS_NAME = re.compile(
    r"\.(?:json[5c]?|jsonl|jsonnet|libsonnet|hjson|hcl|cson|ndjson|ya?ml|toml|zarray|zattrs|zgroup|zmetadata|hocon)\Z"
    r"|\A(?:MLmodel|\.zarray|\.zattrs|\.zgroup|\.zmetadata|MLproject)\Z",
    re.IGNORECASE,
)
_FLAT_NAME = re.compile(r"\.(?:ini|cfg|conf|config|env|properties|toml|desktop|service)\Z|\A\.?env\Z", re.IGNORECASE)
_PROTO_NAME = re.compile(r"\.(?:pbtxt|prototxt|textproto|txtpb)\Z", re.IGNORECASE)
_XML_NAME = re.compile(r"\.(?:xml|pmml|urdf|mjcf|xacro)\Z", re.IGNORECASE)
_REQUIREMENTS_NAME = re.compile(r"\A(?:[\w.-]*requirements[\w.-]*|constraints[\w.-]*)\.(?:txt|in)\Z", re.IGNORECASE)
_STRUCTURE = re.compile(r"[:!?&*%{\[-]")
_NAMING = (
    *("hub.", "ckpt.target_", "ckpt.keras_", "ckpt.pickled_", "ckpt.unsafe_", "ckpt.external_"),
    "ckpt.expression_call",
)
"""Reasons that only a key can give; text in a page or a log gives others."""

_POLICY_FIELDS = {
    "Tests": frozenset({"apiVersion", "kind", "metadata", "now", "facts", "cases", "matrix"}),
    "Policy": frozenset({"apiVersion", "kind", "metadata", "scope", "mode", "definitions", "rules"}),
}
"""The top-level fields of the documents of policyguard whose texts could be taken for code."""

_MAX_YAML_CHARS = 2**24


def scan_text(source: Source, findings: Findings) -> str:
    """Scan text for code that a loader of it would run.

    Returns:
        `text`, `json`, `lfs_pointer`, or `unknown` for what is no text.
    """
    head = source.read(0, 512)
    if source.size > findings.limits.text_bytes or b"\0" in head:
        return _unknown(findings)
    data = source.read(0, source.size)
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        return _unknown(findings)
    if _CONTROL.search(text):
        return _unknown(findings)
    if head.startswith(_LFS):
        findings.add("ckpt.format_opaque", "a git-lfs pointer; the file itself was not fetched")
        return "lfs_pointer"
    return _scan(text, data, findings)


def _scan(text: str, data: bytes, findings: Findings) -> str:
    if text.startswith("#!"):
        findings.add("ckpt.code_file", "a script", "1:1")
    if is_program(text.replace("\r", "\n")):
        findings.add("ckpt.code_file", "a Python program", "1:1")
    check_side_file(text, data, findings)
    if _XML_NAME.search(findings.name):
        findings.add("ckpt.format_opaque", "xml", "1:1")
    if _PROTO_NAME.search(findings.name):
        _proto(text, findings)
        findings.configuration(data)
        return "text"
    if _JSON_LIKE.match(text) and _any_json(text, findings):
        findings.configuration(data)
        return "json"
    is_named = is_named_as_template(findings.name)
    if is_whole := is_named or begins_as_template(text):
        check_template(text, findings, is_declared=is_named)
    # INVARIANT I18: the reader chooses the syntax, so a text is judged in every syntax in which it is settings.
    is_yaml = _yaml(text, findings)
    if _judge_flat(text, findings, is_yaml=is_yaml) or is_yaml:
        findings.configuration(data)
        return "text"
    # INVARIANT I18: what is named or begins as settings and does not parse is not understood, so it is not clean.
    if _SETTINGS_NAME.search(findings.name) or _JSON_LIKE.match(text):
        findings.add("ckpt.config_broken", findings.name, "1:1")
    if not is_whole and ((escape := template_escape(text)) or (escape := _computed(text, findings))):
        findings.add("ckpt.template_unread", escape)
    return "text"


def _proto(text: str, findings: Findings) -> None:
    """Judge the text format of protocol buffers, which is recognised by name only."""
    try:
        judge_settings(proto_tree(text), findings, name=findings.name)
    except TooDeep as problem:
        findings.add("ckpt.too_deep", str(problem))
    except Unreadable as problem:
        findings.add("ckpt.config_broken", problem.reason, problem.location)
    _yaml(text, findings)


def _any_json(text: str, findings: Findings) -> bool:
    """Judge JSON, with comments too; what one reader takes for a comment is an entry for a reader of YAML."""
    if _json(text, findings):
        return True
    plain = without_comments(text)
    is_json = _json(plain, findings)
    if is_json or plain != text:
        # JSON5 also has single quotes, which YAML reads.
        _yaml(text if is_json else plain, findings)
    return is_json


def _computed(text: str, findings: Findings) -> str:
    """Describe the computation that complete template blocks in a running text do; empty if there is none."""
    if not is_template(text) or len(text) > MAX_TEMPLATE:
        return ""
    trial = Findings(limits=findings.limits, clock=findings.clock)
    check_template(text, trial, is_declared=False)
    details = sorted(reason.detail for reason in trial.reasons)
    return next((detail for detail in details if detail.startswith(("a computed", "filter attr"))), "")


def _json(text: str, findings: Findings) -> bool:
    """Judge JSON; return True if the whole text is JSON."""
    try:
        values = json_documents(text)
    except Unreadable:
        return False
    except TooDeep as problem:
        findings.add("ckpt.too_deep", str(problem))
        return True
    are_records = len(values) > 1 and all(type(value) is Map for value in values)
    for index, value in enumerate(values):
        location = "$" if len(values) == 1 else f"line {index + 1} $"
        judge_settings(value, findings, name=findings.name, location=location, is_records=are_records)
    return True


def _yaml(text: str, findings: Findings) -> bool:
    """Judge YAML; return True if the text is YAML with a map or a list in it."""
    if not _STRUCTURE.search(text):
        return False
    tags = Tags(findings)
    try:
        if len(text) > _MAX_YAML_CHARS:
            raise TooDeep(f"more than {_MAX_YAML_CHARS} characters that may be YAML")
        documents = yaml_documents(text, tags.record, findings.check_time)
    except TooDeep as problem:
        if len(text) > _MAX_YAML_CHARS and not _SETTINGS_NAME.search(findings.name):
            return False
        findings.add("ckpt.too_deep", str(problem))
        return True
    except Unreadable as problem:
        _partial(problem, tags, findings)
        return False
    tags.report()
    for index, document in enumerate(documents):
        location = "$" if len(documents) == 1 else f"document {index + 1} $"
        # A document of one text is running text.
        if type(document) is not str:
            is_data = _is_policy(document)
            judge_settings(document, findings, name=findings.name, location=location, is_records=is_data)
    return any(type(document) is not str for document in documents)


def _is_policy(document: object) -> bool:
    """Return True for our own policies and tests: their texts are conditions and facts; keys that name code count."""
    if type(document) is not Map:
        return False
    entries = dict(document)
    fields = _POLICY_FIELDS.get(str(entries.get("kind")), frozenset())
    # Of a repeated key, readers take the first or the last.
    is_unique = len(entries) == len(document)
    return is_unique and entries.get("apiVersion") == "policyguard/v1" and entries.keys() <= fields


def _partial(problem: Unreadable, tags: Tags, findings: Findings) -> None:
    """Judge the documents before the position where YAML breaks: some loaders read those first.

    A page whose text happens to begin as YAML has nothing in it that names code.
    """
    trial = Findings(limits=findings.limits, clock=findings.clock, name=findings.name)
    for document in problem.partial:
        judge_settings(document, trial)
    # Braces in running text are a mention; under a key that says so they are a template.
    reasons = [one for one in sorted(trial.reasons) if one.code.startswith(_NAMING) or "template" in one.where]
    if reasons or tags.are_harmful:
        reason = next(iter(reasons), None)
        detail = f"{problem.reason}, behind {reason.detail if reason else 'a tag that builds an object'}"
        findings.add("ckpt.config_broken", detail, problem.location)


def _judge_flat(text: str, findings: Findings, *, is_yaml: bool) -> bool:
    """Judge TOML and INI; return True if the text is one of them. Requirements are recognised by name only."""
    if _REQUIREMENTS_NAME.search(findings.name):
        for number, line in enumerate(text.splitlines()):
            line = line.partition("#")[0].strip()
            if line and not is_requirement(line):
                findings.add("ckpt.requirement", line, f"{number + 1}:1")
        return True
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    tree = toml_tree(text)
    if tree is not None:
        judge_settings(tree, findings, name=findings.name)
    # A text of several lines in TOML may be entries of INI, and so may lines of YAML below a heading.
    has_other_lines = '"""' in text or "'''" in text if tree is not None else not is_yaml
    if has_other_lines or (tree is None and begins_as_section(text)):
        entries = ini_tree(text, is_named=_FLAT_NAME.search(findings.name) is not None)
        if entries is not None:
            judge_settings(entries, findings, name=findings.name)
    return tree is not None


def _unknown(findings: Findings) -> str:
    findings.add("ckpt.format_unknown")
    return "unknown"
