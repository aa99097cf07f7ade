"""`policyguard init DIR`: create everything that a first decision needs; never change an existing file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import click

from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey
from policyguard.cli.files import write_new
from policyguard.cli.options import json_option
from policyguard.cli.output import say, say_json
from policyguard.errors import ConfigurationError, PolicyGuardError
from policyguard.evidence.identity import calling_account
from policyguard.fs.safe_open import reason_of
from policyguard.fs.write import sync_folder
from policyguard.guard import log_origin
from policyguard.keyfiles import write_private_key, write_public_key

CONFIG = """\
# The settings of this guard. Enforcing verbs read them by `--config` or from /etc/policyguard/policyguard.yaml, and
# only while nobody but root and the guard's account can change them. An option on the command line wins.
policies: policies        # a folder, or a compiled snapshot
key: guard.key            # signs decisions and log checkpoints; keep it here, mode 0600
log: audit.db             # the decision log
stateDir: .               # for the head of the log; better a folder that only root and the guard may write
trust: trust.yaml         # what a verifier accepts; copy it to the workers
audience: local           # the cluster or host that decisions are for
lifetime: 15m             # how long a decision may be used
# Accounts that may name another subject with `--subject`: for a local lab, and for schedulers. In a real installation
# remove every person's account: the subject is then the account that runs `policyguard run`.
speakFor: [{login}]
# The source of limits and use; an allow reserves its `resource.gpus`, or what `reserve:` names, until the job ends.
# quota: {{file: quota.json}}
# accounts: {{asmith: "user:alice"}}   # the subject of an account; `user:LOGIN` if it is not listed
"""

TRUST = """\
# Whose decisions this worker accepts. It holds no secret; protect it from writers.
apiVersion: policyguard/v1
kind: Trust
keys:
  - key: {key}
    name: guard
    heldBy: self            # this account can read the key; `service` if no account that submits jobs can
# For a local lab only: who can read the key can sign any decision, so it enforces nothing on that account. Remove this
# line where a service decides; then a decision of a key held by `self` is refused (V10).
selfIssued: accept
logs:
  - {log}
audiences: [local]
policies:
  minEpoch: 1             # raise it together with `epoch:` in policies/schema.yaml
  # To accept only policies that two persons have signed, name them under `signers:`; see docs/keys.md.
  # To accept one compiled snapshot only, pin the policy digest that `policyguard compile` prints, instead of minEpoch:
  # digests: ["64 HEX DIGITS"]
"""

_FOLDER_MODE = 0o755
"""Only the owner can write, whatever the umask: files that a group can change are refused later."""

NAMES = ("policies", "requests", "guard.key", "guard.key.pub", "trust.yaml", "policyguard.yaml")


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
def command(folder: Path, as_json: bool) -> None:
    """Create example policies, requests, a key, trust.yaml and policyguard.yaml in FOLDER; never overwrites."""
    create_files(folder)
    if as_json:
        say_json({"folder": str(folder), "made": list(NAMES)})
        return
    say(f"{folder}: ready; try")
    say(f"  cd {folder}")
    say("  policyguard lint policies")
    say("  policyguard decide --config policyguard.yaml requests/allowed.json")


def create_files(folder: Path) -> PrivateKey:
    """Create the folder's content and return its key; change nothing if any of the files exists.

    All of it is written to a hidden folder first and then moved to its names. A crash leaves `.init-*`, and of the
    names those that were moved by then, each of them whole.

    Raises:
        ConfigurationError: one of the files exists, or one cannot be written.
    """
    for name in NAMES:
        if os.path.lexists(folder / name):
            raise ConfigurationError(f"{folder / name}: exists already, expected a folder without it")
    made = [parent for parent in (folder, *folder.parents) if not os.path.lexists(parent)]
    hidden = folder / f".init-{os.urandom(6).hex()}"
    try:
        for parent in (*reversed(made), hidden):
            parent.mkdir(mode=_FOLDER_MODE)
        key = _fill(hidden)
        for name in NAMES:
            (hidden / name).rename(folder / name)
        hidden.rmdir()
        for parent in (folder, *(parent.parent for parent in made)):
            sync_folder(parent)
    except (OSError, ValueError) as problem:
        _take_back(folder, hidden, made)
        raise ConfigurationError(f"{folder}: cannot be written: {reason_of(problem)}") from problem
    except PolicyGuardError:
        _take_back(folder, hidden, made)
        raise
    return key


def _fill(folder: Path) -> PrivateKey:
    _copy(example_policies(), folder / "policies")
    (folder / "requests").mkdir(mode=_FOLDER_MODE)
    for name, request in EXAMPLES.items():
        write_new(folder / "requests" / f"{name}.json", (json.dumps(request, indent=2) + "\n").encode())
    key = PrivateKey.generate(os.urandom(32))
    write_private_key(folder / "guard.key", key)
    write_public_key(folder / "guard.key.pub", key.public)
    log = NoteKey(log_origin(key.public), key.public)
    write_new(folder / "trust.yaml", TRUST.format(key=json.dumps(key.public.text), log=json.dumps(log.text)).encode())
    write_new(folder / "policyguard.yaml", CONFIG.format(login=_own_login()).encode())
    return key


def _own_login() -> str:
    login = calling_account().login
    return "" if login is None else json.dumps(login)


def _take_back(folder: Path, hidden: Path, made: Sequence[Path]) -> None:
    """Delete what this run created: its temporary files, and folders that are empty again."""
    for name in NAMES:
        with suppress(OSError):
            if hidden.exists() and not os.path.lexists(hidden / name):
                (folder / name).rename(hidden / name)
    shutil.rmtree(hidden, ignore_errors=True)
    for parent in made:
        with suppress(OSError):
            parent.rmdir()


def example_policies() -> Traversable:
    """Find the example policies, in the installed wheel or in a checkout."""
    inside = files("policyguard") / "policies"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "policies"


def _copy(source: Traversable, target: Path) -> None:
    target.mkdir(mode=_FOLDER_MODE)
    for item in sorted(source.iterdir(), key=lambda entry_: entry_.name):
        if item.is_dir():
            _copy(item, target / item.name)
        elif item.name.endswith((".yaml", ".yml", ".md")):
            write_new(target / item.name, item.read_bytes())


def _request(user: str, action: str, type_: str, id_: str, **properties: Any) -> dict[str, Any]:
    resource = {"type": type_, "id": id_, **({"properties": properties} if properties else {})}
    return {"subject": {"type": "user", "id": user}, "action": {"name": action}, "resource": resource}


EXAMPLES: dict[str, dict[str, Any]] = {
    "allowed": _request("alice", "repo:read", "repo", "team/vision/trainer"),
    "denied-stranger": _request("mallory", "repo:read", "repo", "team/vision/trainer"),
    "denied-only-claimed": _request(
        "alice",
        "job:submit",
        "job",
        "team/vision/run-17",
        gpus=8,
        code={"commit": "0" * 40, "dirty": False, "dirty_files": [], "untracked_files": []},
    ),
    "denied-ceiling": _request("ivan", "job:submit", "job", "team/vision/run-17", gpus=256),
    "denied-unknown-attribute": _request("alice", "job:submit", "job", "team/vision/run-17", gpu=8),
    "denied-alone": {
        **_request("ines", "job:breakglass-kill", "job", "team/vision/run-21"),
        "context": {"ticket": "INC-18"},
    },
}
"""Requests that decide, by file name. A job is allowed only if it is measured: `policyguard run`.

What is denied alone is allowed with a second person's approval: docs/approvals.md.
"""
