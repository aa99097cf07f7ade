"""`policyguard explain REQUEST`: show how a request would be decided; nothing is signed or logged."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from policyguard.assembly.jobs import review_files
from policyguard.assembly.requests import request_collectors
from policyguard.audit.approval_use import preview_decision
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.files import REQUEST, read_request
from policyguard.cli.options import json_option, key_option, log_option, observed_option, policies_option
from policyguard.cli.output import say, say_explanation, say_json
from policyguard.cli.settings import author_settings, needed, snapshot_keys
from policyguard.cli.supposing import snapshot_with_roles, supposing, take_supposition
from policyguard.config.file import Config
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.evidence.collector import JobInputs, gather
from policyguard.exit_codes import code_of_decision
from policyguard.hooks.responses import decision_data
from policyguard.model.decision import Decision
from policyguard.model.facts import Facts
from policyguard.model.request import Request
from policyguard.policy_store.load import load_snapshot
from policyguard.testing.suppose import Supposition, supposed_facts
from policyguard.text import printable
from policyguard.values import Instant, format_instant

_SUPPOSE = "  help: a fact that only `run` measures can be supposed: `--fact PATH=VALUE@measured`, or `--facts FILE`"


@click.command("explain")
@policies_option
@key_option
@log_option
@observed_option
@supposing("fact", "facts", "role", "approved-by", "contributor", "at")
@click.option("--full", is_flag=True, help="Every rule that could concern the request, with each atom.")
@click.option("--viewer", metavar="TYPE:ID", help="Explain it as this subject may see it.")
@json_option
@click.argument("request", nargs=-1, required=True, metavar=REQUEST)
def command(request: tuple[str, ...], observed: tuple[str, ...], **chosen: Any) -> int:
    """Explain how a request would be decided; nothing is signed or logged.

    REQUEST is a file, `-` for standard input, YAML if its name ends with .yaml. A request in words names claimed
    properties of the resource as `gpus=8`, others as `subject.NAME=VALUE` and `context.NAME=VALUE`.

    Approvals are read as `decide` reads them; with a log, also which of them are used up. With something supposed,
    nothing is read or measured: the answer rests on what is supposed, and on the policies, alone.

    \b
    policyguard explain user:alice job:submit job:team/vision/run-1 gpus=8 \\
      --fact resource.code.dirty=false@measured --at 2027-01-05T03:00Z --approved-by user:carol
    """
    view = {name: chosen.pop(name) for name in ("full", "viewer")}
    as_json = chosen.pop("as_json")
    supposed, at = take_supposition(chosen)
    parsed = read_request(*request)
    config = author_settings(**chosen)
    note = None
    if supposed == Supposition() and at is None:
        decision = _decide(config, parsed, observed)
    else:
        now = time.time_ns() if at is None else at
        decision, note = _suppose(config, parsed, supposed, now), _note(supposed, now, parsed)
    _say(decision, decision.explain(**view), note, as_json=as_json)
    return code_of_decision(decision)


def _say(decision: Decision, explanation: str, note: str | None, *, as_json: bool) -> None:
    if as_json:
        data = {**decision_data(decision), "explanation": explanation}
        say_json(data if note is None else {**data, "hypothetical": note})
        return
    if note is not None:
        say("HYPOTHETICAL  nothing was measured, signed or logged")
        say(f"supposed {note}\n")
    say_explanation(explanation)
    if note is None and decision.errored:
        say(_SUPPOSE, err=True)


def _decide(config: Config, request: Request, observed: tuple[str, ...]) -> Decision:
    path = needed(config, "policies")
    snapshot = load_snapshot(path, snapshot_keys(config, path))
    collectors = request_collectors(review_files(config), observed)(snapshot, request, None)
    facts = gather(request, collectors, JobInputs(), time.time_ns)
    return _decision(snapshot, facts, config.log)


def _decision(snapshot: Snapshot, facts: Facts, log: Path | None) -> Decision:
    now = time.time_ns()
    decision = Engine(snapshot).decide(facts, now)
    # The user may not be allowed to read the log, so it is opened only if it can change the answer.
    if log is None or not snapshot.consumes_approvals(decision) or not log.exists():
        return decision
    with SqliteStore.open(log, read_only=True) as store:
        return preview_decision(snapshot, facts, now, store)


def _suppose(config: Config, request: Request, supposed: Supposition, now: Instant) -> Decision:
    snapshot = snapshot_with_roles(config, request.subject.ref, supposed.roles)
    return Engine(snapshot).decide(supposed_facts(request, snapshot.schema, supposed, now), now)


def _note(supposed: Supposition, now: Instant, request: Request) -> str:
    parts = [f"time {format_instant(now)}", *supposed.facts, *supposed.documents]
    parts += [f"role {role}" for role in supposed.roles]
    parts += [f"approved by {account}" for account in supposed.approvers]
    parts.append("contributors " + " ".join(supposed.contributors or (request.subject.ref,)))
    return printable("; ".join(parts))
