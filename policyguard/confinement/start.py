"""Start a program confined, and check before that the kernel really refuses what it should.

Landlock restricts one thread and everything that thread starts. So a separate thread restricts itself, tries the canary
file, starts the program and ends; this process can then supervise it. No code runs between fork and exec.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from policyguard.confinement.landlock import restrict_self, ruleset
from policyguard.confinement.limits import keep_limits_of_others
from policyguard.confinement.profile import Profile
from policyguard.errors import EvidenceError
from policyguard.text import printable_name

Started = TypeVar("Started")


def start_confined(profile: Profile, canary: str, start: Callable[[], Started]) -> Started:
    """Call `start` in a thread that is restricted to the profile, and pass on its result.

    Args:
        profile: what the program may do.
        canary: a file that exists, can be read now, and is in no path of the profile.
        start: starts the program, as `subprocess.Popen` does; what it raises is raised here.

    Raises:
        EvidenceError: the kernel cannot enforce the profile, one of its paths does not exist, or the restricted thread
            could still read the canary. Nothing was started.
    """
    with ruleset(profile) as descriptor:
        thread = _Confined(descriptor, canary, start)
        thread.start()
        thread.join()
    if thread.problem is not None:
        raise thread.problem
    return thread.results[0]


class _Confined(threading.Thread, Generic[Started]):
    def __init__(self, descriptor: int, canary: str, start: Callable[[], Started]) -> None:
        super().__init__(name="policyguard-confined", daemon=True)
        self._descriptor, self._canary, self._start = descriptor, canary, start
        self.results: list[Started] = []
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            restrict_self(self._descriptor)
            keep_limits_of_others()
            _check_refused(self._canary)
            self.results.append(self._start())
        # What `start` raises belongs to the caller, who waits in another thread.
        except BaseException as problem:  # noqa: BLE001
            self.problem = problem


def _check_refused(canary: str) -> None:
    # INVARIANT I15: a job runs as confined only where the kernel has just refused what it must refuse.
    try:
        opened = os.open(canary, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return
    os.close(opened)
    raise EvidenceError(
        f"the job cannot be confined: `{printable_name(canary)}` can still be read after restricting, "
        "expected that the kernel refuses it"
    )
