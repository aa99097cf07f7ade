"""Starts the program of a job as it is, or confined to the profile that was decided on."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from policyguard.confinement.profile import Profile
from policyguard.errors import EvidenceError
from policyguard.evidence.collector import JobInputs
from policyguard.hooks.launcher.supervise import Start
from policyguard.values import Value

CONFINED = "run.confined"
"""The obligation of an allow that lets a job start only confined."""

CACHES = ("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "MPLCONFIGDIR")
"""Variables that name folders where libraries write; each gets one in the private folder of a confined job."""


@contextmanager
def starter(
    inputs: JobInputs,
    bound: Mapping[str, Value],
    private: str,
    environment: dict[str, str],
) -> Iterator[Start]:
    """Yield the function that starts the program.

    `environment` gets the folders that a confined job may write.

    Args:
        inputs: the job.
        bound: what was measured and verified just before.
        private: a folder that exists as long as the job.
        environment: the variables of the program.

    Raises:
        EvidenceError: no confinement was decided on, or the kernel does not enforce it.
    """
    if not inputs.confine:
        yield subprocess.Popen
        return
    # Only a job that is confined pays for loading these.
    from policyguard.confinement.start import start_confined
    from policyguard.evidence.confinement import CONFINEMENT, PRIVATE

    record = bound.get(CONFINEMENT)
    if not isinstance(record, Mapping):
        raise EvidenceError("the guard does not measure confinement, expected one with a `ConfinementCollector`")
    # INVARIANT I15: the job is confined to what was decided and just verified, and to nothing else.
    profile = Profile.from_record(record, {PRIVATE: private})
    environment["TMPDIR"] = _folder(private, "tmp")
    for name in CACHES:
        environment[name] = _folder(private, name.lower())
    with tempfile.NamedTemporaryFile(prefix="policyguard-canary-") as canary:

        def start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
            return start_confined(profile, canary.name, lambda: subprocess.Popen(*args, **options))

        yield start


def _folder(private: str, name: str) -> str:
    path = os.path.join(private, name)
    os.mkdir(path, 0o700)
    return path
