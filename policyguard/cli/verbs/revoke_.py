"""`policyguard revoke KIND ID`: revoke a decision, a key, or what a decision rests on, before it expires."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from policyguard.attest.keys import PrivateKey
from policyguard.attest.revocation import (
    EMPTY,
    KEY,
    KINDS,
    MAX_REVOCATION_BYTES,
    Revocation,
    RevocationList,
    check_form,
    open_list,
    revocation,
    sign_list,
)
from policyguard.attest.trust import RevocationTrust
from policyguard.cli.files import replace_file
from policyguard.cli.options import json_option, trust_option
from policyguard.cli.output import say, say_json
from policyguard.cli.settings import settings
from policyguard.config.trust_file import read_trust
from policyguard.errors import ConfigurationError, RequestError
from policyguard.fs.safe_open import read_bounded
from policyguard.keyfiles import read_passphrase, read_private_key
from policyguard.revocation_file import exclusive
from policyguard.text import counted
from policyguard.values import Instant, parse_instant

_HELP = {
    "decision": "Revoke the decision with this id.",
    "key": "Revoke a key: of an approver, a guard or a log.",
    "approver": "Revoke every decision that this account approved.",
    "grant": "Revoke every decision that may rest on this grant.",
    "approval": "Revoke every decision that rests on the approval with this digest.",
    "policy": "Revoke every decision under the policies with this digest.",
}
_KEY = click.option(
    "--key",
    type=click.Path(path_type=Path),
    required=True,
    help="The revocation key's private file; never the guard's own key.",
)


@click.group("revoke")
def command() -> None:
    """Append to the revocation list that the trust file names under `revocation:` (step V12)."""


def _add(kind: str) -> None:
    @command.command(kind, help=_HELP[kind])
    @click.argument("identifier", metavar="ID")
    @click.option("--since", help="Only decisions issued at this time or later; without it, all.")
    @click.option("--reason", default="", help="Why, for people; one line.")
    @_KEY
    @trust_option
    @json_option
    def revoke(identifier: str, since: str | None, reason: str, key: Path, trust: Path | None, as_json: bool) -> None:
        now = time.time_ns() // 1_000_000 * 1_000_000
        try:
            start = None if since is None else parse_instant(since)
            check_form(kind, identifier)
            entry = revocation(kind, identifier, reason=reason, now=now, since=start)
        except ValueError as problem:
            help_ = _key_help(identifier) if kind == KEY else None
            raise RequestError(str(problem), path=f"revoke {kind}", help=help_) from None
        _signed(trust, key, now, entry, as_json)


for _kind in KINDS:
    _add(_kind)


@command.command("refresh")
@_KEY
@trust_option
@json_option
def refresh(key: Path, trust: Path | None, as_json: bool) -> None:
    """Sign the list again, unchanged, before it is older than `maxAge`; creates an empty list if there is none."""
    _signed(trust, key, time.time_ns() // 1_000_000 * 1_000_000, None, as_json)


@command.command("list")
@trust_option
@json_option
def show(trust: Path | None, as_json: bool) -> None:
    """Show the verified list."""
    pinned = _pinned(trust)
    if not os.path.lexists(pinned.source):
        raise ConfigurationError(
            f"{pinned.source}: there is no revocation list, expected one",
            help="make it with `policyguard revoke refresh`",
        )
    content = open_list(read_bounded(pinned.source, MAX_REVOCATION_BYTES), pinned.keys)
    if as_json:
        say_json(_data(pinned, content))
        return
    number = counted(len(content.entries), "entry")
    say(f"{pinned.source}: sequence {content.sequence} of {content.issued_at}, {number}")
    for entry in content.entries:
        since = "" if entry.since is None else f"  since {entry.since}"
        say(f"  {entry.kind:8}  {entry.id}{since}  revoked {entry.revoked_at}  {entry.reason}".rstrip())


def _key_help(identifier: str) -> str | None:
    """Suggest the command that prints a key, if the user named the key's file instead."""
    if "/" not in identifier and not identifier.endswith((".pub", ".key", ".pem")):
        return None
    return "this is a file: give the key itself, as `policyguard keys show FILE` prints it, or the line in FILE.pub"


def _signed(trust: Path | None, key: Path, now: Instant, entry: Revocation | None, as_json: bool) -> None:
    """Read the list, append the entry, sign it with the next sequence number, and replace the file."""
    pinned = _pinned(trust)
    private = _revocation_key(key, pinned)
    path = Path(pinned.source)
    if not path.parent.is_dir():
        raise ConfigurationError(
            f"{path.parent}: there is no such folder, expected the one of the revocation list",
            help=f"mkdir -p {path.parent}, or change `revocation.source` in the trust file",
        )
    with exclusive(path):
        present = _present(path, pinned)
        if parse_instant(present.issued_at) > now:
            raise ConfigurationError(
                f"{path}: is of {present.issued_at}, which is in the future; expected a clock that goes on"
            )
        if entry is not None and any(_is_same(entry, other) for other in present.entries):
            _say_present(entry, pinned, present, as_json)
            return
        sequence = max(present.sequence + 1, pinned.min_sequence)
        try:
            data = sign_list((*present.entries, *(() if entry is None else (entry,))), sequence, now, private)
        except ValueError as problem:
            raise ConfigurationError(f"{path}: {problem}") from None
        replace_file(path, data + b"\n")
    content = open_list(data, pinned.keys)
    if as_json:
        say_json(_data(pinned, content))
    else:
        say(f"{path}: sequence {content.sequence}, {counted(len(content.entries), 'entry')}")


def _is_same(entry: Revocation, other: Revocation) -> bool:
    return (entry.kind, entry.id, entry.since) == (other.kind, other.id, other.since)


def _say_present(entry: Revocation, pinned: RevocationTrust, present: RevocationList, as_json: bool) -> None:
    if as_json:
        say_json(_data(pinned, present))
    else:
        say(f"{pinned.source}: {entry.kind} `{entry.id}` is there already; nothing was appended")


def _pinned(trust: Path | None) -> RevocationTrust:
    config = settings(trust=trust)
    if config.trust is None:
        raise ConfigurationError("--trust is missing, expected the trust file whose `revocation:` names the list")
    pinned = read_trust(config.trust).revocation
    if pinned is None:
        raise ConfigurationError(
            f"{config.trust}: has no `revocation:`, expected `{{source, keys, maxAge}}`",
            help="without it no worker reads a revocation list",
        )
    return pinned


def _revocation_key(path: Path, pinned: RevocationTrust) -> PrivateKey:
    private = read_private_key(path, passphrase=read_passphrase())
    # INVARIANT I10: a list that no worker accepts is not written: the guard's own key is none of these.
    if private.public not in pinned.keys:
        raise ConfigurationError(f"{path}: is no revocation key, expected one of `revocation.keys` in the trust file")
    return private


def _present(path: Path, pinned: RevocationTrust) -> RevocationList:
    if not os.path.lexists(path):
        return EMPTY
    return open_list(read_bounded(path, MAX_REVOCATION_BYTES), pinned.keys)


def _data(pinned: RevocationTrust, content: RevocationList) -> dict[str, Any]:
    entries = [
        {"kind": e.kind, "id": e.id, "reason": e.reason, "revoked_at": e.revoked_at, "since": e.since}
        for e in content.entries
    ]
    return {
        "list": pinned.source,
        "sequence": content.sequence,
        "issued_at": content.issued_at,
        "entries": entries,
    }
