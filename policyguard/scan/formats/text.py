"""Text and JSON: harmless as data, unless it names code that a loader would run."""

from __future__ import annotations

import re

from policyguard.scan.findings import Findings
from policyguard.scan.formats.embedded_code import names_code, template_escape
from policyguard.scan.formats.model_config import check_settings, check_targets
from policyguard.scan.source import Source

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_LFS = b"version https://git-lfs.github.com/spec/"


def scan_text(source: Source, findings: Findings) -> str:
    """Scan text for code that a loader of it would run.

    Returns:
        `text`, `json`, `lfs_pointer`, or `unknown` for what is no text.
    """
    head = source.read(0, 512)
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
    if names_code(text):
        findings.add("ckpt.code_file", "text that names code to run")
    check_targets(text, findings)
    values = check_settings(text, findings)
    escape = template_escape(text, values)
    if escape:
        findings.add("ckpt.template_code", escape)
    return "text" if values is None else "json"


def _unknown(findings: Findings) -> str:
    findings.add("ckpt.format_unknown")
    return "unknown"
