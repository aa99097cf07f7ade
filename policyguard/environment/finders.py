"""Reads from code that runs at an interpreter's start where it loads more code from; nothing is run.

The finders of editable installs (setuptools, editables, meson-python) carry their folders as texts.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator

from policyguard.errors import EvidenceError
from policyguard.fs.safe_open import read_small
from policyguard.text import printable_name

MAX_MODULE_BYTES = 4 << 20

_TABLES = frozenset({"MAPPING", "NAMESPACES"})
"""The tables of a setuptools finder: module to path, namespace to folders."""

_QUOTED = re.compile(r"""['"](/[^'"\0]*)['"]""")
_OF_SYSTEM = ("/bin/", "/etc/", "/lib/", "/lib64/", "/proc/", "/sbin/", "/sys/", "/usr/")
"""Folders of which code often has the name without loading anything; only root can write there."""


def paths_in_code(text: str) -> Iterator[str]:
    """Yield the absolute paths in quotes in a line of code, also in code that it has as a text."""
    try:
        texts = _texts(ast.parse(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        texts = [text]
    for part in (text, *texts):
        yield from filter(_may_hold_code, (part, *_QUOTED.findall(part)))


def paths_in_module(path: str) -> list[str]:
    """List the absolute paths that a module has as texts.

    Raises:
        EvidenceError: it cannot be read, or is a finder that computes its tables.
    """
    source = read_small(os.path.realpath(path), MAX_MODULE_BYTES)
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        raise EvidenceError(f"imports `{printable_name(path)}`, which cannot be parsed") from problem
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and _is_table(node):
            _check_literal(path, node.value)
    return [text for text in _texts(tree) if _may_hold_code(text)]


def _is_table(node: ast.Assign | ast.AnnAssign) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(target, ast.Name) and target.id in _TABLES for target in targets)


def _check_literal(path: str, value: ast.expr) -> None:
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, RecursionError, MemoryError) as problem:
        raise EvidenceError(f"imports `{printable_name(path)}`, which computes where code is loaded from") from problem


def _texts(tree: ast.AST) -> list[str]:
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def _may_hold_code(text: str) -> bool:
    """Return True for an absolute path below a folder that is not the system's."""
    path = os.path.normpath(text)
    is_path = text.startswith("/") and "\0" not in text and len(text) < 4096 and path.count("/") > 1
    return is_path and not path.startswith(_OF_SYSTEM)
