"""Every rule there is, found by looking into the package `rules`: a new file is a new rule."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from policyguard.lint import rules as package
from policyguard.lint.rule import Rule


@cache
def catalogue() -> Mapping[str, Rule]:
    """Return every rule by code, in order. Raises `ValueError` if two files declare one code.

    Only this package is searched: a policy repository cannot bring rules of its own.
    """
    found: dict[str, Rule] = {}
    for entry in sorted(pkgutil.iter_modules(package.__path__), key=lambda entry: entry.name):
        if entry.name.startswith("pg"):
            rule = Rule.of(importlib.import_module(f"{package.__name__}.{entry.name}"))
            if rule.code in found:
                raise ValueError(f"{entry.name}: code `{rule.code}` is taken")
            found[rule.code] = rule
    return MappingProxyType(dict(sorted(found.items())))


def table() -> str:
    """Return the catalogue as a Markdown table, the one that `docs/lint/index.md` holds."""
    rows = [
        f"| [{rule.code}]({rule.code}.md) | {rule.name} | {rule.severity} | {rule.produced_by} | {rule.summary} |"
        for rule in catalogue().values()
    ]
    return "\n".join(("| code | name | severity | found by | what |", "|---|---|---|---|---|", *rows))
