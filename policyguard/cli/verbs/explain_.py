"""`policyguard explain REQUEST`: show how a request would be decided now; nothing is signed or logged."""

from __future__ import annotations

import time
from pathlib import Path

import click

from policyguard.assembly.jobs import review_files
from policyguard.assembly.requests import request_collectors
from policyguard.audit.approval_use import preview_decision
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.files import read_request
from policyguard.cli.options import json_option, key_option, log_option, observed_option, policies_option
from policyguard.cli.output import say_explanation, say_json
from policyguard.cli.settings import author_settings, needed, snapshot_keys
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.evidence.collector import JobInputs, gather
from policyguard.exit_codes import code_of_decision
from policyguard.hooks.responses import decision_data
from policyguard.model.decision import Decision
from policyguard.model.facts import Facts
from policyguard.policy_store.load import load_snapshot


@click.command("explain")
@policies_option
@key_option
@log_option
@observed_option
@click.option("--full", is_flag=True, help="Every rule that could concern the request, with each atom.")
@click.option("--viewer", metavar="TYPE:ID", help="Explain it as this subject may see it.")
@json_option
@click.argument("request")
def command(
    request: str,
    policies: Path | None,
    key: Path | None,
    log: Path | None,
    observed: tuple[str, ...],
    full: bool,
    viewer: str | None,
    as_json: bool,
) -> int:
    """Explain how the AuthZEN request in the file REQUEST, `-` for standard input, would be decided.

    Approvals are read as `decide` reads them; with a log, also which of them are used up.
    """
    parsed = read_request(request)
    config = author_settings(policies=policies, key=key, log=log)
    path = needed(config, "policies")
    snapshot = load_snapshot(path, snapshot_keys(config, path))
    collectors = request_collectors(review_files(config), observed)(snapshot, parsed, None)
    facts = gather(parsed, collectors, JobInputs(), time.time_ns)
    decision = _decision(snapshot, facts, config.log)
    if as_json:
        say_json({**decision_data(decision), "explanation": decision.explain(full=full, viewer=viewer)})
    else:
        say_explanation(decision.explain(full=full, viewer=viewer))
    return code_of_decision(decision)


def _decision(snapshot: Snapshot, facts: Facts, log: Path | None) -> Decision:
    now = time.time_ns()
    decision = Engine(snapshot).decide(facts, now)
    # The user may not be allowed to read the log, so it is opened only if it can change the answer.
    if log is None or not snapshot.consumes_approvals(decision) or not log.exists():
        return decision
    with SqliteStore.open(log, read_only=True) as store:
        return preview_decision(snapshot, facts, now, store)
