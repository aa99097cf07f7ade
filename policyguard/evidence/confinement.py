"""The paths that a confined job may read, write and execute, as the fact `resource.confinement`.

The paths come from the job: its tree, its environment, and the files, checkpoints, data and outputs that it names. They
are measured and bound, so that every worker confines the job in the same way, and policies can limit them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from policyguard.confinement.profile import NEWEST_ABI, SYSTEM, Profile, merge_rights, system_paths
from policyguard.errors import EvidenceError
from policyguard.evidence.checkpoint_folders import holds_model, loadable
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.evidence.job import INSTALLED, code_root, installations, program_of, resolve_executable
from policyguard.fs.ownership import is_below
from policyguard.fs.safe_open import read_start
from policyguard.model.facts import Assurance, Fact
from policyguard.model.request import Request
from policyguard.program.follow import Program
from policyguard.text import printable_name
from policyguard.values import FrozenMap, Instant

CONFINEMENT = "resource.confinement"

PRIVATE = "{private}"
"""The job's own folder for temporary files; it is deleted when the job ends."""

TREE = "{tree}"
"""The folder of the job's code."""

MAX_SCRIPT_BYTES = 1 << 20
"""The part of a shell script in which programs are sought that hand work to a process outside."""


class ConfinementCollector:
    """Supplies the profile of a job that is to be confined; of other jobs nothing."""

    name = "confinement"
    measures_contributors = False
    declares = (CONFINEMENT,)

    def __init__(self, shared: Mapping[str, str] | None = None) -> None:
        """Prepare profiles with more paths that every job may use, as the operator configured them, with rights."""
        self._shared = dict(shared or {})

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Measure what the job is confined to.

        Raises:
            EvidenceError: it cannot be confined, and why.
        """
        if not inputs.confine:
            return Collected(missing={CONFINEMENT: "the job is not confined, `policyguard run --confine` does so"})
        value = confinement_record(inputs, self._shared)
        return Collected(entries={CONFINEMENT: Fact(value, Assurance.MEASURED, self.name, now, bound=True)})


def confinement_record(inputs: JobInputs, shared: Mapping[str, str]) -> FrozenMap:
    """Measure the profile of a job, as it is recorded; `PRIVATE` is the placeholder of its temporary folder.

    Args:
        inputs: the job.
        shared: more paths that every job may use, with rights.

    Raises:
        EvidenceError: the kernel confines nothing, the program hands its work to a process outside, an output is not
            the job's own, or a path that the job names does not exist.
    """
    abi = _kernel_abi()
    executable = resolve_executable(inputs.argv, inputs.directory, inputs.environment)
    program = program_of(inputs)
    _check_stays_here(inputs, program)
    tree = os.path.realpath(code_root(inputs) or inputs.directory)
    environments = _environments(program.interpreter) or _environments(executable)
    outputs = {name: _resolved(folder, inputs) for name, folder in inputs.outputs.items()}
    data = {name: _resolved(path, inputs) for name, path in inputs.data.items()}
    code = (tree, *environments)
    for folder in outputs.values():
        _check_output(folder, code if inputs.export is None else (*code, inputs.export.git_folder))
    paths = merge_rights(
        system_paths(),
        {tree: "rx", os.path.realpath(executable): "rx"},
        dict.fromkeys(_needed(environments), "rx"),
        {_resolved(name, inputs): "r" for name in (*inputs.files, *inputs.checkpoints)},
        dict.fromkeys(_measured(inputs), "r"),
        dict.fromkeys(data.values(), "r"),
        dict.fromkeys(outputs.values(), "rw"),
        shared,
    )
    _check_writable(paths, code)
    roots = {TREE: tree} | ({"{env}": environments[0]} if environments else {})
    roots |= {f"{{output:{name}}}": folder for name, folder in outputs.items()}
    roots |= {f"{{data:{name}}}": path for name, path in data.items()}
    record = Profile(abi=abi, paths={**_without_covered(paths), PRIVATE: "rw"}).record(roots)
    return record if inputs.export is None else _without_tree(record)


def _without_tree(record: FrozenMap) -> FrozenMap:
    """Leave out where the commit was exported to: each worker exports to a folder of its own."""
    roots = record["roots"]
    assert isinstance(roots, FrozenMap)
    return FrozenMap({**record, "roots": FrozenMap({name: path for name, path in roots.items() if name != TREE})})


def _measured(inputs: JobInputs) -> list[str]:
    """List the checkpoints that the command names: each has a record that policies judge. Text stays unreadable."""
    # INVARIANT I15: to name a file in an argument opens it only if the decision names it as a checkpoint.
    paths = [path for path in loadable(inputs).paths if os.path.isdir(path) or holds_model(path)]
    # The files of a hub's cache are links to the folder beside `snapshots`.
    return [os.path.realpath(path) for path in (*paths, *map(_hub_blobs, paths)) if path]


def _hub_blobs(path: str) -> str:
    above = os.path.dirname(path)
    blobs = os.path.join(os.path.dirname(above), "blobs")
    return blobs if os.path.basename(above) == "snapshots" and os.path.isdir(blobs) else ""


def _kernel_abi() -> int:
    # Only a job that is confined pays for loading ctypes.
    from policyguard.confinement.landlock import abi_version

    abi, reason = abi_version()
    if abi < 1:
        raise EvidenceError(f"the job cannot be confined: {reason}")
    return min(abi, NEWEST_ABI)


def _check_stays_here(inputs: JobInputs, program: Program) -> None:
    """Refuse a command of which a known part hands the work to a process outside."""
    # Only a job that is confined pays for loading it.
    from policyguard.program.outside import hands_over

    script = read_start(program.path, MAX_SCRIPT_BYTES) if program.kind in ("script", "shell") else b""
    name = hands_over(inputs.argv, program, inputs.environment, os.fsdecode(script))
    if name:
        raise EvidenceError(
            f"the job cannot be confined: `{printable_name(name)}` hands it to a process outside",
            help=f"put it inside: `{printable_name(name)} ... policyguard run --confine ... -- PROGRAM`",
        )


def _check_output(folder: str, code: tuple[str, ...]) -> None:
    # INVARIANT I15: a confined job cannot change the code that it was measured with, nor add to it.
    for part in (*code, *SYSTEM):
        inside = is_below(folder, part) and not is_below(folder, "/dev/shm")
        if inside or is_below(part, folder):
            raise EvidenceError(
                f"output `{printable_name(folder)}`: would let the job change `{printable_name(part)}`",
                help="name a folder of its own, such as /scratch/run-17",
            )


def _check_writable(paths: Mapping[str, str], code: tuple[str, ...]) -> None:
    """Refuse code in a folder that every job may write: shared memory, or one of the operator's configuration."""
    for path, rights in paths.items():
        for part in code:
            if "w" in rights and is_below(part, path):
                raise EvidenceError(
                    f"`{printable_name(part)}`: every confined job may write `{printable_name(path)}`, "
                    "expected code elsewhere",
                    help="move it, set TMPDIR for the exported commit, or narrow `confinement:` in the configuration",
                )


def _needed(prefixes: Iterable[str]) -> Iterator[str]:
    """List the parts of installations that an interpreter needs, links left out: one may lead to anything."""
    # INVARIANT I15: `bin` and `pyvenv.cfg` beside weights do not open the weights.
    paths = (os.path.join(prefix, name) for prefix in prefixes for name in INSTALLED)
    return (path for path in paths if os.path.exists(path) and not os.path.islink(path))


def _environments(executable: str) -> tuple[str, ...]:
    """List the folders of `installations` with links resolved: the kernel's rules are about folders, not names."""
    return tuple(dict.fromkeys(os.path.realpath(prefix) for prefix in installations(executable)))


def _resolved(path: str, inputs: JobInputs) -> str:
    full = os.path.join(inputs.directory, path)
    if not os.path.exists(full):
        raise EvidenceError(
            f"`{printable_name(path)}`: found no such file or folder, expected one for the confined job: create it"
        )
    return os.path.realpath(full)


def _without_covered(paths: Mapping[str, str]) -> dict[str, str]:
    """Leave out a path that another one above it already gives the same rights, so that records stay short."""
    return {
        path: rights
        for path, rights in paths.items()
        if not any(
            above != path and is_below(path, above) and set(rights) <= set(allowed) for above, allowed in paths.items()
        )
    }
