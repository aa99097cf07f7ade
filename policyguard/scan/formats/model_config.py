"""JSON settings that name code: where a model's code is, or what hydra is to call.

Source: transformers 5 `dynamic_module_utils.py`; hydra 1.3 `instantiate`, as NeMo's archives use it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.model_repository import named_by
from policyguard.scan.pickles.allowlist import is_standard, judged

_NAMED_CODE = {"own": "hub.own_code", "foreign": "hub.foreign_code", "kernel": "hub.remote_kernels"}
"""`import` is left out: an adapter that names an installed library is as good as the environment is."""
_TARGET = re.compile(r"""_target_["']?[ \t]*:[ \t]*["']?([\w.]+)""", re.ASCII)
"""In YAML only in its plain spelling."""
_HARMLESS_TARGETS = ("collections", "datetime", "decimal", "fractions", "math", "pathlib", "uuid")


def check_targets(text: str, findings: Findings) -> None:
    """Record a finding for each `_target_` entry of plain text that names a function."""
    for match in _TARGET.finditer(text):
        _target(match[1], findings)


def check_settings(text: str, findings: Findings) -> list[str] | None:
    """Record a finding for each piece of code that JSON settings name; return all names and texts, or None.

    None: this is not JSON. Every entry is checked, also where two have one name: readers differ in which they take.
    """
    if text.lstrip()[:1] not in ("{", "["):
        return None
    texts: list[str] = []

    def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        # INVARIANT I18: a configuration that names code for its loader is not clean, wherever in the file it does.
        for key, value in pairs:
            if key == "_target_" and type(value) is str:
                _target(value, findings)
            for kind, name in named_by(key, value) or ():
                if kind in _NAMED_CODE:
                    findings.add(_NAMED_CODE[kind], name)
            texts.append(key)
            texts.extend(_texts(value))
        return dict(pairs)

    try:
        texts.extend(_texts(json.loads(text, object_pairs_hook=members)))
    except (ValueError, RecursionError):
        return None
    return texts


def maps_in(value: object) -> Iterator[dict[str, object]]:
    """Yield every object in parsed JSON, at any depth."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _texts(value: object) -> Iterator[str]:
    """Yield a text or the texts of a list; objects are handled when they are read."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            waiting.extend(item)


def _target(name: str, findings: Findings) -> None:
    """Judge a target: a class is its normal use, a function of the standard library an attack, another one unknown."""
    module, _, function = name.rpartition(".")
    if module.partition(".")[0] in _HARMLESS_TARGETS or judged(module, function) is not Verdict.HOSTILE:
        return
    if is_standard(module) or not module:
        findings.add("ckpt.target_call", name)
    elif not function[:1].isupper():
        findings.add("ckpt.target_unlisted", name)
