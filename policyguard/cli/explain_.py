"""`policyguard explain REQUEST`: how a request would be decided now; nothing is signed, nothing is logged."""

from __future__ import annotations

import time
from pathlib import Path

import click

from policyguard.attest.keys import PublicKey
from policyguard.cli.options import (
    json_option,
    key_option,
    needed,
    passphrase,
    policies_option,
    read_request,
    settings,
)
from policyguard.cli.output import say_explanation, say_json
from policyguard.config import Config
from policyguard.hooks.answer import decision_code, decision_data
from policyguard.keyfiles import read_private_key
from policyguard.model.facts import Facts, claims
from policyguard.snapshots import load_snapshot


@click.command("explain")
@policies_option
@key_option
@click.option("--full", is_flag=True, help="Every rule that could concern the request, with each atom.")
@click.option("--viewer", metavar="TYPE:ID", help="Explain it as this subject may see it.")
@json_option
@click.argument("request")
def command(
    request: str, policies: Path | None, key: Path | None, full: bool, viewer: str | None, as_json: bool
) -> int:
    """Explain how the AuthZEN request in the file REQUEST, `-` for standard input, would be decided."""
    asked = read_request(request)
    config = settings(policies=policies, key=key)
    snapshot = load_snapshot(needed(config, "policies"), _keys(config))
    now = time.time_ns()
    decision = snapshot.decide(Facts(asked, claims(asked, now)), now)
    if as_json:
        say_json({**decision_data(decision), "explanation": decision.explain(full=full, viewer=viewer)})
    else:
        say_explanation(decision.explain(full=full, viewer=viewer))
    return decision_code(decision)


def _keys(config: Config) -> tuple[PublicKey, ...]:
    """Return who may have signed a compiled snapshot; a folder needs nobody."""
    path = needed(config, "policies")
    if path.is_dir():
        return ()
    return (read_private_key(needed(config, "key"), passphrase=passphrase()).public,)
