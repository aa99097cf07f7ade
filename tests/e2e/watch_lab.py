"""A watched job that does whatever it is told while it runs: for tests that look at it from outside."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from policyguard.attest.trust import Trust
from policyguard.audit.receipt import SignedDecision
from policyguard.errors import PolicyGuardError
from policyguard.guard import Guard
from policyguard.hooks.launcher.launch import WatchOptions, launch
from policyguard.hooks.launcher.start_check import DELAYS_S
from policyguard.hooks.watch.policies import Accepts
from tests.attacks.git_lab import git
from tests.e2e.launcher_lab import Lab, make_lab, request

OBEYING = """
import os, sys, time
ran = sys.argv[1]
open(ran, "w").write(str(os.getpid()))
kept = {}
for _ in range(400):
    time.sleep(0.02)
    if os.path.exists(ran + ".do"):
        text = open(ran + ".do").read()
        os.unlink(ran + ".do")
        exec(text, kept)
        open(ran + ".done", "w").close()
    if os.path.exists(ran + ".enough"):
        break
"""
PERIOD_S = 0.1


def obeying_lab(folder: Path) -> Lab:
    """Return a lab whose job runs the text that is put into a file beside `ran`."""
    made = make_lab(folder)
    (made.job / "train.py").write_text(OBEYING)
    git(made.job, "add", ".")
    git(made.job, "commit", "-qm", "obey")
    return made


def eventually(fact: Callable[[], bool], within_s: float = 10) -> bool:
    """Return True as soon as the fact holds, False if it does not in time."""
    deadline = time.monotonic() + within_s
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Obeying:
    """The job under the launcher with a watch, in a thread of this process."""

    def __init__(
        self,
        lab: Lab,
        guard: Guard,
        *,
        trust: Trust | None = None,
        libraries: Sequence[str] = (),
        accepts: Accepts | None = None,
        **environment: str,
    ) -> None:
        self.lab, self.alerts, self.problems = lab, list[SignedDecision](), list[PolicyGuardError]()
        self.status: int | None = None
        inputs = lab.inputs((sys.executable, "train.py", str(lab.ran)), **environment)

        def run() -> None:
            self.status = launch(
                guard,
                request(),
                inputs,
                trust or lab.trust,
                audience="node-1",
                watch=WatchOptions(
                    period_s=PERIOD_S,
                    on_alert=self.alerts.append,
                    on_problem=self.problems.append,
                    libraries=libraries,
                    accepts=accepts,
                ),
            )

        self.thread = threading.Thread(target=run)

    @property
    def pid(self) -> int:
        return int(self.lab.ran.read_text())

    def __enter__(self) -> Obeying:
        self.thread.start()
        assert eventually(lambda: self.lab.ran.exists() and self.lab.ran.read_text() != "")
        # Until then, an edit of the program is one of what was started.
        time.sleep(sum(DELAYS_S) + PERIOD_S)
        return self

    def do(self, text: str) -> None:
        """Let the job run this text, and return when it has."""
        part = Path(f"{self.lab.ran}.part")
        part.write_text(text)
        part.rename(f"{self.lab.ran}.do")
        done = Path(f"{self.lab.ran}.done")
        assert eventually(done.exists)
        done.unlink()

    def __exit__(self, *_: object) -> None:
        self.enough()

    def enough(self) -> None:
        Path(f"{self.lab.ran}.enough").touch()
        self.thread.join(20)
        assert not self.thread.is_alive()

    @property
    def reasons(self) -> list[tuple[str, ...]]:
        return [alert.decision.reason_codes for alert in self.alerts]

    def words(self, path: str = "resource.process") -> str:
        """What the newest alert says about this."""
        return str(self.alerts[-1].decision.facts.missing.get(path, "")) if self.alerts else ""
