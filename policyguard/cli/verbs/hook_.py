"""`policyguard hook`: only its help and completion; `hooks/stdio.py` answers the requests."""

from __future__ import annotations

from typing import Any

import click

from policyguard.cli.options import guard_options, observed_option
from policyguard.hooks.stdio import main


@click.command("hook")
@click.option("--config", metavar="FILE", help="The operator's configuration; by default that of the machine.")
@guard_options
@observed_option
@click.option("--policy-signer", multiple=True, metavar="PERSON=KEY", help="A person who signs policies, and a key.")
@click.option("--policy-threshold", metavar="N", help="How many of these persons must have signed the snapshot.")
@click.option("--measure", is_flag=True, help="Measure the identity of this process and the repository in this folder.")
@click.option("--approvals", metavar="FOLDER", help="A folder of signed approvals.")
@click.option("--approval-log", metavar="FILE", help="A log with approvals as entries.")
@click.option("--allowed-signers", metavar="FILE", help="SSH keys that sign approvals, in OpenSSH's format.")
@click.option("--revoked-keys", metavar="FILE", help="Keys that are not accepted any more.")
@click.option("--gpg-keyring", metavar="FILE", help="With --measure: the only GPG keys that sign commits.")
@click.option("--reviewed-commits", metavar="FILE", help="With --measure: commits and trees that were reviewed before.")
@click.option("--json", "as_json", is_flag=True, help="The answer is JSON in any case.")
def command(
    observed: tuple[str, ...],
    policy_signer: tuple[str, ...],
    measure: bool,
    as_json: bool,  # noqa: ARG001
    **options: Any,
) -> int:
    """Answer the AuthZEN request on standard input with one JSON object; sign and log the decision.

    Exits with 0 allowed, 77 denied, 65 bad input, 69 unavailable, 78 configuration. With a compiled snapshot and all
    of --policies, --key and --log it starts several times faster.
    """
    argv = [
        word
        for name, value in options.items()
        if value is not None
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    argv += [word for path in observed for word in ("--observed", path)]
    argv += [word for signer in policy_signer for word in ("--policy-signer", signer)]
    return main([*argv, "--measure"] if measure else argv)
