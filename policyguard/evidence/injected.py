"""How the code-injecting variables and options of a job are treated, and what the files are that they name.

A path leads elsewhere if it is neither below a folder of the system that only root can write, nor in the environment of
the program, nor in the job's repository. Only such files are measured here; other facts cover the rest.
"""

from __future__ import annotations

import os

from policyguard.confinement.profile import INSTALLED_CODE
from policyguard.environment.listing import list_files
from policyguard.errors import EvidenceError
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.evidence.injection import MEASURED, paths_of, row_of, treatments
from policyguard.evidence.job import code_root, injected_by, installations, resolve_executable
from policyguard.fs.ownership import is_below, is_written_by_only
from policyguard.fs.safe_open import file_record
from policyguard.model.facts import Assurance, Fact
from policyguard.model.request import Request
from policyguard.text import printable_name
from policyguard.values import FrozenMap, Instant, canonical, sha256_digest

TREATMENT, INJECTED_FILES = "resource.injection_treatment", "resource.injected_files"

_SYSTEM = (*INSTALLED_CODE, "/etc")
"""Settings that a variable names may lie in /etc; programs do not."""


class InjectionCollector:
    """Supplies the treatment of each code-injecting variable and option, and digests of files elsewhere."""

    name = "injection"
    measures_contributors = False
    declares = (TREATMENT, INJECTED_FILES)

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Measure both; a file that cannot be measured is a reason why the second is missing."""
        injected = injected_by(inputs)
        own = _own_folders(inputs) if injected else ()
        treated = treatments(injected, inputs.directory, lambda path: _leads_elsewhere(path, inputs.directory, own))
        entries = {TREATMENT: Fact(FrozenMap(treated), Assurance.MEASURED, self.name, now, bound=True)}
        missing = {}
        paths = [
            path
            for name, value in injected.items()
            # Caches change while a job runs.
            if (row := row_of(name)) is not None and row.elsewhere not in ("", MEASURED)
            for path in paths_of(value, inputs.directory)
            if _leads_elsewhere(path, inputs.directory, own)
        ]
        try:
            digests = {printable_name(inputs.recorded(path)): _digest(path, inputs.directory) for path in paths}
            entries[INJECTED_FILES] = Fact(FrozenMap(digests), Assurance.MEASURED, self.name, now, bound=True)
        except EvidenceError as problem:
            missing[INJECTED_FILES] = problem.message
        return Collected(entries=entries, missing=missing)


def _own_folders(inputs: JobInputs) -> tuple[str, ...]:
    """List the folders of the job's environment and repository; those are measured as facts of their own."""
    try:
        executable = resolve_executable(inputs.argv, inputs.directory, inputs.environment)
    except EvidenceError:
        executable = ""
    tree = code_root(inputs)
    environments = installations(executable) if executable else ()
    return tuple(os.path.realpath(folder) for folder in (*environments, *([tree] if tree else ())))


def _leads_elsewhere(path: str, directory: str, own: tuple[str, ...]) -> bool:
    resolved = os.path.realpath(os.path.join(directory, path))
    if any(is_below(resolved, folder) for folder in own):
        return False
    # A folder that is not there yet cannot be created where only root can write.
    while not os.path.exists(resolved):
        resolved = os.path.dirname(resolved)
    # INVARIANT I17: a folder of the system that others than root can write is anybody's.
    return not (any(is_below(resolved, folder) for folder in _SYSTEM) and is_written_by_only(resolved, ()))


def _digest(path: str, directory: str) -> str:
    """Compute the digest of a file, or of all files in a folder; `absent` where there is nothing."""
    full = os.path.join(directory, path)
    if os.path.isdir(full):
        listing = list_files(full)
        return f"sha256:{sha256_digest(canonical({**listing.files, **listing.bytecode}))}"
    return f"sha256:{file_record(full, path)['digest']}" if os.path.exists(full) else "absent"
