"""`policyguard audit rotate` and `audit accept-reset`: start a new log file, or accept a log that is refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from policyguard.attest.note import NoteKey
from policyguard.audit.continuity import accept_reset, rotate
from policyguard.audit.head import HeadLocation
from policyguard.cli.files import MAX_NOTE_FILE_BYTES
from policyguard.cli.options import json_option, key_option, log_option, state_dir_option
from policyguard.cli.output import say, say_json
from policyguard.cli.settings import needed, settings
from policyguard.config.file import Config
from policyguard.fs.safe_open import read_bounded
from policyguard.keyfiles import read_passphrase, read_private_key


@click.command("rotate")
@log_option
@key_option
@state_dir_option
@click.option("--to", "archive", type=click.Path(path_type=Path), help="The new path of the old log.")
@click.option("--reason", default="rotation", show_default=True, help="Why; goes into the new log.")
@json_option
def rotate_command(archive: Path | None, reason: str, as_json: bool, **chosen: Any) -> int:
    """Start a new log file at the same path; the old one is renamed, and the new one links to it.

    Guards that have the old log open refuse to add to it: start them again.
    """
    config = settings(**chosen)
    log, key = needed(config, "log"), read_private_key(needed(config, "key"), passphrase=read_passphrase())
    target = rotate(
        str(log),
        key,
        head_location(config, log),
        archive=None if archive is None else str(archive),
        reason=reason,
        now=time.time_ns(),
    )
    if as_json:
        say_json({"log": str(log), "archive": target})
    else:
        say(f"{log}: begins again; the old log is {target}")
        say(f"check both with `policyguard audit verify --log {log} --previous {target}`")
    return 0


@click.command("accept-reset")
@log_option
@key_option
@state_dir_option
@click.option("--reason", required=True, help="Why the log is not the one before; goes into the log.")
@click.option(
    "--witness",
    "countersigned",
    type=click.Path(path_type=Path),
    help="The old head's checkpoint, countersigned by the witness of the configuration.",
)
@json_option
def accept_reset_command(reason: str, countersigned: Path | None, as_json: bool, **chosen: Any) -> int:
    """Accept a log that is refused because it does not match its head file.

    Puts the old head and the reason into the log. Where `witness:` is configured, its countersignature is needed.
    """
    config = settings(**chosen)
    log, key = needed(config, "log"), read_private_key(needed(config, "key"), passphrase=read_passphrase())
    entry = accept_reset(
        str(log),
        key,
        head_location(config, log),
        reason=reason,
        now=time.time_ns(),
        witness=None if config.witness is None else NoteKey.from_text(config.witness),
        countersigned=None if countersigned is None else read_bounded(countersigned, MAX_NOTE_FILE_BYTES),
    )
    if as_json:
        say_json({"log": str(log), "entry": entry})
    else:
        say(f"{log}: accepted; entry {entry} says why")
    return 0


def head_location(config: Config, log: Path) -> HeadLocation:
    """Return the location of this log's head file: the state folder, or the log's own folder."""
    return HeadLocation.of(log, config.state_dir)
