"""Finds git, and runs it so that no configuration, hook or variable of others takes effect."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from policyguard.errors import EvidenceError
from policyguard.git.directory import GitDir

HARDENED = (
    "--no-replace-objects",
    "--no-optional-locks",
    "--no-pager",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.pager=cat",
    "-c",
    "protocol.allow=never",
    "-c",
    "core.attributesFile=/dev/null",
    "-c",
    "core.excludesFile=/dev/null",
    "-c",
    "diff.external=",
    "-c",
    "core.quotePath=false",
    "-c",
    "credential.helper=",
    "-c",
    "core.sshCommand=false",
)


def hardened_command(private: str) -> list[str]:
    """Build the start of a git command in a private git directory, with every setting off that could run code."""
    return [git_program(), f"--git-dir={private}", *HARDENED]


def environment(git: GitDir, private: str, quarantine: str | None = None) -> dict[str, str]:
    """Build the environment of a git process that reads the objects of a repository.

    Args:
        git: the repository.
        private: the private git directory.
        quarantine: a folder of objects that are not the repository's yet, if any.
    """
    if quarantine is None:
        return {**clean_environment(private), "GIT_OBJECT_DIRECTORY": git.objects}
    borrowed = '"' + git.objects.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return {
        **clean_environment(private),
        "GIT_OBJECT_DIRECTORY": quarantine,
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": borrowed,
    }


def clean_environment(home: str) -> Mapping[str, str]:
    """Build an environment in which git reads only the configuration in its git directory."""
    # INVARIANT I16: git gets an environment made here; no variable of the job or of the launcher reaches it.
    return {
        "PATH": os.defpath,
        "HOME": home,
        "XDG_CONFIG_HOME": home,
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": "/",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_PAGER": "cat",
        "GIT_FLUSH": "1",
    }


def git_program() -> str:
    """Return the path of the git program.

    Raises:
        EvidenceError: git is not installed.
    """
    path = shutil.which("git")
    if path is None:
        raise EvidenceError("git is not installed, expected a `git` program on the launcher's PATH")
    return path
