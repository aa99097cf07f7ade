"""Reads role bindings from casbin adapters. Every row is counted and checked; none is skipped.

casbin's own loader drops rows of a kind that its model does not have (hazard H2), and splits texts at brackets and
commas (H8). Here the adapter fills a model that accepts everything; a row that is not a binding is refused by name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from casbin import Model
from casbin.model import Assertion
from casbin.persist import Adapter
from casbin.persist.adapters import FileAdapter

from policyguard.decide.role_grants import ROLE_PREFIX
from policyguard.errors import ConfigurationError, PolicyError, PolicyErrors
from policyguard.model.ids import is_segment, ref_problem
from policyguard.model.policy import ANY_DOMAIN, Binding
from policyguard.text import quoted
from policyguard.values import Instant, Span, parse_instant

_WIDTHS = (3, 5)
_NO_TIME = ("", "_")


def bindings_from_adapter(adapter: Adapter, source: str = "<adapter>") -> tuple[Binding, ...]:
    """Read all bindings of a casbin adapter; one invalid row refuses them all.

    row = "g", "type:id", "role:name", domain [ "," not-before "," expires ]    times RFC 3339, `_` or empty for none

    `source` names the adapter in errors; the line is the row's number in the order the adapter gives.

    Raises:
        PolicyErrors: PG010 for each row of another kind or width, PG510 for each name that is not as above; also when
            the adapter itself fails. Nothing of a source that is wrong anywhere is used.
    """
    intake = _Intake()
    try:
        adapter.load_policy(intake)
    except Exception as problem:
        # An adapter is foreign code: its exceptions have no common base class.
        # INVARIANT I6: a source that cannot be read whole gives nothing.
        text = " ".join(str(problem).split()) or type(problem).__name__
        raise PolicyErrors(
            [PolicyError(f"the adapter failed: {text}", span=Span(source, 1, 1), code="PG010")]
        ) from problem
    bindings: list[Binding] = []
    errors: list[PolicyError] = []
    for number, (kind, row) in enumerate(intake.taken(), start=1):
        try:
            bindings.append(_binding(kind, row, Span(source, number, 1)))
        except PolicyError as error:
            errors.append(error)
    if errors:
        raise PolicyErrors(errors)
    return tuple(bindings)


def adapter_for(kind: Literal["csv", "sqlalchemy"], location: str) -> Adapter:
    """Open the adapter that a `Bindings` document names: a CSV file or a database URL.

    Raises:
        ConfigurationError: the extra `db` is not installed.
    """
    if kind == "csv":
        return FileAdapter(location)
    try:
        from policyguard.casbin_compat.sqlalchemy_adapter import SQLAlchemyAdapter
    except ImportError as problem:
        raise ConfigurationError(
            "bindings from a database need SQLAlchemy", help="install `policyguard-engine[db]`"
        ) from problem
    return SQLAlchemyAdapter(location)


class _Everything(defaultdict[str, Any]):
    """A map that claims to contain every key, so that casbin drops no row because of its kind (H2)."""

    def keys(self) -> Any:
        return self

    def __contains__(self, key: object) -> bool:
        return True

    def get(self, key: str, default: object = None) -> Any:  # noqa: ARG002
        return self[key]


class _Intake(Model):  # type: ignore[misc]
    """A casbin model that accepts rows of every kind, so that they can be counted and refused by name."""

    def __init__(self) -> None:
        super().__init__()
        self.model = _Everything(lambda: _Everything(Assertion))

    def taken(self) -> Iterator[tuple[str, Sequence[object]]]:
        """Yield each row that the adapter added, as (kind, values)."""
        for kinds in self.model.values():
            for kind, assertion in kinds.items():
                for row in assertion.policy:
                    yield kind, row


def _binding(kind: str, row: Sequence[object], span: Span) -> Binding:
    if kind != "g":
        raise PolicyError(
            f"found a {quoted(kind)} row, expected only `g` rows: subject, role, domain",
            span=span,
            code="PG010",
            help="translate rules with `policyguard import casbin`",
        )
    if len(row) not in _WIDTHS or not all(type(column) is str for column in row):
        raise PolicyError(
            f"found a row of {len(row)} columns, expected text in 3 or 5: subject, role, domain, not before, expires",
            span=span,
            code="PG010",
        )
    subject, role, domain, *times = (str(column) for column in row)
    # INVARIANT I6: subjects and roles live in namespaces of their own; nobody is named like a role.
    if ref_problem(subject) is not None or subject.startswith(ROLE_PREFIX):
        raise PolicyError(
            f"found the subject {quoted(subject)}, expected `type:id` such as `user:alice`", span=span, code="PG510"
        )
    if ref_problem(role) is not None or not role.startswith(ROLE_PREFIX):
        raise PolicyError(f"found the role {quoted(role)}, expected `role:` and a name", span=span, code="PG510")
    if domain != ANY_DOMAIN and not is_segment(domain):
        raise PolicyError(f"found the domain {quoted(domain)}, expected a name or `*`", span=span, code="PG011")
    since, until = (_time(text, span) for text in times) if times else (None, None)
    return Binding(
        subject=subject, role=role.removeprefix(ROLE_PREFIX), domain=domain, not_before=since, expires=until, span=span
    )


def _time(text: str, span: Span) -> Instant | None:
    if text in _NO_TIME:
        return None
    try:
        return parse_instant(text)
    except ValueError as problem:
        raise PolicyError(str(problem), span=span, code="PG404") from None
