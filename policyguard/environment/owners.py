"""Finds the distribution that owns each installed file, and distributions that load themselves into trainers.

An attacker who edits a file can edit its line in RECORD, too. So RECORD can show that a file was changed, but only the
signed baseline can show that it was not.
"""

from __future__ import annotations

import base64
import configparser
import csv
import os
import re
from collections.abc import Mapping

import msgspec

from policyguard.errors import EvidenceError
from policyguard.fs.safe_open import read_small
from policyguard.text import printable_name

MAX_METADATA_BYTES = 32 << 20

TRAINER_GROUPS = frozenset(
    {
        "lightning.pytorch.callbacks_factory",
        "pytorch_lightning.callbacks_factory",
        "lightning.fabric.strategies",
        "torchx.schedulers",
        "torchx.named_resources",
        "torchrun.logs_specs",
        "torch.backends",
        "airflow.policy",
        "prefect.plugins",
        "pytest11",
        "transformers.plugins",
        "mlflow.plugins",
        "sitecustomize",
    }
)
"""Entry-point groups that trainers, launchers and test runners import automatically."""

AUTORUN = re.compile(r"(?:^|/)(?:[^/]+\.pth|[^/]+\.egg-link|(?:site|user)customize(?:\.py|\.pyc|/.+|\.[^/]+\.so))\Z")
"""Files that the interpreter runs at every start without an import (site, usercustomize)."""


class Owners(msgspec.Struct, frozen=True):
    """`by_file` maps a file to the distributions that list it; `digests` are those in their RECORD files."""

    by_file: dict[str, tuple[str, ...]]
    digests: dict[str, str]
    entry_points: tuple[tuple[str, str], ...] = ()
    """(file, `group: name = value`) for each entry point of a trainer group."""


def owners_of(prefix: str, files: Mapping[str, str]) -> Owners:
    """Read the owners of each file from every `*.dist-info` in the listing."""
    root = os.path.realpath(prefix)
    by_file: dict[str, list[str]] = {}
    digests: dict[str, str] = {}
    points: list[tuple[str, str]] = []
    for name in sorted(files):
        folder, _, last = name.rpartition("/")
        if not folder.endswith(".dist-info"):
            continue
        if last == "RECORD":
            distribution = folder.rpartition("/")[2].removesuffix(".dist-info")
            for path, digest in _record(root, name):
                by_file.setdefault(path, []).append(distribution)
                if digest:
                    digests[path] = digest
        elif last == "entry_points.txt":
            points.extend((name, point) for point in _entry_points(os.path.join(root, name)))
    return Owners({path: tuple(names) for path, names in by_file.items()}, digests, tuple(points))


def _record(root: str, name: str) -> list[tuple[str, str]]:
    """Parse a RECORD file into pairs of name, relative to the environment, and digest, `sha256:...` or empty.

    Source: the recording of installed projects, https://packaging.python.org/specifications/recording-installed-packages
    """
    text = read_small(os.path.join(root, name), MAX_METADATA_BYTES).decode("utf-8", "surrogateescape")
    site = os.path.dirname(os.path.dirname(name))
    rows = []
    try:
        for row in csv.reader(text.splitlines()):
            if len(row) == 3 and row[0]:
                rows.append((printable_name(os.path.normpath(os.path.join(site, row[0]))), _hex(row[1])))
    except csv.Error as problem:
        raise EvidenceError(f"`{printable_name(name)}`: not a RECORD: {problem}") from None
    return rows


def _hex(text: str) -> str:
    algorithm, _, encoded = text.partition("=")
    if algorithm != "sha256":
        return ""
    try:
        return "sha256:" + base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).hex()
    except ValueError:
        return "sha256:"


def _entry_points(path: str) -> list[str]:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        parser.read_string(read_small(path, MAX_METADATA_BYTES).decode("utf-8", "replace"))
    except configparser.Error:
        return ["an unreadable entry_points.txt"]
    return [
        f"{group}: {name} = {value}"
        for group in parser.sections()
        if group in TRAINER_GROUPS
        for name, value in parser.items(group)
    ]
