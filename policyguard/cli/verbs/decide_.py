"""`policyguard decide REQUEST`: decide, sign, log and explain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from policyguard.assembly.jobs import review_files
from policyguard.assembly.requests import merge_collectors, request_collectors
from policyguard.cli.files import REQUEST, check_replaceable, read_request, replace_file
from policyguard.cli.jobs import artifact_collectors
from policyguard.cli.options import guard_options, json_option, observed_option
from policyguard.cli.output import say_explanation, say_json
from policyguard.cli.settings import decider_settings, open_guard
from policyguard.evidence.collector import JobInputs
from policyguard.exit_codes import code_of_decision
from policyguard.hooks.responses import decision_data


@click.command("decide")
@guard_options
@observed_option
@click.option("--out", type=click.Path(path_type=Path), help="Write the SignedDecision to this file.")
@click.option(
    "--artifact",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The weights, data or policies of the request: they are measured, and approvals of them count.",
)
@json_option
@click.argument("request", nargs=-1, required=True, metavar=REQUEST)
def command(
    request: tuple[str, ...],
    out: Path | None,
    artifact: Path | None,
    as_json: bool,
    observed: tuple[str, ...],
    **chosen: Any,
) -> int:
    """Decide the AuthZEN request in the file REQUEST, `-` for standard input; sign and log the decision.

    A file whose name ends with .yaml is YAML. A request in words names claimed properties of the resource as
    `gpus=8`, others as `subject.NAME=VALUE` and `context.NAME=VALUE`.

    Approvals are read where the configuration says, for actions that are approved by their request alone.

    Exits with 0 when allowed, 77 when denied, 65 when the request does not fit the schema (a denial is signed and
    logged all the same).
    """
    parsed = read_request(*request)
    if out is not None:
        check_replaceable(out)
    config = decider_settings(**chosen)
    collectors, inputs = request_collectors(review_files(config), observed), None
    if artifact is not None:
        path = artifact.absolute()
        collectors = merge_collectors(collectors, artifact_collectors(config, parsed, path))
        inputs = JobInputs(directory=str(path.parent), files=(path.name,))
    with open_guard(config, collectors=collectors) as guard:
        signed = guard.decide(parsed, inputs)
    if out is not None:
        replace_file(out, signed.to_json() + b"\n")
    decision = signed.decision
    if as_json:
        say_json({**decision_data(decision), "signed": json.loads(signed.to_json())})
    else:
        say_explanation(decision.explain())
    return code_of_decision(decision)
