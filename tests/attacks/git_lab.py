"""A real repository for attacks: one commit of a small job, and a program whose only effect is a marker file."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from policyguard.evidence.collector import Collected, JobInputs
from policyguard.evidence.repository import CODE, RepositoryCollector
from policyguard.model.request import Request
from policyguard.values import FrozenMap

REQUEST = Request.of("user:mallory", "job:submit", "job:team/vision/run-17")


def git(folder: Path, *arguments: str, stdin: bytes = b"", **variables: str) -> str:
    """Run real git with an identity and without this machine's configuration; return what it says."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@lab",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@lab",
        **variables,
    }
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, input=stdin, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


@dataclass(frozen=True)
class Lab:
    """`root` is the working tree, `marker` exists once anything hostile was executed, `program` is what executes."""

    root: Path
    marker: Path
    program: Path

    def git(self, *arguments: str, stdin: bytes = b"", **variables: str) -> str:
        return git(self.root, *arguments, stdin=stdin, **variables)

    @property
    def executed(self) -> bool:
        return self.marker.exists()

    def collect(self, **options: object) -> Collected:
        collector = RepositoryCollector(**options)  # type: ignore[arg-type]
        return collector.collect(REQUEST, JobInputs(directory=str(self.root)), 1)

    def code(self) -> FrozenMap:
        """Return the measured record."""
        record = self.collect().entries[CODE].value
        assert isinstance(record, FrozenMap)
        return record


def make_lab(folder: Path, *, object_format: str = "sha1") -> Lab:
    """Return a fresh lab: three committed files in two folders, a committed `.gitignore`, nothing else."""
    root = folder / "lab"
    root.mkdir()
    git(root, "init", "-q", "-b", "main", f"--object-format={object_format}")
    (root / "train").mkdir()
    (root / "train" / "optim.py").write_text("def step(): pass\n")
    (root / "train.py").write_text("import train.optim\n")
    (root / "README.md").write_text("a job\n")
    (root / ".gitignore").write_text("*.log\n_version.py\n.venv/\n__pycache__/\n")
    git(root, "add", ".")
    git(root, "commit", "-qm", "a job")
    marker, program = folder / "executed", folder / "program.sh"
    program.write_text(f"#!/bin/sh\ntouch {marker}\ncat\n")
    program.chmod(0o755)
    return Lab(root, marker, program)
