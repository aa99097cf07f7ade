"""Starts a job from its commit: exports the files of the commit, and moves the command from the work tree there.

The fact `resource.from_commit` says which commit and tree were exported. What a job names in its work tree is found
in the export; an environment in the work tree stays where it is, and so do declared outputs, data and checkpoints.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext

from msgspec import structs

from policyguard.confinement.profile import SYSTEM
from policyguard.errors import ConfigurationError, EvidenceError
from policyguard.evidence.collector import Collected, Export, JobInputs
from policyguard.evidence.confinement import TREE
from policyguard.evidence.editable import check_environments
from policyguard.evidence.job import program_of
from policyguard.evidence.moved_job import MovedJob
from policyguard.fs.job_folder import job_folder
from policyguard.fs.ownership import check_resolved, is_below
from policyguard.fs.safe_open import reason_of
from policyguard.git.directory import find_gitdir
from policyguard.git.export import export_files
from policyguard.git.objects import open_objects
from policyguard.git.refs import References
from policyguard.git.trees import files_of, tree_of
from policyguard.model.facts import Assurance, Fact
from policyguard.model.request import Request
from policyguard.text import printable_name
from policyguard.values import FrozenMap, Instant

FROM_COMMIT = "resource.from_commit"

TIMEOUT_S = 60.0


class FromCommitCollector:
    """Supplies which commit and tree a job starts from; of a job that starts from its work tree nothing."""

    name = "from_commit"
    measures_contributors = False
    declares = (FROM_COMMIT,)

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Record the export, and the folders behind the placeholders.

        Raises:
            EvidenceError: the commit was to be exported, and was not.
        """
        export = inputs.export
        if export is None:
            if inputs.from_commit:
                raise EvidenceError("the commit was not exported, expected a job that `policyguard run` starts")
            return Collected(missing={FROM_COMMIT: "the job starts from its work tree, expected `--from-commit`"})
        roots = {name: printable_name(folder) for name, folder in export.roots.items() if name != TREE}
        value = FrozenMap(commit=export.commit, tree=export.tree, roots=FrozenMap(dict(sorted(roots.items()))))
        return Collected(entries={FROM_COMMIT: Fact(value, Assurance.MEASURED, self.name, now, bound=True)})


@contextmanager
def exported(inputs: JobInputs) -> Iterator[JobInputs]:
    """Yield the job as it would be started, exported for as long as the block runs if it starts from its commit.

    Raises:
        EvidenceError: as `export_job`, or no folder for the export can be made.
    """
    with job_folder() if inputs.from_commit and inputs.export is None else nullcontext() as folder:
        yield inputs if folder is None else export_job(inputs, folder.tree)


def export_job(inputs: JobInputs, folder: str, *, owners: Collection[int] | None = None) -> JobInputs:
    """Export the commit of a job's folder, and return the job as it is started from there.

    Args:
        inputs: the job in its work tree.
        folder: an empty folder of ours.
        owners: the uids whose repositories may be exported; the process's own and root if not given.

    Raises:
        EvidenceError: the commit cannot be exported, the command names something of the work tree that is not in the
            commit, or the environment of its program would import code from the work tree.
    """
    try:
        return _export(structs.replace(inputs, from_commit=True), folder, owners)
    except OSError as problem:
        name = f"`{printable_name(str(problem.filename))}`: " if problem.filename is not None else ""
        raise EvidenceError(
            f"the commit cannot be exported: {name}{reason_of(problem)}",
            help="set TMPDIR to a folder with space that this account can write",
        ) from problem


def _export(submitted: JobInputs, folder: str, owners: Collection[int] | None) -> JobInputs:
    _check_private(folder)
    git = find_gitdir(submitted.directory, frozenset(owners) if owners is not None else frozenset({os.geteuid(), 0}))
    if is_below(folder, git.root):
        raise EvidenceError(
            f"`{printable_name(folder)}`: is in the work tree, expected a folder for the export elsewhere",
            help="set TMPDIR to a folder outside of the repository",
        )
    commit, branch = References(git).head()
    with open_objects(git, commit, time.monotonic() + TIMEOUT_S) as reader:
        tree = tree_of(reader, commit)
        files = files_of(reader, tree)
        move = MovedJob(submitted, git.root, folder, files)
        check_environments(move.interpreters, git.root, submitted.environment)
        moved = move.fields()
        export_files(reader, files, folder)
    if not os.path.isdir(moved["directory"]):
        raise EvidenceError(
            f"`{printable_name(submitted.directory)}`: is not in commit {commit[:12]}, expected a folder of the commit"
        )
    export = Export(
        folder=folder,
        repository=git.root,
        commit=commit,
        tree=tree,
        branch=branch,
        roots=move.roots,
        submitted=submitted,
    )
    started = structs.replace(submitted, **moved, export=export)
    _check_program(started, move.environments)
    return started


def _check_private(folder: str) -> None:
    try:
        check_resolved(folder)
    except ConfigurationError as problem:
        raise EvidenceError(
            f"the commit cannot be exported: {problem.message}",
            help="set TMPDIR to a folder that no other account can change",
        ) from problem


def _check_program(started: JobInputs, environments: Collection[str]) -> None:
    """Refuse a program that is known and neither of the commit, the environment nor the system."""
    program = program_of(started)
    export = started.export.folder if started.export is not None else ""
    folders = (export, *environments, *map(os.path.realpath, environments), *SYSTEM)
    for path in (*program.started, program.path):
        if path and not any(is_below(os.path.abspath(path), folder) for folder in folders):
            raise EvidenceError(
                f"`{printable_name(path)}`: would run, and is not in the commit, expected a program of the commit, "
                "of its environment or of the system",
                help="commit it, or start the job without `--from-commit`, if the policies allow it",
            )
