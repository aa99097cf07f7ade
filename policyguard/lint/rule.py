"""The types of lint: what a rule module declares, the hits it yields, and the findings in reports.

A rule is a module of `policyguard.lint.rules`, one file, one code. It declares

    CODE = "PG201"            NAME = "star-action"         SEVERITY = "warning"
    HELP = "name the actions" # second sentence of every finding, unless a hit brings its own
    FIXABLE = True            # optional: the fix is mechanical
    PRODUCED_BY = "load"      # optional: the loader ("import", "suppressions") reports it and the module
                              # has no `check`; "load and lint" if both report it
    NEEDS_POLICY_SET = False  # optional: run also if the load failed

and `check(context) -> Iterator[Hit]`. The first line of its docstring is the summary in reports and on the page. A hit
has only a span and a message; the runner adds code, name and severity, so no rule can report under another name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from policyguard.values import Span

if TYPE_CHECKING:
    from policyguard.lint.context import Context

Severity = Literal["error", "warning", "information"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "information")
"""From worst to mildest; reports sort and count in this order."""

LINT = "lint"
PRODUCERS = ("load", LINT, "load and lint", "import", "suppressions")
"""The reporter of a finding: the loader, a `check`, the casbin import, or the runner (suppressions)."""


@dataclass(frozen=True, slots=True)
class Hit:
    """The span of a mistake; `severity` and `help` override those of the rule."""

    span: Span
    message: str
    help: str | None = None
    severity: Severity | None = None
    related: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A hit with the code and name of its rule; `related` are other spans that it is about."""

    code: str
    name: str
    severity: Severity
    span: Span
    message: str
    help: str | None = None
    related: tuple[Span, ...] = ()
    fixable: bool = False
    stops_load: bool = False

    @property
    def order(self) -> tuple[Span, str, str]:
        """The sort key of reports: span, then code, then message."""
        return (self.span, self.code, self.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One entry of the catalogue; `check` is None if the loader or the runner reports it."""

    code: str
    name: str
    severity: Severity
    summary: str
    help: str
    produced_by: str
    check: Callable[[Context], Iterator[Hit]] | None
    fixable: bool = False
    needs_policy_set: bool = True

    @classmethod
    def of(cls, module: ModuleType) -> Rule:
        """Read the rule that a module declares.

        Raises:
            ValueError: the declaration is incomplete.
        """
        produced_by = getattr(module, "PRODUCED_BY", LINT)
        check = getattr(module, "check", None)
        if produced_by not in PRODUCERS or (check is not None) != (LINT in produced_by):
            raise ValueError(f'{module.__name__}: expected a `check`, or `PRODUCED_BY = "load"` without one')
        if module.SEVERITY not in SEVERITIES:
            raise ValueError(f"{module.__name__}: severity is `{module.SEVERITY}`, expected one of {SEVERITIES}")
        return cls(
            code=module.CODE,
            name=module.NAME,
            severity=module.SEVERITY,
            summary=(module.__doc__ or "").strip().split("\n")[0],
            help=module.HELP,
            produced_by=produced_by,
            check=check,
            fixable=getattr(module, "FIXABLE", False),
            needs_policy_set=getattr(module, "NEEDS_POLICY_SET", True),
        )

    def finding(self, hit: Hit) -> Finding:
        """Build a finding from a hit of this rule."""
        return Finding(
            code=self.code,
            name=self.name,
            severity=hit.severity or self.severity,
            span=hit.span,
            message=hit.message,
            help=hit.help or self.help,
            related=hit.related,
            fixable=self.fixable,
        )
