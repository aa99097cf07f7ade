"""The command line as a user meets it: a folder made by `init`, verbs run in this process or in one of their own."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The one JSON object on standard output."""
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The one line on standard error, without its help line; fails if there are more or none."""
        lines = [line for line in self.err.splitlines() if not line.startswith("  help: ")]
        assert len(lines) == 1, self.err
        return lines[0]


@dataclass(frozen=True)
class CliLab:
    """A folder as `init` leaves it, and how to run verbs in it. `here` is faster, `process` is the real thing."""

    folder: Path
    here: Callable[..., Ended]
    environment: Mapping[str, str] = field(default_factory=dict)

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)

    def process(
        self,
        *words: str,
        stdin: bytes | None = None,
        cwd: Path | None = None,
        variables: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
        shell: str | None = None,
    ) -> Ended:
        """Run the command line in a process of its own; with `shell`, a bash text in which "$@" is the command."""
        # -B: where a test limits the size of files, Python would leave byte code cut short for every later test.
        command = [sys.executable, "-B", "-m", "policyguard", *words]
        if shell is not None:
            command = ["bash", "-c", shell, "bash", *command]
        ended = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=process_environment(**(variables or {})),
            input=stdin or b"",
            capture_output=True,
            timeout=60,
            check=False,
            preexec_fn=before,
        )
        return Ended(ended.returncode, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace"))

    def entries(self) -> list[dict[str, Any]]:
        """Return the decisions in the log, oldest first, as `audit tail --json` prints them."""
        if not self.path("audit.db").exists():
            return []
        ended = self.here("audit", "tail", "-n", "1000", "--json")
        assert ended.code == 0, ended.err
        entries = [json.loads(line) for line in ended.out.splitlines()]
        return [entry for entry in entries if entry.get("event") != "job.ended"]

    def write_request(self, name: str, **changes: Any) -> str:
        """Write the allowed example with these top-level members changed, and return its path."""
        data = {**json.loads(self.path("requests", "allowed.json").read_text()), **changes}
        self.path("requests", name).write_text(json.dumps(data))
        return f"requests/{name}"


LOGIN = pwd.getpwuid(os.getuid()).pw_name
"""The account that runs the tests, which labs let speak for others."""


def operator_words(words: Sequence[str], config: Path, subject: str | None = "user:alice") -> list[str]:
    """Add the options that a verb which enforces needs: `--config`, and for `run` the subject that root speaks for."""
    verb, *rest = words
    if "--config" in rest or not (verb in ("run", "hook") or (verb == "verify" and "--job" in rest)):
        return list(words)
    more = ["--config", str(config)]
    return [verb, *more, *(["--subject", subject] if verb == "run" and subject else []), *rest]


def process_environment(**variables: str) -> dict[str, str]:
    """Return a small environment in which the checkout is importable."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", "NO_COLOR": "1", **variables}


def files_below(folder: Path) -> Sequence[str]:
    """Return every path below a folder, hidden ones too, without those SQLite keeps beside its file."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if not path.name.endswith(("-wal", "-shm"))
    )
