"""Reads files of settings for the texts in them: YAML, JSON, TOML, and anything else line by line. Runs nothing."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable
from itertools import islice

from policyguard.errors import ConfigurationError, EvidenceError
from policyguard.fs.safe_open import read_small, read_start
from policyguard.scan.formats.registry import BY_SUFFIX, is_named_as_checkpoint
from policyguard.scan.settings.tree import Map, TooDeep, Unreadable
from policyguard.scan.settings.yaml_tree import yaml_documents

MAX_PARSED_BYTES = 4 << 20
MAX_SETTINGS_BYTES = 64 << 20
MAX_FILE_TEXTS = 50_000
"""A longer list of texts is data, such as a vocabulary: it is searched for names of checkpoints only."""

SETTINGS_SUFFIXES = (".yaml", ".yml", ".json", ".toml", ".ini", ".cfg", ".conf")
SCRIPT_SUFFIXES = (".sh", ".bash", ".sbatch", ".slurm", ".job")
_DATA = (".json", ".jsonl", ".txt", ".csv", ".tsv", ".log")
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_INI_REFERENCE = re.compile(r"%\(\w+\)s")
_CHECKPOINT_NAME = re.compile(
    rb"[^\s\"'\\,<>|]{1,512}(?:"
    + b"|".join(re.escape(suffix.encode()) for suffix in sorted(BY_SUFFIX, key=len, reverse=True))
    + rb")(?![\w.])",
    re.IGNORECASE,
)

Text = tuple[str, str]
"""The key under which a text is, and the text."""


def is_settings(path: str, *, by_name_only: bool = False) -> bool:
    """Return True for a text file that may be settings: by its name, or because it begins as text."""
    if by_name_only or path.lower().endswith(SETTINGS_SUFFIXES):
        return path.lower().endswith(SETTINGS_SUFFIXES)
    if is_named_as_checkpoint(path):
        return False
    try:
        start = read_start(path, 512)
    except ConfigurationError:
        return False
    return bool(start) and not any(byte < 9 or 13 < byte < 27 for byte in start)


def texts_of(path: str) -> list[Text] | None:
    """List the texts of a file, with the keys above them; None if it is too large to be read, or unreadable."""
    try:
        size = os.path.getsize(path)
        if size > MAX_SETTINGS_BYTES:
            return [] if path.lower().endswith(_DATA) else None
        data = read_small(os.path.realpath(path), MAX_SETTINGS_BYTES)
    except (EvidenceError, OSError):
        return None
    if size <= MAX_PARSED_BYTES:
        texts = _parsed(path, data.decode("utf-8", "surrogateescape"))
        if len(texts) <= MAX_FILE_TEXTS:
            return texts
    return [("", os.fsdecode(match[0])) for match in islice(_CHECKPOINT_NAME.finditer(data), MAX_FILE_TEXTS)]


def _parsed(path: str, text: str) -> list[Text]:
    suffix = os.path.splitext(path)[1].lower()
    values: Iterable[object]
    try:
        if suffix == ".json":
            values = (json.loads(text, object_pairs_hook=Map),)
        elif suffix == ".toml":
            values = (tomllib.loads(text),)
        elif suffix in (".yaml", ".yml"):
            values = yaml_documents(text, lambda *_: None, lambda: None)
        else:
            return _lines(text)
    except Unreadable as problem:
        values = problem.partial
        return [*_resolved(_walk(values)), *_lines(text)]
    except (ValueError, RecursionError, TooDeep):
        return _lines(text)
    return _resolved(_walk(values))


def _lines(text: str) -> list[Text]:
    lines = (line.strip() for line in text.splitlines()[: MAX_FILE_TEXTS + 1])
    return [("", _INI_REFERENCE.sub("*", line)) for line in lines if line and not line.startswith(("#", ";", "//"))]


def _walk(values: Iterable[object]) -> list[Text]:
    """List every text with its dotted key, without recursion; a text may be a key as well."""
    texts: list[Text] = []
    pending: list[tuple[str, object]] = [("", value) for value in values]
    while pending and len(texts) <= MAX_FILE_TEXTS:
        key, value = pending.pop()
        if isinstance(value, str):
            texts.append((key, value))
        elif isinstance(value, dict | Map):
            for name, member in value.items() if isinstance(value, dict) else value:
                texts.append((key, str(name)))
                pending.append((f"{key}.{name}" if key else str(name), member))
        elif isinstance(value, list):
            pending += [(key, member) for member in value]
    return texts


def _resolved(texts: list[Text]) -> list[Text]:
    """Replace `${paths.root}` by the text under that key."""
    values = dict(texts)
    return [(key.rpartition(".")[2], _resolve(text, values) if "${" in text else text) for key, text in texts]


def _resolve(text: str, values: dict[str, str]) -> str:
    for _ in range(8):
        replaced = _REFERENCE.sub(lambda match: values.get(match[1], match[0]), text)[:4096]
        if replaced == text:
            break
        text = replaced
    return text
