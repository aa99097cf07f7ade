"""`policyguard audit verify|show|prove|tail|...`: read the decision log without trusting its operator."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from policyguard.attest.dsse import parse
from policyguard.attest.keys import encode_base64
from policyguard.audit.check import LogSummary, check_log
from policyguard.audit.proofs import latest_note, prove_consistency, prove_inclusion, row_at
from policyguard.audit.receipt import SignedDecision
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.options import (
    checkpoint_option,
    json_option,
    key_option,
    log_option,
    needed,
    read_notes,
    settings,
    trust_option,
)
from policyguard.cli.output import say, say_json
from policyguard.cli.verbs.audit_.entries import Shown, shown_entry
from policyguard.cli.verbs.audit_.reviews import log_keys, open_reviews, review
from policyguard.errors import AuditError
from policyguard.exit_codes import FINDINGS

POLL_S = 0.5
ENTRY = click.IntRange(0, 2**63 - 1)
"""What SQLite can count to."""


@click.group("audit")
def command() -> None:
    """Verify, show, prove or follow the decision log."""


command.add_command(open_reviews)
command.add_command(review)


@command.command("verify")
@log_option
@trust_option
@key_option
@checkpoint_option
@json_option
def verify(checkpoints: tuple[Path, ...], as_json: bool, **chosen: Any) -> int:
    """Recompute every entry, hash and checkpoint; name the first entry that is wrong.

    Exits with 1 if the log is inconsistent. Without --trust or --key the log is compared with itself only, and the
    answer says so.
    """
    config = settings(**chosen)
    notes = read_notes(checkpoints)
    with SqliteStore.open(needed(config, "log"), read_only=True) as store:
        logs = log_keys(config, store.origin)
        try:
            summary = check_log(store, logs, notes)
        except AuditError as problem:
            return _broken(problem, as_json)
    return _sound(summary, as_json, signed=logs is not None)


@command.command("show")
@log_option
@click.argument("entry", type=ENTRY)
@json_option
def show(entry: int, as_json: bool, log: Path | None) -> None:
    """Show the decision, or the approval, at index ENTRY."""
    with SqliteStore.open(needed(settings(log=log), "log"), read_only=True) as store:
        shown = shown_entry(row_at(store, entry).leaf, entry)
    if as_json:
        say_json({"entry": entry, "statement": shown.statement})
        return
    say(shown.line)
    say(json.dumps(shown.statement["predicate"], indent=2, ensure_ascii=False))


@command.command("prove")
@log_option
@click.argument("entry", type=ENTRY, required=False)
@click.option("--since", type=ENTRY, help="Prove that the present log begins with the log of this size.")
def prove(entry: int | None, since: int | None, log: Path | None) -> None:
    """Print a SignedDecision with an inclusion proof of ENTRY, or with --since a consistency proof.

    Without either, print the newest signed checkpoint: keep it elsewhere, and pass it to `audit verify --checkpoint`.
    """
    if entry is not None and since is not None:
        raise click.UsageError("give either ENTRY or --since")
    with SqliteStore.open(needed(settings(log=log), "log"), read_only=True) as store:
        if entry is not None:
            envelope = parse(row_at(store, entry).leaf)
            click.echo(SignedDecision(envelope, prove_inclusion(store, entry)).to_json())
        elif since is not None:
            path = [encode_base64(node).decode() for node in prove_consistency(store, since)]
            say_json({"old_size": since, "checkpoint": latest_note(store).decode(), "path": path})
        else:
            click.echo(latest_note(store), nl=False)


@command.command("tail")
@log_option
@click.option("-n", "count", type=ENTRY, default=10, show_default=True, help="How many of the newest entries.")
@click.option("-f", "--follow", is_flag=True, help="Go on as entries arrive.")
@json_option
def tail(count: int, follow: bool, as_json: bool, log: Path | None) -> None:
    """Show the newest decisions and approvals, one line each."""
    with SqliteStore.open(needed(settings(log=log), "log"), read_only=True) as store:
        last = store.last()
        start = max(0, (last.entry + 1 if last is not None else 0) - max(0, count))
        while True:
            for entry, shown in _entries(store, start):
                if as_json:
                    say_json(shown.data)
                else:
                    say(shown.line)
                start = entry + 1
            if not follow:
                return
            sys.stdout.flush()
            time.sleep(POLL_S)


def _entries(store: SqliteStore, start: int) -> Iterator[tuple[int, Shown]]:
    last = store.last()
    if last is not None and start <= last.entry:
        for row in store.read(start, last.entry + 1):
            yield row.entry, shown_entry(row.leaf, row.entry)


def _broken(problem: AuditError, as_json: bool) -> int:
    if as_json:
        say_json({"verified": False, "entry": problem.entry, "problem": problem.message})
    else:
        say("BROKEN  ", nl=False, fg="red", bold=True)
        say(problem.message)
    return FINDINGS


def _sound(summary: LogSummary, as_json: bool, *, signed: bool) -> int:
    checkpoint = summary.checkpoint
    if as_json:
        say_json(
            {
                "verified": True,
                "signatures_checked": signed,
                "origin": checkpoint.origin,
                "size": checkpoint.size,
                "root": checkpoint.root.hex(),
                "checkpoints": summary.checkpoints,
                "approvals": summary.approvals,
            }
        )
        return 0
    say("SOUND   ", nl=False, fg="green", bold=True)
    approvals = f", {summary.approvals} of them approvals," if summary.approvals else ""
    say(
        f"{checkpoint.size} entries of {checkpoint.origin}{approvals} under {summary.checkpoints} checkpoints, "
        f"root {checkpoint.root.hex()[:16]}"
    )
    if not signed:
        say("signatures were not checked: give --trust or --key to know who signed", err=True, fg="yellow")
    return 0
