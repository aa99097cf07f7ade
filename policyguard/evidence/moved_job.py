"""Moves what a job names from the work tree to the export of its commit.

Paths in the command, in its variables and in the job file are replaced; an environment in the work tree stays where it
is, and so do declared outputs, data and checkpoints. What is in the work tree and not in the commit is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from policyguard.errors import EvidenceError
from policyguard.evidence.collector import JobInputs, occurrences
from policyguard.evidence.confinement import TREE
from policyguard.evidence.injection import row_of
from policyguard.evidence.job import installations, resolve_executable
from policyguard.fs.ownership import is_below
from policyguard.text import printable_name

_PATH_END = re.compile(r"[\s:;,'\"|&<>()]")
_SEPARATORS = re.compile(r"[\s:]")
_PLACEHOLDER = re.compile(r"\{(?:tree|env|private|output:[^{}]*|data:[^{}]*)\}")


class MovedJob:
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
        self.interpreters = self._environments(first=1)
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

    def fields(self) -> dict[str, Any]:
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

    def _environments(self, first: int | None = None) -> tuple[str, ...]:
        """List the environments that the job may run programs of: that of its program, and those on its PATH.

        With `first=1` without the installations that virtual environments are built on.
        """
        folders = self._submitted.environment.get("PATH", "").split(os.pathsep)
        programs = [self._executable, *(os.path.join(folder, "python") for folder in folders if os.path.isabs(folder))]
        prefixes = dict.fromkeys(prefix for program in programs for prefix in installations(program)[:first])
        return tuple(prefix for prefix in prefixes if self._committed(prefix) is None)

    def _check_declared(self) -> None:
        # Programs fail late, and in odd ways, where a folder is missing.
        for paths, exists, noun in (
            (self._outputs, os.path.isdir, "folder"),
            (self._data, os.path.exists, "file or folder"),
        ):
            for path in paths.values():
                if not exists(path):
                    raise EvidenceError(f"`{printable_name(path)}`: found no such {noun}, expected one for the job")
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
        if row_of(name) is not None or name == "PATH":
            for part in _SEPARATORS.split(moved):
                # INVARIANT I15: no variable leads a job that starts from its commit back into the work tree.
                of_environment = any(is_below(os.path.normpath(part), folder) for folder in self.environments)
                leads_back = is_below(os.path.realpath(part), self._root) and not of_environment
                leads_out = not is_below(self._absolute(part), self._root)
                if leads_back if os.path.isabs(part) else leads_out:
                    raise EvidenceError(
                        f"`{printable_name(name)}`: leads out of the commit by `{printable_name(part)}`, "
                        "expected absolute folders, or folders of the commit",
                        help=f"unset {printable_name(name)}, or write absolute folders without links",
                    )
        return moved

    def _absent(self, name: str) -> EvidenceError:
        return EvidenceError(
            f"`{printable_name(name)}`: is in the work tree and not in the commit, expected a file of the commit",
            help="commit it, or name it under `data:`, `checkpoints:` or `outputs:` in the job file",
        )
