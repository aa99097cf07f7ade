"""The program that a job's command will run, as the fact `resource.program`: kind, file and origin."""

from __future__ import annotations

import os
import time
from collections.abc import Collection

from policyguard.confinement.profile import SYSTEM_CODE
from policyguard.errors import EvidenceError
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.evidence.job import installations, program_of
from policyguard.evidence.repository import repository_of
from policyguard.fs.ownership import is_below
from policyguard.fs.safe_open import file_record, read_small
from policyguard.git.objects import object_id, open_objects
from policyguard.git.trees import EXECUTABLE, entry_at, tree_of
from policyguard.model.facts import Assurance, Fact
from policyguard.model.request import Request
from policyguard.program.follow import Program
from policyguard.text import printable_name
from policyguard.values import FrozenMap, Instant, Value

PROGRAM = "resource.program"

MAX_PROGRAM_BYTES = 16 << 20
"""Source is shorter; a longer file is no part of a commit that somebody reads."""

_REGULAR = frozenset({0o100644, 0o100664, EXECUTABLE})


class ProgramCollector:
    """Supplies `resource.program`; `owners` are the uids whose repositories may be measured."""

    name = "program"
    measures_contributors = False
    declares = (PROGRAM,)

    def __init__(self, *, timeout_s: float = 15.0, owners: Collection[int] | None = None) -> None:
        self._timeout_s = timeout_s
        self._owners = frozenset(owners) if owners is not None else frozenset({os.geteuid(), 0})

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Follow the command line, and determine where its program comes from."""
        program = program_of(inputs)
        value = self._record(inputs, program)
        return Collected(entries={PROGRAM: Fact(value, Assurance.MEASURED, self.name, now, bound=True)})

    def _record(self, inputs: JobInputs, program: Program) -> FrozenMap:
        # Anybody can make a folder that resembles an environment; only that of the interpreter is measured.
        own = installations(program.interpreter) or installations(program.started[0] if program.started else "")
        prefixes = (*SYSTEM_CODE, *own)
        ours = program.started[:-1] if program.kind == "binary" else program.started
        foreign = [path for path in ours if path != program.path and not _comes_from(path, prefixes)]
        if foreign:
            # INVARIANT I15: a wrapper's name says nothing; only one of the system or of an environment is followed.
            program = Program(
                kind="unknown", reason=f"`{foreign[0]}` is of neither the system nor the command's environment"
            )
        origin = "none"
        record: FrozenMap | dict[str, Value] = {}
        if program.path:
            record = file_record(program.path, printable_name(inputs.recorded(program.path)))
            if any(is_below(os.path.realpath(program.path), folder) for folder in SYSTEM_CODE):
                origin = "system"
            elif _comes_from(program.path, prefixes):
                origin = "environment"
            else:
                origin = "commit" if self._is_committed(inputs, program.path) else "elsewhere"
        elif program.kind == "module":
            origin = "environment"
        members: dict[str, Value] = {"kind": program.kind, "origin": origin, **record}
        if program.module:
            members["module"] = printable_name(program.module)
        if program.reason:
            members["reason"] = printable_name(inputs.recorded(program.reason))
        return FrozenMap(members)

    def _is_committed(self, inputs: JobInputs, path: str) -> bool:
        """Return True if the commit of the job's folder contains this file with the same content."""
        try:
            git, commit, _ = repository_of(inputs, self._owners)
        except EvidenceError:
            return False
        real, root = os.path.realpath(path), os.path.realpath(git.root)
        if not is_below(real, root):
            return False
        with open_objects(git, commit, time.monotonic() + self._timeout_s) as reader:
            entry = entry_at(reader, tree_of(reader, commit), os.fsencode(os.path.relpath(real, root)))
            if entry is None or entry.mode not in _REGULAR:
                return False
            return object_id(reader.object_format, "blob", read_small(real, MAX_PROGRAM_BYTES)) == entry.oid


def _comes_from(path: str, prefixes: Collection[str]) -> bool:
    """Return True if a file is in one of the folders, both by its name and with its links resolved."""
    return all(
        any(is_below(name, prefix) for prefix in prefixes) for name in (os.path.abspath(path), os.path.realpath(path))
    )
