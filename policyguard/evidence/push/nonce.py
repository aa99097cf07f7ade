"""Checks, by recomputing it from the seed, that this repository's git recently issued a push certificate's nonce.

nonce = seconds "-" HMAC(path ":" seconds, seed), with seconds since 1970, the HMAC of the repository's hash function,
and the path as git was given it. Unusually, the text is the key and the seed is the message. The seed is read from the
repository's configuration file, else from the account's and the system's. Variables are ignored, because a pusher could
use them to give git another seed.

Source: git, builtin/receive-pack.c, `prepare_push_cert_nonce`.
"""

from __future__ import annotations

import hmac
import os
import pwd
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from policyguard.git.configuration import config_values
from policyguard.git.directory import GitDir, config_text
from policyguard.git.program import git_program
from policyguard.values import NANOSECONDS_PER_S, Instant

DEFAULT_AGE_S = 3_600
"""Git issues a nonce before the pusher packs and sends, which takes long for a large push on a slow line."""

MAX_AGE_S = 43_200
SKEW_S = 60

_KEY = "receive.certnonceseed"
_NONCE = re.compile(rb"([1-9][0-9]{0,11})-([0-9a-f]{40}|[0-9a-f]{64})")
_PROGRAM = "receive-pack"
_MAX_ANCESTORS = 8
_MAX_PROCESS_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Nonces:
    """The inputs of a repository's nonces: its seed, None if unknown, and the names that address it."""

    seed: bytes | None
    paths: tuple[str, ...]
    max_age_s: int = DEFAULT_AGE_S

    def problem(self, nonce: bytes, now: Instant) -> str | None:
        """Say why a nonce does not count; None if this git issued it within the last `max_age_s` seconds.

        A nonce names no push: two pushes of one second get the same. The certificate names the updates.
        """
        if self.seed is None:
            return "cannot be checked, no receive.certNonceSeed in the configuration of the repository or the account"
        match = _NONCE.fullmatch(nonce)
        # INVARIANT I19: a nonce counts only if the seed of this repository, read here, makes it.
        if match is None or not any(_makes(self.seed, path, match) for path in self.paths):
            return "was not given out for this repository"
        age_s = now // NANOSECONDS_PER_S - int(match[1])
        # INVARIANT I19: a certificate is good for `max_age_s`; what is older, or of the future, is a replay.
        if not -SKEW_S <= age_s <= self.max_age_s:
            return f"is {age_s} seconds old, expected at most {self.max_age_s}"
        return None


def _makes(seed: bytes, path: str, nonce: re.Match[bytes]) -> bool:
    function = "sha1" if len(nonce[2]) == 40 else "sha256"
    made = hmac.new(os.fsencode(path) + b":" + nonce[1], seed, function)
    return hmac.compare_digest(made.hexdigest().encode(), nonce[2])


def nonces_of(git: GitDir, *, max_age_s: int = DEFAULT_AGE_S, pid: int | None = None) -> Nonces:
    """Read the seed and the names of this repository.

    Args:
        pid: a process below git's, whose ancestors tell how the repository was named; our parent if not given.
    """
    named = _named_by_git(git, os.getppid() if pid is None else pid)
    return Nonces(seed=seed_of(git), paths=tuple(dict.fromkeys((*_usual(git), *named))), max_age_s=max_age_s)


def seed_of(git: GitDir) -> bytes | None:
    """Read the seed from the repository's configuration, else the account's or the system's; None if there is none."""
    seeds = [value for key, value in config_values(config_text(git)) if key == _KEY]
    return os.fsencode(seeds[-1]) if seeds else _account_seed()


def _account_seed() -> bytes | None:
    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        home = "/"
    answer = subprocess.run(
        [git_program(), "config", "--null", "--get", _KEY],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={"PATH": os.defpath, "HOME": home, "LC_ALL": "C", "GIT_DIR": "/nonexistent"},
        cwd="/",
        timeout=5,
        check=False,
    )
    return answer.stdout.removesuffix(b"\0") if answer.returncode == 0 else None


def _usual(git: GitDir) -> Iterator[str]:
    """Yield the usual names of a repository: `.` for servers that enter it, its path for others."""
    yield "."
    for path in dict.fromkeys((git.shared, git.root)):
        yield path
        yield path + "/"
        yield path.removesuffix(".git").removesuffix("/")


def _named_by_git(git: GitDir, pid: int) -> Iterator[str]:
    """Yield the names with which the receiving git, an ancestor of this process, was started."""
    for _ in range(_MAX_ANCESTORS):
        argv = _process(pid, "cmdline").split("\0")[:-1]
        if any(word.endswith(_PROGRAM) for word in argv[:-1]) and not argv[-1].startswith("-"):
            if not argv[-1].startswith("/") or _leads_to(argv[-1], git):
                yield argv[-1]
            return
        parent = re.search(r"^PPid:\s*(\d+)$", _process(pid, "status"), re.MULTILINE)
        pid = int(parent[1]) if parent else 0
        if pid <= 1:
            return


def _leads_to(path: str, git: GitDir) -> bool:
    # git, path.c, `enter_repo`: what it appends to a path to find the repository
    return any(os.path.realpath(path + end) in (git.shared, git.root) for end in ("", ".git", "/.git", ".git/.git"))


def _process(pid: int, name: str) -> str:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return os.fsdecode(file.read(_MAX_PROCESS_BYTES))
    except OSError:
        return ""  # /proc is missing or unreadable: only the usual names are tried.
