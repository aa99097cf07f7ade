"""`policyguard audit verify|show|prove|tail|rotate|...`: inspect and verify the decision log."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from policyguard.attest.dsse import parse
from policyguard.attest.keys import encode_base64
from policyguard.audit.check import LogSummary, RotatedLogError, check_chain
from policyguard.audit.check_claims import check_claims
from policyguard.audit.checkpoint import read_checkpoint
from policyguard.audit.head import read_head
from policyguard.audit.proofs import latest_note, prove_consistency, prove_inclusion, row_at
from policyguard.audit.receipt import SignedDecision
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.files import read_notes
from policyguard.cli.options import (
    checkpoint_option,
    json_option,
    key_option,
    log_option,
    state_dir_option,
    trust_option,
)
from policyguard.cli.output import echo, say, say_json
from policyguard.cli.settings import needed, settings
from policyguard.cli.verbs.audit_.continuity import accept_reset_command, head_location, rotate_command
from policyguard.cli.verbs.audit_.entries import EntryText, entry_or_problem
from policyguard.cli.verbs.audit_.export import export_command
from policyguard.cli.verbs.audit_.filters import Filter, filter_options, matching, take_filter
from policyguard.cli.verbs.audit_.reviews import log_keys, open_reviews, review
from policyguard.cli.verbs.audit_.runs import lines_about, ran
from policyguard.errors import AuditError
from policyguard.exit_codes import FINDINGS, OK
from policyguard.text import counted

POLL_S = 0.5
_LATER = ", the last one of the checkpoint; entries that were cut off after it cannot be noticed"
ENTRY = click.IntRange(0, 2**63 - 1)
"""An index that SQLite can represent."""


@click.group("audit")
def command() -> None:
    """Verify, show, export, prove or follow the decision log."""


command.add_command(open_reviews)
command.add_command(review)
command.add_command(rotate_command)
command.add_command(accept_reset_command)
command.add_command(export_command)


@command.command("verify")
@log_option
@trust_option
@key_option
@state_dir_option
@checkpoint_option
@click.option(
    "--previous",
    multiple=True,
    type=click.Path(path_type=Path),
    help="An older log that was rotated away, the oldest first; this log must begin with its head.",
)
@json_option
def verify(checkpoints: tuple[Path, ...], previous: tuple[Path, ...], as_json: bool, **chosen: Any) -> int:
    """Recompute every entry, hash, checkpoint and claim; name the first wrong entry.

    Exits with 1 where the log does not add up. Without --trust or --key the log is compared with itself only, and the
    answer says so. Whether entries are missing at the end shows only a head file, or a checkpoint kept elsewhere.
    """
    config = settings(**chosen)
    path = needed(config, "log")
    with ExitStack() as opened:
        store = opened.enter_context(SqliteStore.open(path, read_only=True))
        older = [opened.enter_context(SqliteStore.open(name, read_only=True)) for name in previous]
        notes = read_notes(checkpoints, {opened_store.origin for opened_store in (*older, store)})
        known = max((note.size for note in map(read_checkpoint, notes) if note.origin == store.origin), default=0)
        logs = log_keys(config, store.origin)
        head = read_head(head_location(config, path), store.origin)
        head_note = None if head is None or head.note is None else head.note.encode()
        try:
            summary = check_chain([*older, store], logs, notes, head=head_note)
            check_claims([*older, store], time.time_ns())
        except AuditError as problem:
            return _broken(problem, as_json)
        if head is None and config.state_dir is not None:
            say(f"no head file for {store.origin} of {path} in {config.state_dir}", err=True, fg="yellow")
    return _sound(summary, as_json, signed=logs is not None, judged=summary.checkpoint.size if head_note else known)


@command.command("show")
@log_option
@click.argument("entry", type=ENTRY, required=False)
@filter_options
@json_option
def show(entry: int | None, as_json: bool, log: Path | None, **chosen: Any) -> int:
    """Show the entry at index ENTRY, or those that the options choose: who ran what, when, from which commit.

    Shows what ran with the values that the log has. Exits with 1 if an entry cannot be read; the others are shown.
    """
    wanted = take_filter(chosen)
    if (entry is None) == wanted.is_empty:
        raise click.UsageError("give either ENTRY or options such as `--subject user:alice --since 2027-01-05`")
    unreadable = matched = 0
    with SqliteStore.open(needed(settings(log=log), "log"), read_only=True) as store:
        for number, result in _chosen(store, entry, wanted):
            if isinstance(result, AuditError):
                unreadable += 1
                say(f"policyguard: {'' if entry is not None else 'skipped: '}{result}", err=True, fg="red")
                if entry is not None:
                    say("  help: `policyguard audit verify` says whether the log was changed, and where", err=True)
                continue
            matched += 1
            _show(number, result, as_json=as_json, is_one=entry is not None)
    if not matched and not unreadable:
        say("no entry matches", err=True)
    return FINDINGS if unreadable else OK


def _chosen(store: SqliteStore, entry: int | None, wanted: Filter) -> Iterator[tuple[int, EntryText | AuditError]]:
    if entry is None:
        return matching(store, 0, wanted)
    return iter([(entry, entry_or_problem(row_at(store, entry).leaf, entry))])


def _show(number: int, entry: EntryText, *, as_json: bool, is_one: bool) -> None:
    if as_json:
        record = {"ran": ran(entry.statement["predicate"])} if entry.kind == "decision" else {}
        say_json({"entry": number, **record, "statement": entry.statement})
        return
    say(entry.line)
    if entry.kind == "decision":
        for line in lines_about(entry.statement["predicate"]):
            say(line)
    if is_one:
        say(json.dumps(entry.statement.get("predicate", entry.statement), indent=2, ensure_ascii=False))


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
            echo(SignedDecision(envelope, prove_inclusion(store, entry)).to_json())
        elif since is not None:
            path = [encode_base64(node).decode() for node in prove_consistency(store, since)]
            say_json({"old_size": since, "checkpoint": latest_note(store).decode(), "path": path})
        else:
            echo(latest_note(store), nl=False)


@command.command("tail")
@log_option
@click.option("-n", "count", type=ENTRY, default=10, show_default=True, help="How many of the newest entries.")
@click.option("-f", "--follow", is_flag=True, help="Go on as entries arrive.")
@filter_options
@json_option
def tail(count: int, follow: bool, as_json: bool, log: Path | None, **chosen: Any) -> int:
    """Show the newest decisions and approvals, one line each.

    An entry that cannot be read is reported and skipped; the exit code is 1 then.
    """
    unreadable, wanted = False, take_filter(chosen)
    with SqliteStore.open(needed(settings(log=log), "log"), read_only=True) as store:
        last = store.last()
        end = last.entry + 1 if last is not None else 0
        start = max(0, end - max(0, count))
        newest = matching(store, start, wanted)
        if not wanted.is_empty:
            # Which entries are the newest that match is known at the end; only those are kept in memory.
            newest = iter(deque(matching(store, 0, wanted), maxlen=count))
        while True:
            for entry, result in newest:
                end = max(end, entry + 1)
                if isinstance(result, AuditError):
                    unreadable = True
                    say(f"policyguard: skipped: {result}", err=True, fg="red")
                elif as_json:
                    say_json(result.data)
                else:
                    say(result.line)
            if not follow:
                return FINDINGS if unreadable else OK
            sys.stdout.flush()
            time.sleep(POLL_S)
            newest = matching(store, end, wanted)


def _broken(problem: AuditError, as_json: bool) -> int:
    if as_json:
        say_json({"verified": False, "entry": problem.entry, "problem": problem.message})
    else:
        word = "UNKNOWN " if isinstance(problem, RotatedLogError) else "BROKEN  "
        say(word, nl=False, fg="red", bold=True)
        say(problem.message)
    return FINDINGS


def _sound(summary: LogSummary, as_json: bool, *, signed: bool, judged: int) -> int:
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
                **({"judged_up_to": judged - 1} if judged else {"end_checked": False}),
            }
        )
        return 0
    say("SOUND   ", nl=False, fg="green", bold=True)
    approvals = f", {summary.approvals} of them approvals," if summary.approvals else ""
    say(
        f"{counted(checkpoint.size, 'entry')} of {checkpoint.origin}{approvals} under "
        f"{counted(summary.checkpoints, 'checkpoint')}, "
        f"root {checkpoint.root.hex()[:16]}"
    )
    if not judged:
        say(f"sound up to {checkpoint.size}; the end cannot be judged: give --checkpoint, or --state-dir of the guard")
    else:
        say(f"judged up to entry {judged - 1}" + ("" if judged == checkpoint.size else _LATER))
    if not signed:
        say("signatures were not checked: give --trust or --key to know who signed", err=True, fg="yellow")
    return 0
