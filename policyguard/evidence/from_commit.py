"""Starts a job from its commit: exports the files of the commit, and moves the command from the work tree there.

The fact `resource.from_commit` says which commit and tree were exported. What a job names in its work tree is found
in the export; an environment in the work tree stays where it is, and so do declared outputs, data and checkpoints.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from msgspec import structs

from policyguard.confinement.profile import SYSTEM
from policyguard.errors import ConfigurationError, EvidenceError
from policyguard.evidence.collector import Collected, Export, JobInputs, occurrences
from policyguard.evidence.confinement import TREE, installations
from policyguard.evidence.editable import check_environments
from policyguard.evidence.job import INJECTION_VARIABLES, resolve_executable
from policyguard.fs.job_folder import job_folder
from policyguard.fs.ownership import check_resolved, is_below
from policyguard.git.directory import find_gitdir
from policyguard.git.export import export_files
from policyguard.git.objects import open_objects
from policyguard.git.refs import References
from policyguard.git.trees import files_of, tree_of
from policyguard.model.facts import Assurance, Fact
from policyguard.model.request import Request
from policyguard.program.follow import follow
from policyguard.text import printable_name
from policyguard.values import FrozenMap, Instant

FROM_COMMIT = "resource.from_commit"

TIMEOUT_S = 60.0

_PATH_END = re.compile(r"[\s:;,'\"|&<>()]")
_PLACEHOLDER = re.compile(r"\{(?:tree|env|private|output:[^{}]*|data:[^{}]*)\}")


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
    submitted = structs.replace(inputs, from_commit=True)
    _check_private(folder)
    git = find_gitdir(submitted.directory, frozenset(owners) if owners is not None else frozenset({os.geteuid(), 0}))
    commit, branch = References(git).head()
    with open_objects(git, commit, time.monotonic() + TIMEOUT_S) as reader:
        tree = tree_of(reader, commit)
        files = files_of(reader, tree)
        move = _Move(submitted, git.root, folder, files)
        check_environments(move.environments, git.root)
        moved = move.job()
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
    program = follow(started.argv, started.directory, started.environment, resolve_executable)
    export = started.export.folder if started.export is not None else ""
    folders = (export, *environments, *map(os.path.realpath, environments), *SYSTEM)
    for path in (*program.started, program.path):
        if path and not any(is_below(os.path.abspath(path), folder) for folder in folders):
            raise EvidenceError(
                f"`{printable_name(path)}`: would run, and is not in the commit, expected a program of the commit, "
                "of its environment or of the system",
                help="commit it, or start the job without `--from-commit`, if the policies allow it",
            )


class _Move:
    """Moves what a job names from the work tree to the export.

    Args:
        submitted: the job in its work tree.
        root: the top folder of the work tree, without links.
        folder: where the commit is exported to.
        files: the files of the commit.
    """

    def __init__(self, submitted: JobInputs, root: str, folder: str, files: Mapping[bytes, object]) -> None:
        self._submitted, self._root, self._folder = submitted, root, folder
        self._directory = os.path.realpath(submitted.directory)
        self._files = {os.fsdecode(path) for path in files}
        self._folders = {path[:end] for path in self._files for end in range(len(path)) if path[end] == "/"} | {"."}
        self._in_root = os.path.relpath(self._directory, root)
        self._executable = resolve_executable(submitted.argv, submitted.directory, submitted.environment)
        self.environments = self._environments()
        self._outputs = {name: self._absolute(path) for name, path in submitted.outputs.items()}
        self._data = {name: self._absolute(path) for name, path in submitted.data.items()}
        outside = [path for path in map(self._absolute, submitted.checkpoints) if self._committed(path) is None]
        declared = (*self.environments, *self._outputs.values(), *self._data.values(), *outside)
        self._stays = tuple(dict.fromkeys(name for path in declared for name in (path, os.path.realpath(path))))
        self._check_declared()
        self._texts = tuple(occurrences(top) for top in dict.fromkeys((root, self._logical_root())))
        self.roots = {TREE: folder} | ({"{env}": self.environments[0]} if self.environments else {})
        self.roots |= {f"{{output:{name}}}": path for name, path in self._outputs.items()}
        self.roots |= {f"{{data:{name}}}": path for name, path in self._data.items()}

    def job(self) -> dict[str, Any]:
        """Build the fields of the job that differ in the export."""
        submitted = self._submitted
        environment = {name: self._variable(name, value) for name, value in submitted.environment.items()}
        directory = os.path.normpath(os.path.join(self._folder, self._in_root))
        argv = (submitted.argv[0], *(self._argument(word) for word in submitted.argv[1:]))
        return {
            "argv": (self._program(environment), *argv[1:]),
            "directory": directory,
            "environment": environment,
            "files": tuple(self._named(name) for name in submitted.files),
            "checkpoints": tuple(self._checkpoint(name) for name in submitted.checkpoints),
            "outputs": self._outputs,
            "data": self._data,
        }

    def _environments(self) -> tuple[str, ...]:
        """List the environments that the job may run programs of: that of its program, and those on its PATH."""
        folders = self._submitted.environment.get("PATH", "").split(os.pathsep)
        programs = [self._executable, *(os.path.join(folder, "python") for folder in folders if os.path.isabs(folder))]
        prefixes = dict.fromkeys(prefix for program in programs for prefix in installations(program))
        return tuple(prefix for prefix in prefixes if self._committed(prefix) is None)

    def _check_declared(self) -> None:
        for path in self._stays:
            if is_below(self._root, path):
                raise EvidenceError(
                    f"`{printable_name(path)}`: contains the work tree, expected a folder in it or elsewhere",
                    help="name only the folders that hold outputs, data and checkpoints",
                )

    def _logical_root(self) -> str:
        """Name the work tree's top folder as the job's folder does, which may lead over links."""
        suffix = "" if self._in_root == "." else "/" + self._in_root
        name = self._submitted.directory.removesuffix(suffix)
        return name if os.path.realpath(name) == self._root else self._root

    def _absolute(self, path: str) -> str:
        return os.path.normpath(os.path.join(self._directory, path))

    def _committed(self, path: str) -> str | None:
        """Return a path relative to the root if the commit has it, as a file or a folder."""
        for name in (os.path.normpath(path), os.path.realpath(path)):
            if is_below(name, self._root):
                inner = os.path.relpath(name, self._root)
                if inner in self._files or inner in self._folders:
                    return inner
        return None

    def _is_staying(self, path: str) -> bool:
        return any(is_below(os.path.normpath(path), stays) for stays in self._stays)

    def _program(self, environment: Mapping[str, str]) -> str:
        """Return the first word of the command such that the submitted program, or its copy in the export, starts."""
        wanted = self._executable
        in_work_tree = is_below(wanted, self._root) or is_below(os.path.realpath(wanted), self._root)
        if in_work_tree and not self._is_staying(wanted):
            inner = self._committed(wanted)
            if inner is None:
                raise self._absent(self._submitted.argv[0])
            return os.path.join(self._folder, inner)
        first = self._submitted.argv[0]
        folders = environment.get("PATH", "").split(os.pathsep)
        # A name that is searched in a folder of the work tree could be another program in the export.
        return first if "/" not in first and all(map(os.path.isabs, folders)) and folders != [""] else wanted

    def _argument(self, word: str) -> str:
        word = _PLACEHOLDER.sub(self._expanded, word)
        for part in dict.fromkeys((word, word.partition("=")[2])):
            moved = self._part(part)
            if moved is not None:
                return word[: len(word) - len(part)] + moved
        return self._text(word)

    def _expanded(self, match: re.Match[str]) -> str:
        if match[0] not in self.roots:
            known = ", ".join(f"`{name}`" for name in sorted(self.roots))
            raise EvidenceError(f"`{printable_name(match[0])}`: is no folder of this job, expected one of {known}")
        return self.roots[match[0]]

    def _part(self, part: str) -> str | None:
        """Move one path of the command; None if it is no path that leads to the work tree or out of it."""
        if not part or "\0" in part or "://" in part:
            return None
        path = self._absolute(part)
        is_relative = not os.path.isabs(part)
        if is_relative and not is_below(path, self._root):
            # `../shared` means a folder beside the work tree, and would mean another one beside the export.
            return path
        real = os.path.realpath(path)
        if not is_below(path, self._root) and not is_below(real, self._root):
            return None
        if self._is_staying(path) or self._is_staying(real):
            return path
        inner = self._committed(path)
        if inner is not None:
            is_same = is_relative and inner == os.path.relpath(path, self._root)
            return part if is_same else os.path.join(self._folder, inner)
        if is_relative and not os.path.lexists(path):
            return None
        raise self._absent(part)

    def _named(self, name: str) -> str:
        moved = self._part(name)
        return name if moved is None else moved

    def _checkpoint(self, name: str) -> str:
        inner = self._committed(self._absolute(name))
        if inner is None:
            return self._absolute(name)
        return os.path.join(self._folder, inner) if os.path.isabs(name) else name

    def _text(self, text: str) -> str:
        """Replace the work tree by the export wherever a text names it."""
        for pattern in self._texts:
            text = pattern.sub(self._moved, text)
        return text

    def _moved(self, match: re.Match[str]) -> str:
        path = _PATH_END.split(match.string[match.start() :], maxsplit=1)[0]
        return match[0] if self._is_staying(path) else self._folder

    def _variable(self, name: str, value: str) -> str:
        moved = self._text(value)
        if name in INJECTION_VARIABLES or name == "PATH":
            for part in moved.split(os.pathsep):
                # INVARIANT I15: no variable leads a job that starts from its commit back into the work tree.
                if os.path.isabs(part) and is_below(os.path.realpath(part), self._root) and not self._is_staying(part):
                    raise EvidenceError(
                        f"`{printable_name(name)}`: leads to the work tree by `{printable_name(part)}`, "
                        "expected folders outside of it",
                        help=f"unset {printable_name(name)}, or write the folder without links",
                    )
        return moved

    def _absent(self, name: str) -> EvidenceError:
        return EvidenceError(
            f"`{printable_name(name)}`: is in the work tree and not in the commit, expected a file of the commit",
            help="commit it, or name it under `data:`, `checkpoints:` or `outputs:` in the job file",
        )
