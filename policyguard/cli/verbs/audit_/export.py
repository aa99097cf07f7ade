"""`policyguard audit export`: copy entries of the log to a file, as JSON lines or Parquet, one entry at a time."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import click

from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.files import writing
from policyguard.cli.options import log_option
from policyguard.cli.output import say
from policyguard.cli.settings import needed, settings
from policyguard.cli.verbs.audit_.entries import EntryText
from policyguard.cli.verbs.audit_.filters import Filter, filter_options, matching, take_filter
from policyguard.cli.verbs.audit_.runs import ran
from policyguard.errors import AuditError, ConfigurationError
from policyguard.exit_codes import FINDINGS, OK
from policyguard.text import counted

PRIVATE = 0o600
"""The mode of an export: it has the same personal data as the log."""

_FIELDS = ("decision_id", "decision", "mode", "action", "resource", "audience", "reason_codes", "obligations")

Write = Callable[[dict[str, Any]], object]


@click.command("export")
@log_option
@filter_options
@click.option("--format", "kind", type=click.Choice(["jsonl", "parquet"]), default="jsonl", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The new file; standard output if missing.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def export_command(kind: str, output: Path | None, force: bool, log: Path | None, **chosen: Any) -> int:
    """Copy entries to a file for other tools: JSON lines, or Parquet with the extra `parquet`.

    The file gets its name when it is complete, and mode 0600. Signatures are not checked: run `audit verify` first. An
    entry that cannot be read is reported and skipped; the exit code is 1 then.
    """
    wanted = take_filter(chosen)
    if output is None and (kind == "parquet" or force):
        raise click.UsageError(f"{'--force' if force else 'Parquet'} needs --output FILE")
    writer = _json_lines if kind == "jsonl" else _parquet_writer()
    with SqliteStore.open(needed(settings(log=log), "log"), read_only=True) as store:
        if output is None:
            with writer(sys.stdout.buffer) as write:
                _, unreadable = _copy(store, wanted, write)
            return FINDINGS if unreadable else OK
        with writing(output, replace=force, mode=PRIVATE, help="`--force` replaces it") as file, writer(file) as write:
            copied, unreadable = _copy(store, wanted, write)
    say(f"{output}: {counted(copied, 'entry')}", err=True)
    return FINDINGS if unreadable else OK


def row_of(number: int, entry: EntryText) -> dict[str, Any]:
    """Build the record of one entry: the same names for every kind, and None for what it does not have."""
    predicate = entry.statement.get("predicate", {}) if entry.kind in ("decision", "approval") else {}
    policy = predicate.get("policy", {}) if entry.kind == "decision" else {}
    return {
        "entry": number,
        "kind": entry.kind,
        "occurred_at": entry.at,
        "subject": entry.subject,
        **{name: predicate.get(name) for name in _FIELDS},
        "policy": policy.get("name"),
        "policy_digest": policy.get("digest"),
        "policy_epoch": policy.get("epoch"),
        **(ran(predicate) if entry.kind == "decision" else {}),
        "statement": entry.statement,
    }


def _copy(store: SqliteStore, wanted: Filter, write: Write) -> tuple[int, int]:
    """Write the matching entries; return how many were written, and how many could not be read."""
    copied = unreadable = 0
    last = store.last()
    with _progress(0 if last is None else last.entry + 1) as advance:
        for number, entry in matching(store, 0, wanted):
            advance(number)
            if isinstance(entry, AuditError):
                unreadable += 1
                say(f"policyguard: skipped: {entry}", err=True, fg="red")
                continue
            copied += 1
            write(row_of(number, entry))
    return copied, unreadable


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on a terminal, and nothing elsewhere; yield the function that moves it to an entry."""
    if not sys.stderr.isatty():
        yield lambda number: None  # noqa: ARG005
        return
    with click.progressbar(length=total, label="exporting", file=sys.stderr) as bar:
        yield lambda number: bar.update(number + 1 - bar.pos)


@contextmanager
def _json_lines(file: BinaryIO) -> Iterator[Write]:
    def write(row: dict[str, Any]) -> None:
        file.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")

    yield write


def _parquet_writer() -> Callable[[BinaryIO], Any]:
    try:
        module = import_module("policyguard.cli.verbs.audit_.parquet")
    except ModuleNotFoundError as problem:
        if (problem.name or "").partition(".")[0] != "pyarrow":
            raise
        raise ConfigurationError(
            "Parquet needs pyarrow, which is not installed",
            help="pip install 'policyguard-engine[parquet]', or `--format jsonl`",
        ) from problem
    writer: Callable[[BinaryIO], Any] = module.parquet_rows
    return writer
