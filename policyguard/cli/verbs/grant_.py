"""`policyguard grant SUBJECT`: sign a temporary exception from a GPU limit."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from policyguard.attest.keys import PublicKey
from policyguard.cli.files import write_new
from policyguard.cli.options import json_option, key_option
from policyguard.cli.output import say, say_json
from policyguard.cli.settings import needed, settings
from policyguard.config.file import Config
from policyguard.errors import RequestError
from policyguard.evidence.gpu_grants import sign_grant
from policyguard.keyfiles import read_passphrase, read_private_key
from policyguard.model.request import Request
from policyguard.values import MAX_INTEGER, NANOSECONDS_PER_S, Instant, format_instant, parse_duration_s, parse_instant

MAX_GRANT_S = 31 * 86_400
"""The longest lifetime of a grant: about a month."""


@click.command("grant")
@click.argument("subject")
@click.option("--gpus", type=click.IntRange(1, MAX_INTEGER), required=True, help="How many GPUs may be asked for.")
@click.option("--until", required=True, help="When it ends: `2026-03-06T18:00:00Z`, or a duration such as `3d`.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new file in the folder of grants.")
@key_option
@json_option
def command(subject: str, gpus: int, until: str, out: Path, key: Path | None, as_json: bool) -> None:
    """Sign a grant for SUBJECT, `user:ivan`, with a key that the operator pinned under `grants:`.

    At most a month; an existing file is never overwritten.
    """
    named = Request.of(subject, "job:submit", "job:x").subject.ref
    now = time.time_ns()
    expires = _end(until, now)
    config = settings(key=key)
    private = read_private_key(needed(config, "key"), passphrase=read_passphrase())
    grant_id = f"grant-{os.urandom(8).hex()}"
    write_new(out, sign_grant(grant_id=grant_id, subject=named, gpus=gpus, expires=expires, key=private))
    if key is None:
        _warn_unpinned(config, private.public)
    if as_json:
        say_json({"grant_id": grant_id, "subject": named, "gpus": gpus, "expires": format_instant(expires)})
    else:
        say(f"{out}: {grant_id}, {named} may ask for {gpus} GPUs until {format_instant(expires)}")


def _warn_unpinned(config: Config, public: PublicKey) -> None:
    """Warn if the guard's own key signs the grant but `grants:` does not pin it: the grant is then ignored."""
    grants = config.measurement.grants
    if grants is not None and public in grants.keys:
        return
    reason = "`grants:` is not configured" if grants is None else "`grants.keys` does not list it"
    say(f"policyguard: signed with `key:`, {config.key}, but {reason}: the grant counts for nothing here", err=True)
    say("  help: pin the key of a lead there, and sign with --key", err=True)


def _end(until: str, now: Instant) -> Instant:
    """Compute when the grant ends: in the future, at most a month away, in whole seconds."""
    try:
        expires = parse_instant(until) if "T" in until or "t" in until else now + parse_duration_s(until) * 10**9
    except ValueError as problem:
        raise RequestError(str(problem), path="--until") from None
    expires -= expires % NANOSECONDS_PER_S
    if not now < expires <= now + MAX_GRANT_S * NANOSECONDS_PER_S:
        raise RequestError(f"found `{until}`, expected a time within the next 31 days", path="--until")
    return expires
