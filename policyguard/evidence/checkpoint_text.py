"""Text and JSON: harmless as data, unless it names code that a loader of it runs."""

from __future__ import annotations

import json
import re

from policyguard.evidence.archive_source import Source
from policyguard.evidence.checkpoint_report import Findings, Verdict
from policyguard.evidence.hub import named_by
from policyguard.evidence.pickle_allowlist import is_standard, judged

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_PYTHON_TAG = re.compile(r"!!?python/|!<tag:yaml\.org,2002:python/|tag:yaml\.org,2002:python/")
_LFS = b"version https://git-lfs.github.com/spec/"
_NAMED_CODE = {"own": "hub.own_code", "foreign": "hub.foreign_code", "kernel": "hub.remote_kernels"}
"""`import` is left out: an adapter that names an installed library is as good as the environment is."""
_TARGET = re.compile(r"""_target_["']?[ \t]*:[ \t]*["']?([\w.]+)""", re.ASCII)
"""hydra's `instantiate`, as in NeMo's archives; in YAML only in its plain spelling."""
_HARMLESS_TARGETS = ("collections", "datetime", "decimal", "fractions", "math", "pathlib", "uuid")


def scan_text(source: Source, head: bytes, findings: Findings) -> str:
    """Return `text`, `json`, `lfs_pointer`, or `unknown` for what is no text; findings hold the code that it names."""
    if source.size > findings.limits.text_bytes or b"\0" in head:
        return _unknown(findings)
    try:
        text = source.read(0, source.size).decode("utf-8")
    except UnicodeDecodeError:
        return _unknown(findings)
    if _CONTROL.search(text):
        return _unknown(findings)
    if head.startswith(_LFS):
        findings.add("ckpt.format_opaque", "a git-lfs pointer; the file itself was not fetched")
        return "lfs_pointer"
    if _PYTHON_TAG.search(text) or text.startswith("#!"):
        findings.add("ckpt.code_file", "text that names code to run")
    for match in _TARGET.finditer(text):
        _target(match[1], findings)
    if text.lstrip()[:1] in ("{", "["):
        return _json(text, findings)
    return "text"


def _json(text: str, findings: Findings) -> str:
    """A model's configuration is data that says where its code is; every entry counts, also one of two of a name."""

    def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        # INVARIANT I243: a configuration that names code for its loader is not clean, wherever in the file it does.
        for key, value in pairs:
            if key == "_target_" and type(value) is str:
                _target(value, findings)
            for kind, name in named_by(key, value) or ():
                if kind in _NAMED_CODE:
                    findings.add(_NAMED_CODE[kind], name)
        return dict(pairs)

    try:
        json.loads(text, object_pairs_hook=members)
    except (ValueError, RecursionError):
        return "text"
    return "json"


def _target(name: str, findings: Findings) -> None:
    """A class is what such entries are for; a function of the standard library is an attack, a library's a question."""
    module, _, function = name.rpartition(".")
    if module.partition(".")[0] in _HARMLESS_TARGETS or judged(module, function) is not Verdict.HOSTILE:
        return
    if is_standard(module) or not module:
        findings.add("ckpt.target_call", name)
    elif not function[:1].isupper():
        findings.add("ckpt.target_unlisted", name)


def _unknown(findings: Findings) -> str:
    findings.add("ckpt.format_unknown")
    return "unknown"
