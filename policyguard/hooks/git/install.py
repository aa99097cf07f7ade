"""Installs hook scripts in a repository.

Each script contains its own digest; a script that is not ours is never replaced.

A script is one line of shell that starts this installation's Python in isolated mode, so that neither the pusher's
`PYTHONPATH` nor a module in the repository's folder is imported. If a hook is missing or not executable, git accepts
every push; `problems` reports that.
"""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import policyguard
from policyguard.errors import ConfigurationError, EvidenceError, PolicyGuardError
from policyguard.evidence.push.nonce import seed_of
from policyguard.evidence.push.objects import find_store
from policyguard.fs.safe_open import read_small
from policyguard.fs.write import replace_file
from policyguard.git.configuration import config_values, effective_value
from policyguard.git.directory import GitDir, config_text
from policyguard.git.refs import References
from policyguard.hooks.git.ineffective_rules import ineffective_rules
from policyguard.hooks.git.options import KINDS, GitOptions, read_git_options
from policyguard.keyfiles import read_passphrase, read_private_key
from policyguard.policy_store.load import load_snapshot
from policyguard.text import printable_name
from policyguard.values import sha256_digest

MARK = "# policyguard git hook, version 1; written by `policyguard repo install-hook`, not to be edited"
MAX_SCRIPT_BYTES = 65_536
DECIDING = ("pre-receive", "update")

_DIGEST = "# sha256 of the next line: "
_PACKAGE = str(Path(policyguard.__file__).resolve().parents[1])
_PROGRAM = (
    "import sys; at = next((n for n, path in enumerate(sys.path) if path.endswith('-packages')), len(sys.path)); "
    f"sys.path.insert(at, {_PACKAGE!r}); from policyguard.cli.main import main; main()"
)
"""The hook's start: searches the standard library first, then this installation before any other."""


def script(options: GitOptions) -> bytes:
    """Build the text of a hook script for these options."""
    argv = [sys.executable, "-I", "-c", _PROGRAM, "hook", "git", *options.to_argv()]
    line = f'exec {shlex.join(argv)} -- "$@"\n'
    return f"#!/bin/sh\n{MARK}\n{_DIGEST}{sha256_digest(os.fsencode(line))}\n".encode() + os.fsencode(line)


def install(options: GitOptions) -> tuple[Path, bool]:
    """Install the hook; return its path, and True if a file was written.

    Raises:
        ConfigurationError: there is another hook, or git runs hooks from elsewhere (`core.hooksPath`).
    """
    git = _git(options.repo, options)
    _refuse_hooks_path(git)
    folder = Path(git.shared) / "hooks"
    folder.mkdir(mode=0o755, exist_ok=True)
    path = folder / options.kind
    text = script(options)
    if os.path.lexists(path):
        present = read_small(str(path), MAX_SCRIPT_BYTES)
        # INVARIANT I14: a hook that is not ours, or that somebody edited, is never overwritten.
        if not is_ours(present):
            raise ConfigurationError(
                f"{path}: found another hook, expected none", help="move it away, or call it from a hook of your own"
            )
        if present == text and os.access(path, os.X_OK):
            return path, False
    replace_file(path, text, mode=0o755, ignore_umask=True)
    return path, True


def is_ours(text: bytes) -> bool:
    """Return True if a script is ours and was not changed since it was written."""
    lines = text.decode("utf-8", "surrogateescape").splitlines(keepends=True)
    if len(lines) != 4 or lines[0] != "#!/bin/sh\n" or lines[1] != MARK + "\n":
        return False
    return lines[2] == f"{_DIGEST}{sha256_digest(os.fsencode(lines[3]))}\n"


def options_in(text: bytes) -> GitOptions:
    """Read the options in a script of ours."""
    argv = shlex.split(text.decode("utf-8", "surrogateescape").splitlines()[3])
    return read_git_options(argv[argv.index("git") + 1 : -2])


def installed(git: GitDir) -> Iterator[GitOptions]:
    """Yield the options of each of our hooks in a repository."""
    for kind in KINDS:
        path = Path(git.shared) / "hooks" / kind
        if path.is_file() and is_ours(text := read_small(str(path), MAX_SCRIPT_BYTES)):
            yield options_in(text)


def problems(repository: str) -> Iterator[tuple[str, str]]:
    """Yield each problem of a repository's hooks; none if policies decide every push."""
    git = _git(repository, None)
    try:
        _refuse_hooks_path(git)
    except ConfigurationError as problem:
        yield "hooks", str(problem)
    folder = Path(git.shared) / "hooks"
    present = [kind for kind in (*DECIDING, "reference-transaction", "post-receive") if os.path.lexists(folder / kind)]
    # INVARIANT I20: a repository without a deciding hook is reported as open, not as unknown.
    if not any(kind in present for kind in DECIDING):
        yield "pre-receive", f"{folder}: no hook decides about pushes, this repository is OPEN"
    for kind in present:
        yield from ((kind, text) for text in _hook_problems(folder / kind, git))
    if "reference-transaction" not in present:
        yield "reference-transaction", "is not installed; changes by an administrator on the server are not seen"
    if seed_of(git) is None:
        yield "receive.certNonceSeed", "is not set; nobody can sign a push"
    named = {(options.policies, options.key, options.resource): options for options in installed(git)}
    for (policies, key, _), options in sorted(named.items(), key=lambda item: item[0]):
        if os.path.exists(policies) and os.path.exists(key):
            yield from (("policies", text) for text in _empty_protections(git, options))


def _empty_protections(git: GitDir, options: GitOptions) -> Iterator[str]:
    try:
        private = read_private_key(options.key, passphrase=read_passphrase())
        snapshot = load_snapshot(options.policies, (private.public,), options.policy_signers)
        yield from ineffective_rules(git, options.resource, snapshot, time.time_ns())
    except PolicyGuardError as problem:
        yield f"cannot check whether they protect anything here: {str(problem).splitlines()[0]}"


def _hook_problems(path: Path, git: GitDir) -> Iterator[str]:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        yield f"{path}: is no regular file"
        return
    text = read_small(str(path), MAX_SCRIPT_BYTES)
    if not is_ours(text):
        yield f"{path}: is not ours or was edited; its effect is unknown"
        return
    if not status.st_mode & 0o111:
        yield f"{path}: cannot be executed, git skips it: this repository is OPEN"
    for where in (path, path.parent, Path(git.shared)):
        if where.stat().st_mode & 0o022:
            yield f"{where}: others may write to it and switch the hook off"
    options = options_in(text)
    if script(options) != text:
        yield f"{path}: is not current, install it again"
    if os.path.realpath(options.repo) != git.shared:
        yield f"{path}: was written for `{printable_name(options.repo)}`, this repository was moved or copied"
    reviewed_by = (options.allowed_signers, options.revoked_keys, options.gpg_keyring, options.revocations)
    for file in (options.policies, options.key, *reviewed_by):
        if file is not None and not os.path.lexists(file):
            yield f"{path}: names `{printable_name(file)}`, which does not exist; every push is refused"
    if status.st_mode & 0o111 and path.name != "post-receive":
        yield from _does_refuse(path)


def _does_refuse(path: Path) -> Iterator[str]:
    """Return True if the hook refuses invalid input with our message."""
    argv = [str(path)] if path.name == "pre-receive" else [str(path), "prepared"]
    clean = {"PATH": os.defpath}
    try:
        answer = subprocess.run(argv, input=b"nonsense a b\n", capture_output=True, timeout=30, check=False, env=clean)
    except (OSError, subprocess.TimeoutExpired) as problem:
        yield f"{path}: cannot be run: {problem}"
        return
    expected = path.name != "reference-transaction"
    if expected and (answer.returncode == 0 or b"policyguard: push refused" not in answer.stderr):
        yield f"{path}: does not refuse invalid input, it exits with {answer.returncode}"


def _git(repository: str, options: GitOptions | None) -> GitDir:
    owners = {os.geteuid(), 0, *(options.owner if options is not None else ())}
    try:
        return find_store(repository, {}, owners)[0]
    except PolicyGuardError as problem:
        raise ConfigurationError(str(problem), help=problem.help) from problem


def _refuse_hooks_path(git: GitDir) -> None:
    """Raise if git runs hooks from elsewhere, by any `core.hooksPath` that applies to this account."""
    try:
        paths = [value for key, value in config_values(config_text(git)) if key == "core.hookspath"]
        References(git).head_content()  # Git itself would wait for a HEAD that is a FIFO.
        paths = paths or [value for value in [effective_value(git.shared, "core.hooksPath")] if value is not None]
    except EvidenceError as problem:
        raise ConfigurationError(str(problem)) from problem
    if paths:
        raise ConfigurationError(
            f"`core.hooksPath` is `{printable_name(paths[-1])}`, "
            "git does not run the hooks of this repository: it is OPEN"
        )
