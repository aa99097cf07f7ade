"""Starts the program of a job as it is, or confined to the profile that was decided on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Any

from policyguard.confinement.profile import Profile
from policyguard.errors import EvidenceError
from policyguard.evidence.collector import JobInputs
from policyguard.fs.job_folder import JobFolder
from policyguard.hooks.launcher.supervise import Start
from policyguard.values import Value

OBLIGATIONS = {"confine": "run.confined", "from_commit": "run.from_commit"}
"""The obligations of an allow that lets a job start only so, by the field of `JobInputs` that asks for it."""

CACHES = ("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "MPLCONFIGDIR")
"""Variables that name folders where libraries write; each gets one in the private folder of a confined job."""


def check_confinement(inputs: JobInputs, bound: Mapping[str, Value], folder: JobFolder) -> None:
    """Check that the kernel takes on the profile of a job, before anything is decided.

    Args:
        inputs: the job.
        bound: what was measured.
        folder: the folders of the job.

    Raises:
        EvidenceError: the guard measures no profile, or the kernel or a path in it is missing.
    """
    from policyguard.confinement.landlock import ruleset

    with ruleset(_profile(inputs, bound, folder)):
        return


def starter(
    inputs: JobInputs,
    bound: Mapping[str, Value],
    folder: JobFolder,
    environment: dict[str, str],
) -> Start:
    """Return the function that starts the program.

    `environment` gets the folders that a confined job may write.

    Args:
        inputs: the job.
        bound: what was measured and verified just before.
        folder: the folders of the job; its processes inherit the lock.
        environment: the variables of the program.

    Raises:
        EvidenceError: no confinement was decided on, or the kernel does not enforce it.
    """

    def plain(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        options["pass_fds"] = (folder.lock,)
        return subprocess.Popen(*args, **options)

    if not inputs.confine:
        return plain
    # Only a job that is confined pays for loading this.
    from policyguard.confinement.start import start_confined

    # INVARIANT I15: the job is confined to what was decided and just verified, and to nothing else.
    profile = _profile(inputs, bound, folder)
    environment["TMPDIR"] = _folder(folder.private, "tmp")
    for name in CACHES:
        environment[name] = _folder(folder.private, name.lower())

    def start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        # The lock file is in no path of a profile, so it is the canary.
        return start_confined(profile, folder.lock_path, lambda: plain(*args, **options))

    return start


def _profile(inputs: JobInputs, bound: Mapping[str, Value], folder: JobFolder) -> Profile:
    from policyguard.evidence.confinement import CONFINEMENT, PRIVATE, TREE

    record = bound.get(CONFINEMENT)
    if not isinstance(record, Mapping):
        raise EvidenceError("the guard does not measure confinement, expected one with a `ConfinementCollector`")
    exported = {} if inputs.export is None else {TREE: inputs.export.folder}
    return Profile.from_record(record, {PRIVATE: folder.private, **exported})


def _folder(private: str, name: str) -> str:
    path = os.path.join(private, name)
    os.mkdir(path, 0o700)
    return path
