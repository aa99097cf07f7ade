"""`policyguard hook`: its help and completion. Answering is `hooks/stdio.py`, which `main` calls without click."""

from __future__ import annotations

from typing import Any

import click

from policyguard.cli.options import guard_options
from policyguard.hooks.stdio import main


@click.command("hook")
@guard_options
@click.option("--observed", multiple=True, metavar="PATH", help="An attribute that the calling platform itself saw.")
@click.option("--look", is_flag=True, help="Look at identity and repository here, too.")
@click.option("--json", "as_json", is_flag=True, help="The answer is JSON in any case.")
def command(observed: tuple[str, ...], look: bool, as_json: bool, **given: Any) -> int:  # noqa: ARG001
    """Answer the AuthZEN request on standard input with one JSON object; sign and log the decision.

    Exits with 0 allowed, 77 denied, 65 bad input, 69 unavailable, 78 configuration. With a compiled snapshot and all
    of --policies, --key and --log it starts several times faster.
    """
    words = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    words += [word for path in observed for word in ("--observed", path)]
    return main([*words, "--look"] if look else words)
