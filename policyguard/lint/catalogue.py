"""The catalogue of lint rules: every module of the package `rules` is a rule."""

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
    """Return every rule by code, in order.

    A policy repository cannot add rules: only this package is searched.

    Raises:
        ValueError: two modules declare the same code.
    """
    by_code: dict[str, Rule] = {}
    for entry in sorted(pkgutil.iter_modules(package.__path__), key=lambda entry: entry.name):
        if entry.name.startswith("pg"):
            rule = Rule.of(importlib.import_module(f"{package.__name__}.{entry.name}"))
            if rule.code in by_code:
                raise ValueError(f"{entry.name}: code `{rule.code}` is taken")
            by_code[rule.code] = rule
    return MappingProxyType(dict(sorted(by_code.items())))


def table() -> str:
    """Format the catalogue as the Markdown table in `docs/lint/index.md`."""
    rows = [
        f"| [{rule.code}]({rule.code}.md) | {rule.name} | {rule.severity} | {rule.produced_by} | {rule.summary} |"
        for rule in catalogue().values()
    ]
    return "\n".join(("| code | name | severity | reported by | what |", "|---|---|---|---|---|", *rows))
