"""`policyguard check-engine DIR`: compare the engine with casbin and an oracle on your own policies."""

from __future__ import annotations

from pathlib import Path

import click

from policyguard.analysis.check_engine import check_engine
from policyguard.cli.options import json_option
from policyguard.cli.output import say, say_json
from policyguard.cli.settings import author_settings, needed
from policyguard.exit_codes import FINDINGS, OK
from policyguard.policy_store.folder import policy_set_of_folder


@click.command("check-engine")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--requests", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="How many to ask.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed asks the same.")
@json_option
def command(folder: Path | None, requests: int, seed: int, as_json: bool) -> int:
    """Decide random and boundary requests, built from the policies' constants, with three engines.

    Exits with 1 on a difference that no documented limit of casbin explains.
    """
    report = check_engine(
        policy_set_of_folder(needed(author_settings(policies=folder), "policies")), requests=requests, seed=seed
    )
    if as_json:
        say_json(
            {
                "agree": report.ok,
                "requests": report.requests,
                "allowed": report.allowed,
                "seed": seed,
                "unjudged": report.unjudged,
                "reached": report.reached,
                "failures": [str(difference) for difference in report.failures],
                "explained": [str(difference) for difference in report.differences if difference.hazard],
            }
        )
    else:
        say(report.to_text())
    return OK if report.ok else FINDINGS
