"""Options that choose entries of the log: who, what, where, when, and how it was decided.

Ids are literal. A time is a date, which is a whole day in UTC, or an RFC 3339 time; `--since` is the first moment that
counts, and `--until DATE` includes that day.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.options import parse_moment
from policyguard.cli.verbs.audit_.entries import EntryText, entry_or_problem
from policyguard.errors import AuditError, RequestError
from policyguard.model.ids import is_action
from policyguard.model.request import Request
from policyguard.text import quoted
from policyguard.values import NANOSECONDS_PER_S, Instant, parse_instant

F = TypeVar("F", bound=Callable[..., Any])

_REASON = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*", re.ASCII)
_DAY_NS = 86_400 * NANOSECONDS_PER_S
_NAMES = ("subject", "action", "resource", "since", "until", "decision", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What entries must have; None asks for nothing. An approval has a subject, its approver, and no decision."""

    subject: str | None = None
    action: str | None = None
    resource: str | None = None
    since: Instant | None = None
    until: Instant | None = None
    decision: str | None = None
    reason: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every entry matches."""
        return all(getattr(self, name) is None for name in _NAMES)

    def matches(self, entry: EntryText) -> bool:
        """Return True if the entry has all that is asked for."""
        data = entry.data
        wanted = (self.subject, self.action, self.resource, self.decision)
        values = (entry.subject, data.get("action"), data.get("resource"), data.get("decision"))
        if any(name is not None and name != value for name, value in zip(wanted, values, strict=True)):
            return False
        if self.reason is not None and self.reason not in data.get("reason_codes", ()):
            return False
        if self.since is None and self.until is None:
            return True
        at = parse_instant(entry.at)
        return (self.since is None or self.since <= at) and (self.until is None or at < self.until)


def matching(store: SqliteStore, start: int, wanted: Filter) -> Iterator[tuple[int, EntryText | AuditError]]:
    """Yield the entries from `start` on that match, and the error of each that cannot be read.

    Args:
        store: the entries; one is in memory at a time.
        start: the first entry.
        wanted: what an entry must have.
    """
    last = store.last()
    if last is None or start > last.entry:
        return
    for row in store.read(start, last.entry + 1):
        entry = entry_or_problem(row.leaf, row.entry)
        try:
            if isinstance(entry, AuditError) or wanted.matches(entry):
                yield row.entry, entry
        except ValueError as problem:
            yield row.entry, AuditError(f"entry {row.entry}: {problem}", entry=row.entry)


def filter_options(command: F) -> F:
    """Add the options of a `Filter` to a command; `take_filter` collects them."""
    for option in reversed(
        (
            click.option("--subject", callback=_subject, metavar="TYPE:ID", help="Only what this account asked for."),
            click.option("--action", callback=_action, metavar="TYPE:VERB", help="Only this action."),
            click.option("--resource", callback=_resource, metavar="TYPE:ID", help="Only this resource."),
            click.option("--since", callback=_since, metavar="TIME", help="Only from this day or time on, UTC."),
            click.option(
                "--until", callback=_until, metavar="TIME", help="Only to the end of this day, or before this time."
            ),
            click.option("--decision", type=click.Choice(["allow", "deny"]), help="Only decisions of this kind."),
            click.option("--reason", callback=_reason, metavar="CODE", help="Only decisions with this reason code."),
        )
    ):
        command = option(command)
    return command


def take_filter(chosen: dict[str, Any]) -> Filter:
    """Take the options of `filter_options` out of the others.

    Raises:
        UsageError: the time between `--since` and `--until` is empty.
    """
    taken = Filter(**{name: chosen.pop(name) for name in _NAMES})
    if taken.since is not None and taken.until is not None and taken.since >= taken.until:
        raise click.UsageError("`--until` is before `--since`, expected a later time")
    return taken


def _subject(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    return _id(text, lambda named: Request.of(named, "job:submit", "job:any"))


def _resource(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    return _id(text, lambda named: Request.of("user:any", "job:submit", named))


def _id(text: str | None, parse: Callable[[str], Request]) -> str | None:
    if text is not None:
        try:
            # An id that no request could have matches nothing, in silence; a pattern is such an id.
            parse(text)
        except RequestError as problem:
            raise click.BadParameter(f"{problem.message}; ids are literal") from None
    return text


def _action(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    if text is not None and not is_action(text):
        raise click.BadParameter(f"found {quoted(text)}, expected `type:verb` such as `job:submit`")
    return text


def _reason(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    if text is not None and not _REASON.fullmatch(text):
        raise click.BadParameter(f"found {quoted(text)}, expected a reason code such as `quota.exceeded`")
    return text


def _since(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Instant | None:
    return None if text is None else parse_moment(text)


def _until(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Instant | None:
    return None if text is None else parse_moment(text, of_date=_DAY_NS)
