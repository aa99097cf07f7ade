"""A job of the replay that runs under the launcher and is watched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from policyguard.audit.receipt import SignedDecision
from policyguard.demo.incident.lab import Lab, eventually
from policyguard.hooks.launcher.launch import WatchOptions, launch
from policyguard.hooks.watch.policies import trust_accepts

WATCH_S = 0.1


class Running:
    """A job under the launcher with `--watch`, in a thread; `alerts` are its alerts in the log.

    `published` are the policies that workers accept beside those of the lab's trust.
    """

    def __init__(self, lab: Lab, who: str, name: str, gpus: int, published: Callable[[], str] | None = None) -> None:
        self.lab, self.until = lab, lab.root / "out" / name
        self.alerts: list[SignedDecision] = []
        self.status: int | None = None
        self.request, self.inputs = lab.job(who, name, gpus)
        self._published = published
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        guard = self.lab.guard()
        self.status = launch(
            guard,
            self.request,
            self.inputs,
            self.lab.trust,
            audience="local",
            watch=WatchOptions(period_s=WATCH_S, on_alert=self.alerts.append, accepts=self._accepts),
        )

    def _accepts(self, digest: str, epoch: int) -> bool:
        if self._published is not None and digest == self._published():
            return True
        return trust_accepts(self.lab.trust)(digest, epoch)

    @property
    def pid(self) -> int:
        return int(Path(f"{self.until}.pid").read_text() or 0)

    @contextmanager
    def started(self) -> Iterator[Running]:
        self._thread.start()
        started = Path(f"{self.until}.pid")
        eventually(lambda: not self._thread.is_alive() or (started.exists() and started.read_text() != ""))
        try:
            yield self
        finally:
            self.until.touch()
            self._thread.join(30)

    def over(self) -> bool:
        return eventually(lambda: not self._thread.is_alive())


def words_of(alert: SignedDecision | None) -> str:
    """Return the text of an alert."""
    if alert is None:
        return "no alert"
    lines = [
        line.removeprefix("because").strip()
        for line in alert.decision.explain().splitlines()
        if line.startswith("because")
    ]
    return "; ".join(lines)


def entry_of(alert: SignedDecision | None) -> int | None:
    """Return the index of an alert in the log."""
    return alert.receipt.index if alert is not None else None
