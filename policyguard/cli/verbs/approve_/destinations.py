"""Stores an approval in a folder, a git note or a log; and signs with ssh-keygen."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from policyguard.attest.approval import NAMESPACE, ApprovalRejected, ApprovalStatement
from policyguard.attest.signers import Signers
from policyguard.audit.approvals import approval_leaf, approval_leaves, approval_line
from policyguard.audit.log import Log
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.files import read_input, write_new
from policyguard.cli.settings import needed
from policyguard.config.file import Config
from policyguard.config.paths import job_folders
from policyguard.errors import ConfigurationError, RequestError, SigningError
from policyguard.evidence.approvals.from_git_notes import NOTES_REF
from policyguard.evidence.approvals.from_log import line_of
from policyguard.evidence.approvals.verify import MAX_FILE_BYTES, SubmittedApproval, authenticate
from policyguard.fs.ownership import check_apart
from policyguard.fs.safe_open import read_bounded, reason_of
from policyguard.keyfiles import read_passphrase, read_private_key
from policyguard.values import sha256_digest

MAX_SSH_KEY_BYTES = 65_536

DEFAULT_FOLDER = Path("approvals")

_NAME = re.compile(r"[^A-Za-z0-9._-]")


def check_outside_job(chosen: Mapping[str, Any], config: Config) -> None:
    """Refuse, before signing, to write into the job's repository: its tree would no longer be clean.

    Args:
        chosen: the options of `approve`; the job is run from the current folder.
        config: the configuration.

    Raises:
        ConfigurationError: the approval, or its payload, would be written there.
    """
    payload: Path | None = chosen["payload"]
    if payload is None and chosen["note"]:
        return
    into_log = chosen["log"] is not None or (config.approvals is None and config.approval_log is not None)
    target = payload or (config.approval_log if into_log else None) or config.approvals or DEFAULT_FOLDER
    try:
        check_apart(os.path.realpath(target), job_folders("."), str(target))
    except ConfigurationError as problem:
        raise ConfigurationError(
            f"{problem.message}: a new file there is an uncommitted change, and the job is denied",
            help="give --payload a path outside, such as ../approval.json"
            if payload is not None
            else "name the configuration whose `approvals:` says where they go with --config FILE, or give --folder",
        ) from None


def in_folder(statement: ApprovalStatement, signed: SubmittedApproval, config: Config) -> dict[str, str]:
    """Write the approval into a folder, as new files.

    Args:
        statement: the approval.
        signed: its signed form.
        config: the configuration.

    Raises:
        ConfigurationError: the folder or a file cannot be made.
    """
    folder = config.approvals or DEFAULT_FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ConfigurationError(f"{folder}: cannot be made: {reason_of(problem)}") from problem
    name = f"{_NAME.sub('-', statement.predicate.approver)}-{sha256_digest(statement.payload)[:16]}.json"
    if signed.signature is not None:
        # The signature is written first: a crash between the two leaves a signature without payload, which is not read.
        write_new(folder / f"{name}.sig", signed.signature)
    write_new(folder / name, signed.content)
    return {"approval": str(folder / name)}


def as_note(statement: ApprovalStatement, signed: SubmittedApproval) -> dict[str, str]:
    """Append the approval to the git note on the tree that it approves.

    Raises:
        ConfigurationError: git is missing or does not write the note.
        click.UsageError: the approval names no tree.
    """
    tree = statement.named.get("tree")
    if tree is None:
        raise click.UsageError("--note needs a tree, from --job or --tree")
    command = ["git", "notes", f"--ref={NOTES_REF.decode()}", "append", "-F", "-", tree]
    try:
        done = subprocess.run(command, input=line_of(signed) + b"\n", capture_output=True, check=False)
    except OSError as problem:
        raise ConfigurationError("git is not installed, expected it for --note") from problem
    if done.returncode != 0:
        raise ConfigurationError(f"git did not write the note: {_last_line(done.stderr)}")
    return {"note": f"{NOTES_REF.decode()} on {tree}", "share": f"git push origin {NOTES_REF.decode()}"}


def in_log(signed: SubmittedApproval, config: Config, signers: Signers) -> dict[str, str]:
    """Append the approval to a log, unless the log already contains it.

    Args:
        signed: the approval.
        config: the configuration.
        signers: the keys that count, and their persons.

    Raises:
        RequestError: no person in the policies has signed it. A log is append-only, so it is not added.
        ConfigurationError, SigningError, AuditError: the log or its key cannot be used.
    """
    path, line = needed(config, "approval_log", "--log"), line_of(signed)
    # INVARIANT I9: what nobody known has signed is not taken into a log, from which nothing can be taken out.
    try:
        authenticate(signed, signers, time.time_ns())
    except ApprovalRejected as problem:
        raise RequestError(f"is not taken into the log: {problem.code}: {problem}", path=signed.source) from None
    key = read_private_key(needed(config, "key"), passphrase=read_passphrase())
    known = _entry_of(path, line)
    if known is not None:
        return {"entry": f"{known} of {path}, which has it already"}
    with Log.open(path, key, create=True, state_dir=config.state_dir) as log:
        receipt = log.append(approval_leaf(line, key))
    return {"entry": f"{receipt.index} of {path}"}


def _entry_of(path: Path, line: bytes) -> int | None:
    if not path.exists():
        return None
    with SqliteStore.open(path, read_only=True) as store:
        return next((entry for entry, leaf in approval_leaves(store) if approval_line(leaf, entry) == line), None)


def read_approval(path: Path) -> SubmittedApproval:
    """Read an approval from a file, and the detached signature next to it, if there is one."""
    content = read_input(path, MAX_FILE_BYTES)
    signature = path.with_name(f"{path.name}.sig")
    return SubmittedApproval(str(path), content, read_input(signature, MAX_FILE_BYTES) if signature.exists() else None)


def ssh_sign(payload: bytes, key: Path) -> bytes:
    """Sign with ssh-keygen and return the detached signature.

    ssh-keygen asks for a passphrase or a touch itself.

    Raises:
        SigningError: ssh-keygen is missing or does not sign.
    """
    # ssh-keygen would block on a FIFO, and read a device forever.
    read_bounded(key, MAX_SSH_KEY_BYTES)
    program = shutil.which("ssh-keygen")
    if program is None:
        raise SigningError("ssh-keygen is not installed, expected it for --ssh-key", help="or sign with --key")
    done = subprocess.run(
        [program, "-Y", "sign", "-n", NAMESPACE, "-f", str(key)], input=payload, capture_output=True, check=False
    )
    if done.returncode != 0 or not done.stdout:
        raise SigningError(f"ssh-keygen did not sign with `{key}`: {_last_line(done.stderr)}")
    return done.stdout


def _last_line(stderr: bytes) -> str:
    """Shorten the output of a program to one line of bounded length."""
    return " ".join(stderr.decode(errors="replace").split())[:200].lower()
