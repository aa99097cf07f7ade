"""`policyguard keys new|show|rotate`: create, show and replace key files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey
from policyguard.audit.log import Log
from policyguard.cli.options import add_config_option, json_option, key_option, log_option
from policyguard.cli.output import say, say_json
from policyguard.cli.settings import needed, settings
from policyguard.errors import ConfigurationError, PolicyGuardError
from policyguard.keyfiles import (
    PASSPHRASE_VARIABLE,
    read_passphrase,
    read_private_key,
    write_private_key,
    write_public_key,
)


@click.group("keys")
def command() -> None:
    """Create keys, show their ids, and hand a log over to a new key."""


@command.command("new")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--wrap", is_flag=True, help=f"Lock the key with the passphrase in {PASSPHRASE_VARIABLE}.")
@json_option
def new(path: Path, wrap: bool, as_json: bool) -> None:
    """Create a private key at PATH and its public key at PATH.pub; never overwrites."""
    secret = read_passphrase()
    if wrap and secret is None:
        raise ConfigurationError(f"--wrap needs a passphrase, expected it in {PASSPHRASE_VARIABLE}")
    key = PrivateKey.generate(os.urandom(32))
    public = path.with_name(path.name + ".pub")
    write_private_key(path, key, passphrase=secret if wrap else None)
    try:
        write_public_key(public, key.public)
    except PolicyGuardError:
        # Both files or neither; the private key is new and unused, so it may be removed.
        path.unlink()
        raise
    _show(path, key, as_json)


@command.command("show")
@click.argument("path", type=click.Path(path_type=Path))
@json_option
def show(path: Path, as_json: bool) -> None:
    """Show the public key and the key id of the private key at PATH."""
    _show(path, read_private_key(path, passphrase=read_passphrase()), as_json)


@command.command("rotate")
@click.argument("new", type=click.Path(path_type=Path))
@key_option
@log_option
@json_option
def rotate(new: Path, key: Path | None, log: Path | None, as_json: bool) -> None:
    """Hand the log over to the private key at NEW; the old key is --key, or that of the configuration.

    Stop the guards first. Both keys sign one entry, after which the present key appends nothing. Before this, add the
    new key to the trust of every worker; remove the old one when its last decision has expired.
    """
    config = settings(key=key, log=log)
    passphrase = read_passphrase()
    old = read_private_key(needed(config, "key"), passphrase=passphrase)
    successor = read_private_key(new, passphrase=passphrase)
    with Log.open(needed(config, "log"), old) as opened:
        former = opened.verifier
        receipt = opened.hand_over(successor, time.time_ns() // 1_000_000 * 1_000_000)
    verifier = NoteKey(former.name, successor.public)
    if as_json:
        say_json(
            {"entry": receipt.index, "public": successor.public.text, "log": verifier.text, "former_log": former.text}
        )
        return
    say(f"entry {receipt.index} hands the log over; set `key: {new}` and let trust files list")
    say(f"  keys:  {successor.public.text}")
    say(f"  logs:  {verifier.text}")
    say(f"Keep {old.public.text} and {former.text} there until the last decision under them has expired.")


add_config_option(rotate)


def _show(path: Path, key: PrivateKey, as_json: bool) -> None:
    if as_json:
        say_json({"path": str(path), "public": key.public.text, "keyid": key.keyid})
    else:
        say(f"{path}\n  public  {key.public.text}\n  keyid   {key.keyid}")
