"""Values of git's configuration, parsed by git and never applied."""

from __future__ import annotations

import os
import subprocess

from policyguard.errors import EvidenceError
from policyguard.git.program import clean_environment, git_program
from policyguard.text import printable_name


def config_values(text: bytes, private_cwd: str = "/") -> list[tuple[str, str]]:
    """Parse a git configuration text into (key, value) pairs, in order; includes are not followed.

    Raises:
        EvidenceError: git cannot read the text.
    """
    answer = subprocess.run(
        [git_program(), "config", "--file", "-", "--no-includes", "--null", "--list"],
        input=text,
        capture_output=True,
        env=clean_environment(private_cwd),
        cwd=private_cwd,
        timeout=5,
        check=False,
    )
    if answer.returncode != 0:
        raise EvidenceError(f"git cannot read the configuration: {printable_name(answer.stderr.strip()[:200])}")
    pairs = (item.decode("utf-8", "surrogateescape").partition("\n") for item in answer.stdout.split(b"\0") if item)
    return [(key, value) for key, _, value in pairs]


def effective_value(gitdir: str, key: str) -> str | None:
    """Return git's effective value of a setting for this repository and account; None if it is not set.

    Included files, the working tree's, the account's and the system's configuration are read, and nothing is run.

    Raises:
        EvidenceError: git fails or takes too long.
    """
    command = [git_program(), f"--git-dir={gitdir}", "config", "--includes", "--null", "--get", key]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        answer = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False, cwd="/", env=clean
        )
    except subprocess.TimeoutExpired:
        raise EvidenceError("git took too long to read the configuration, is there a FIFO among its files?") from None
    if answer.returncode not in (0, 1):  # 1: not set
        raise EvidenceError(f"git cannot read the configuration: {printable_name(answer.stderr.strip()[:200])}")
    value = answer.stdout.removesuffix(b"\0").decode("utf-8", "surrogateescape")
    return value if answer.returncode == 0 else None
