"""Reads git objects through plain git and trusts none of them: each is hashed again and must have the expected id.

Git runs in a private, empty git directory that borrows the repository's object folder. The repository's configuration,
hooks, attributes, replace references and grafts are therefore not merely overridden: git never sees them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from policyguard.errors import EvidenceError
from policyguard.fs.safe_open import CHUNK_BYTES
from policyguard.git.directory import GitDir
from policyguard.text import printable_name

MAX_OBJECT_BYTES = 64 << 20
MAX_ENTRIES = 500_000
MAX_DEPTH = 128

GITLINK, SYMLINK, EXECUTABLE = 0o160000, 0o120000, 0o100755
TREE = 0o040000
_MODES = frozenset({GITLINK, SYMLINK, EXECUTABLE, 0o100644, 0o100664, TREE})

_HARD = (
    "--no-replace-objects",
    "--no-optional-locks",
    "--no-pager",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.pager=cat",
    "-c",
    "protocol.allow=never",
    "-c",
    "core.attributesFile=/dev/null",
    "-c",
    "core.excludesFile=/dev/null",
    "-c",
    "diff.external=",
    "-c",
    "core.quotePath=false",
    "-c",
    "credential.helper=",
    "-c",
    "core.sshCommand=false",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a tree: git's mode and the id of its content."""

    mode: int
    oid: str


class ObjectReader:
    """Reads the objects of one repository: `git cat-file --batch`, one request at a time."""

    def __init__(
        self, git: GitDir, object_format: str, private: str, deadline: float, quarantine: str | None = None
    ) -> None:
        self._git, self._deadline = git, deadline
        self.object_format = object_format
        self._environment = _environment(git, private, quarantine)
        self._process = subprocess.Popen(
            [*_command(private), "cat-file", "--batch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            cwd=private,
        )
        self._timer = threading.Timer(max(0.0, deadline - time.monotonic()), self._process.kill)
        self._timer.daemon = True
        self._timer.start()
        self._private = private
        self._sizes: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        self._timer.cancel()
        for process in (self._process, self._sizes):
            if process is not None:
                process.kill()
                process.communicate()

    def read(self, oid: str, kind: str) -> bytes:
        """Read an object of the expected kind and check its hash.

        Raises:
            EvidenceError: the object is missing, of another kind, too large, or its content has another hash.
        """
        found_kind, size = self._ask(oid)
        if found_kind != kind or size > MAX_OBJECT_BYTES:
            # Git has begun to answer: read that, or the next answer would start in the middle of this one.
            self._take_last_chunk(size)
            raise EvidenceError(
                f"object `{oid}`: found a {found_kind} of {size} bytes, expected a {kind} of at most {MAX_OBJECT_BYTES}"
            )
        content = self._take(size)
        # INVARIANT I16: an object counts only if its bytes hash to the id asked for, whatever the store says.
        if object_id(self.object_format, kind, content) != oid:
            raise EvidenceError(f"object `{oid}`: its content does not have this id, the repository's store is damaged")
        return content

    def read_small_blob(self, oid: str, limit_bytes: int) -> bytes | None:
        """Read a blob; None if it is longer than `limit_bytes`."""
        kind, size = self._ask(oid)
        content = self._take_last_chunk(size)
        fits = kind == "blob" and size <= limit_bytes <= CHUNK_BYTES
        return content if fits and object_id(self.object_format, "blob", content) == oid else None

    def read_short_blob(self, oid: str, limit_bytes: int) -> bytes | None:
        """Read a blob; None if it is longer or not a blob. Asks git for the size before the bytes."""
        kind, size = self.info(oid)
        return self.read_small_blob(oid, limit_bytes) if kind == "blob" and size <= limit_bytes else None

    def info(self, oid: str) -> tuple[str, int]:
        """Ask git for kind and size of an object, unverified; `read` verifies."""
        if self._sizes is None:
            self._sizes = subprocess.Popen(
                [*_command(self._private), "cat-file", "--batch-check"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._environment,
                cwd=self._private,
            )
        return self._ask(oid, self._sizes)

    def _ask(self, oid: str, process: subprocess.Popen[bytes] | None = None) -> tuple[str, int]:
        asked = process or self._process
        stdin, stdout = asked.stdin, asked.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(f"{oid}\n".encode())
            stdin.flush()
            header = stdout.readline().split()
        except (BrokenPipeError, ValueError):
            header = []
        if len(header) != 3 or not header[2].isdigit() or header[0] != oid.encode():
            raise EvidenceError(f"object `{oid}`: {self._why(header)}")
        return printable_name(header[1]), int(header[2])

    def _take_last_chunk(self, size: int) -> bytes:
        content = self._take(0) if size == 0 else b""
        for start in range(0, size, CHUNK_BYTES):
            content = self._take(min(CHUNK_BYTES, size - start), last=start + CHUNK_BYTES >= size)
        return content

    def _take(self, size_bytes: int, *, last: bool = True) -> bytes:
        """Read the next bytes of the answer, and the line break that ends it."""
        assert self._process.stdout is not None
        content = self._process.stdout.read(size_bytes)
        if last:
            self._process.stdout.read(1)
        if len(content) != size_bytes:
            raise EvidenceError(f"git stopped in the middle of an object: {self._why([])}")
        return content

    def ignored_by(self, paths: Iterable[bytes]) -> dict[bytes, bytes]:
        """Map each path that a `.gitignore` of the working tree ignores to that `.gitignore`.

        `.git/info/exclude` and the user's global excludes are not consulted: nobody reviews them.

        Raises:
            EvidenceError: git fails or takes too long.
        """
        question = b"".join(path + b"\0" for path in paths)
        if not question:
            return {}
        command = [*_command(self._private), f"--work-tree={self._git.root}", "check-ignore"]
        command += ["--no-index", "--verbose", "--stdin", "-z"]
        try:
            answer = subprocess.run(
                command,
                input=question,
                capture_output=True,
                env=self._environment,
                cwd=self._git.root,
                timeout=max(0.01, self._deadline - time.monotonic()),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise EvidenceError("git took too long to read the ignore rules") from None
        if answer.returncode not in (0, 1):  # 1: nothing is ignored
            raise EvidenceError(f"git cannot read the ignore rules: {printable_name(answer.stderr.strip()[:200])}")
        fields = answer.stdout.split(b"\0")[:-1]
        rows = zip(fields[0::4], fields[2::4], fields[3::4], strict=True)
        return {path: source for source, pattern, path in rows if not pattern.startswith(b"!")}

    def lines(self, *words: str, accepted: tuple[int, ...] = (0,)) -> Iterator[bytes]:
        """Yield the lines that a git command prints about these objects, as they arrive.

        Raises:
            EvidenceError: git ended with a code outside `accepted`, or outlasted the reader's deadline.
        """
        command = [*_command(self._private), "-c", "core.commitGraph=false", *words]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            cwd=self._private,
        ) as process:
            timer = threading.Timer(max(0.0, self._deadline - time.monotonic()), process.kill)
            timer.daemon = True
            timer.start()
            assert process.stdout is not None
            finished = False
            try:
                for line in process.stdout:
                    yield line.rstrip(b"\n")
                finished = True
            finally:
                timer.cancel()
                if not finished:
                    process.kill()
        if process.returncode not in accepted:
            raise EvidenceError(f"`git {words[0]}`: {self._why([])}")

    def _why(self, header: list[bytes]) -> str:
        if header[1:] == [b"missing"]:
            return "it is missing from the repository"
        return "git took too long" if time.monotonic() >= self._deadline else "git cannot read it"


@contextmanager
def open_objects(git: GitDir, oid: str, deadline: float, *, quarantine: str | None = None) -> Iterator[ObjectReader]:
    """Yield a reader of the repository's objects; the length of `oid` says which hash the repository uses.

    Args:
        git: the repository.
        oid: an object id of this repository.
        deadline: a time of `time.monotonic()` after which git is stopped.
        quarantine: a folder of objects that are not the repository's yet, already checked to be git's own.
    """
    object_format = "sha1" if len(oid) == 40 else "sha256"
    with tempfile.TemporaryDirectory(prefix="policyguard-git-") as private:
        for folder in ("objects", "refs"):
            os.mkdir(os.path.join(private, folder))
        _write(os.path.join(private, "HEAD"), "ref: refs/heads/none\n")
        version = "[core]\nrepositoryformatversion = 1\nbare = false\n"
        _write(os.path.join(private, "config"), f"{version}[extensions]\nobjectFormat = {object_format}\n")
        reader = ObjectReader(git, object_format, private, deadline, quarantine)
        try:
            yield reader
        finally:
            reader.close()


def tree_of(reader: ObjectReader, commit: str) -> str:
    """Read the tree id of a commit; git writes it in the first line.

    Raises:
        EvidenceError: the commit is malformed.
    """
    first = reader.read(commit, "commit").split(b"\n", 1)[0]
    word, _, tree = first.partition(b" ")
    if word != b"tree" or len(tree) != len(commit):
        raise EvidenceError(f"object `{commit}`: found `{printable_name(first[:80])}`, expected `tree` and an id")
    return tree.decode("ascii", "replace")


def files_of(reader: ObjectReader, tree: str) -> dict[bytes, Entry]:
    """List every file of a tree and of the trees below it, by path.

    Raises:
        EvidenceError: the tree has too many files or is nested too deep.
    """
    files: dict[bytes, Entry] = {}
    waiting = [(b"", tree, 0)]
    while waiting:
        prefix, oid, depth = waiting.pop()
        if depth > MAX_DEPTH or len(files) > MAX_ENTRIES:
            raise EvidenceError(f"tree `{tree}`: expected at most {MAX_ENTRIES} files and {MAX_DEPTH} folders deep")
        for name, entry in parse_tree(reader.read(oid, "tree"), len(tree) // 2):
            if entry.mode == TREE:
                waiting.append((prefix + name + b"/", entry.oid, depth + 1))
            else:
                files[prefix + name] = entry
    return files


def parse_tree(content: bytes, oid_bytes: int) -> Iterator[tuple[bytes, Entry]]:
    """Yield name and entry of each line of a tree object: tree = *( mode SP name NUL oid ).

    Raises:
        EvidenceError: an entry is malformed.
    """
    position = 0
    seen: set[bytes] = set()
    while position < len(content):
        end = content.find(b"\0", position)
        mode_text, _, name = content[position:end].partition(b" ")
        position = end + 1 + oid_bytes
        known = mode_text.isdigit() and len(mode_text) <= 6 and set(mode_text) <= set(b"01234567")
        mode = int(mode_text, 8) if known else 0
        # INVARIANT I16: a tree with names no working tree can have, or with one name twice, is not judged.
        bad_name = not name or b"/" in name or name in (b".", b"..") or name.lower() == b".git" or name in seen
        if end < 0 or position > len(content) or bad_name or mode not in _MODES:
            raise EvidenceError(
                f"found a tree with the entry `{printable_name(mode_text[:10])} {printable_name(name[:80])}`, no file"
            )
        seen.add(name)
        yield name, Entry(mode, content[end + 1 : position].hex())


def object_id(object_format: str, kind: str, content: bytes) -> str:
    """Compute the id git gives to an object: the hash over `kind SP size NUL content`.

    Args:
        object_format: `sha1` or `sha256`.
        kind: `blob`, `tree`, `commit` or `tag`.
        content: the bytes of the object.
    """
    hasher = new_hasher(object_format, kind, len(content))
    hasher.update(content)
    return hasher.hexdigest()


def new_hasher(object_format: str, kind: str, size_bytes: int) -> hashlib._Hash:
    """Start a hash with the header of an object of this kind and size.

    Args:
        object_format: `sha1` or `sha256`.
        kind: `blob`, `tree`, `commit` or `tag`.
        size_bytes: the size of the content.
    """
    return hashlib.new(object_format, f"{kind} {size_bytes}\0".encode(), usedforsecurity=False)


def config_values(text: bytes, private_cwd: str = "/") -> list[tuple[str, str]]:
    """Parse a git configuration text into keys and values, in order; includes are not followed.

    Raises:
        EvidenceError: git cannot read the text.
    """
    answer = subprocess.run(
        [git_program(), "config", "--file", "-", "--no-includes", "--null", "--list"],
        input=text,
        capture_output=True,
        env=_clean_environment(private_cwd),
        cwd=private_cwd,
        timeout=5,
        check=False,
    )
    if answer.returncode != 0:
        raise EvidenceError(f"git cannot read the configuration: {printable_name(answer.stderr.strip()[:200])}")
    pairs = (item.decode("utf-8", "surrogateescape").partition("\n") for item in answer.stdout.split(b"\0") if item)
    return [(key, value) for key, _, value in pairs]


def effective_value(gitdir: str, key: str) -> str | None:
    """Ask git for the effective value of a setting of this repository, for this account; None if it is not set.

    Included files, the working tree's, the account's and the system's configuration are read, and nothing is run.

    Raises:
        EvidenceError: git fails or takes too long.
    """
    command = [git_program(), f"--git-dir={gitdir}", "config", "--includes", "--null", "--get", key]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        answer = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False, cwd="/", env=clean
        )
    except subprocess.TimeoutExpired:
        raise EvidenceError("git took too long to read the configuration, is there a FIFO among its files?") from None
    if answer.returncode not in (0, 1):  # 1: not set
        raise EvidenceError(f"git cannot read the configuration: {printable_name(answer.stderr.strip()[:200])}")
    value = answer.stdout.removesuffix(b"\0").decode("utf-8", "surrogateescape")
    return value if answer.returncode == 0 else None


def _command(private: str) -> list[str]:
    return [git_program(), f"--git-dir={private}", *_HARD]


def _environment(git: GitDir, private: str, quarantine: str | None = None) -> dict[str, str]:
    if quarantine is None:
        return {**_clean_environment(private), "GIT_OBJECT_DIRECTORY": git.objects}
    borrowed = '"' + git.objects.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return {
        **_clean_environment(private),
        "GIT_OBJECT_DIRECTORY": quarantine,
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": borrowed,
    }


def _clean_environment(home: str) -> Mapping[str, str]:
    # INVARIANT I16: git gets an environment made here; no variable of the job or of the launcher reaches it.
    return {
        "PATH": os.defpath,
        "HOME": home,
        "XDG_CONFIG_HOME": home,
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": "/",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_PAGER": "cat",
        "GIT_FLUSH": "1",
    }


def git_program() -> str:
    """Find the git program.

    Raises:
        EvidenceError: git is not installed.
    """
    path = shutil.which("git")
    if path is None:
        raise EvidenceError("git is not installed, expected a `git` program on the launcher's PATH")
    return path


def _write(path: str, text: str) -> None:
    with open(path, "x", encoding="ascii") as file:
        file.write(text)
