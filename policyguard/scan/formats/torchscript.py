"""TorchScript code: reports operators that read or write files, or come from other libraries.

An archive with code is never clean: the language has no specification, only what torch writes and reads, and its
operators trust their arguments. What the text shows is reported anyway.

Source: the operators that libtorch 2.15 registers with a file name, `aten::save` and `aten::from_file`.
"""

from __future__ import annotations

import re

from policyguard.scan.findings import Findings

MAX_CODE = 16 * 2**20
_FILES = re.compile(r"\btorch\s*\.\s*(save|from_file)\b|\bops\s*\.\s*aten\s*\.\s*(save|from_file)\b")
_LIBRARY = re.compile(r"\bops\s*\.\s*(?!(?:aten|prim|quantized|prepacked|_c10d_functional)\b)(\w+)\s*\.\s*(\w+)")


def check_script(code: bytes, findings: Findings) -> None:
    """Add a finding for each operator that opens a file or is not torch's own."""
    text = code.decode("utf-8", "replace")
    for match in _FILES.finditer(text):
        findings.add("ckpt.torchscript_file", "".join(match[0].split()))
    for match in _LIBRARY.finditer(text):
        findings.add("ckpt.torchscript_operator", f"{match[1]}::{match[2]}")
