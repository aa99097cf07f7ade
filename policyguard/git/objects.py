"""Reads git objects without trusting the repository: each is hashed again and must match its id.

Git runs in a private, empty git directory that uses the repository's object folder. So git never sees the repository's
configuration, hooks, attributes, replace references and grafts.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO

from policyguard.errors import EvidenceError
from policyguard.fs.safe_open import CHUNK_BYTES
from policyguard.git.directory import GitDir
from policyguard.git.program import environment, hardened_command
from policyguard.text import printable_name

MAX_OBJECT_BYTES = 64 << 20


class ObjectReader:
    """Reads the objects of one repository with `git cat-file --batch`, one at a time."""

    def __init__(
        self, git: GitDir, object_format: str, private: str, deadline: float, quarantine: str | None = None
    ) -> None:
        self._git, self._deadline = git, deadline
        self.object_format = object_format
        self._environment = environment(git, private, quarantine)
        self._private = private
        self._process = self._start("--batch")
        self._sizes: subprocess.Popen[bytes] | None = None
        self._batches: list[subprocess.Popen[bytes]] = []
        self._timer = threading.Timer(max(0.0, deadline - time.monotonic()), self._kill)
        self._timer.daemon = True
        self._timer.start()

    def _start(self, *options: str, stdin: int | IO[bytes] = subprocess.PIPE) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*hardened_command(self._private), "cat-file", *options],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            cwd=self._private,
        )

    def _kill(self) -> None:
        for process in (self._process, self._sizes, *self._batches):
            if process is not None:
                process.kill()

    def close(self) -> None:
        self._timer.cancel()
        self._kill()
        for process in (self._process, self._sizes, *self._batches):
            if process is not None:
                process.communicate()

    def read(self, oid: str, kind: str) -> bytes:
        """Read an object of the expected kind and verify its hash.

        Raises:
            EvidenceError: the object is missing, of another kind, too large, or its content has another hash.
        """
        found_kind, size = self._ask(oid)
        try:
            self._check_size(oid, found_kind, size, kind)
        except EvidenceError:
            # Git has begun to answer: read that, or the next answer would start in the middle of this one.
            self._take_last_chunk(size)
            raise
        content = self._take(size)
        self._check_id(oid, kind, content)
        return content

    def _check_size(self, oid: str, kind: str, size: int, expected: str) -> None:
        if kind != expected or size > MAX_OBJECT_BYTES:
            raise EvidenceError(
                f"object `{oid}`: found a {kind} of {size} bytes, expected a {expected} of at most {MAX_OBJECT_BYTES}"
            )

    def _check_id(self, oid: str, kind: str, content: bytes) -> None:
        # INVARIANT I16: an object counts only if its bytes hash to the id asked for, whatever the store says.
        if object_id(self.object_format, kind, content) != oid:
            raise EvidenceError(f"object `{oid}`: its content does not have this id, the repository's store is damaged")

    def read_blobs(self, oids: Sequence[str]) -> Iterator[bytes]:
        """Yield the content of each of these blobs, in order, verified; git answers without waiting for us.

        Raises:
            EvidenceError: as `read`.
        """
        with tempfile.TemporaryFile(dir=self._private) as requests:
            requests.write("".join(f"{oid}\n" for oid in oids).encode())
            requests.seek(0)
            process = self._start("--batch", "--buffer", stdin=requests)
        self._batches.append(process)
        for oid in oids:
            kind, size = self._answer(oid, process)
            self._check_size(oid, kind, size, "blob")
            content = self._take(size, process)
            self._check_id(oid, kind, content)
            yield content

    def read_small_blob(self, oid: str, limit_bytes: int) -> bytes | None:
        """Read a blob; None if it is longer than `limit_bytes`."""
        kind, size = self._ask(oid)
        content = self._take_last_chunk(size)
        fits = kind == "blob" and size <= limit_bytes <= CHUNK_BYTES
        return content if fits and object_id(self.object_format, "blob", content) == oid else None

    def read_short_blob(self, oid: str, limit_bytes: int) -> bytes | None:
        """Read a blob; None if it is too long or not a blob.

        Asks git for the size first.
        """
        kind, size = self.info(oid)
        return self.read_small_blob(oid, limit_bytes) if kind == "blob" and size <= limit_bytes else None

    def info(self, oid: str) -> tuple[str, int]:
        """Return git's unverified kind and size of an object; `read` verifies them."""
        if self._sizes is None:
            self._sizes = self._start("--batch-check")
        return self._ask(oid, self._sizes)

    def _ask(self, oid: str, process: subprocess.Popen[bytes] | None = None) -> tuple[str, int]:
        reader = process or self._process
        assert reader.stdin is not None
        # A git that has ended answers nothing, which `_answer` reports.
        with suppress(BrokenPipeError, ValueError):
            reader.stdin.write(f"{oid}\n".encode())
            reader.stdin.flush()
        return self._answer(oid, reader)

    def _answer(self, oid: str, reader: subprocess.Popen[bytes]) -> tuple[str, int]:
        assert reader.stdout is not None
        try:
            header = reader.stdout.readline().split()
        except ValueError:
            header = []
        if len(header) != 3 or not header[2].isdigit() or header[0] != oid.encode():
            raise EvidenceError(f"object `{oid}`: {self._stop_reason(header)}")
        return printable_name(header[1]), int(header[2])

    def _take_last_chunk(self, size: int) -> bytes:
        content = self._take(0) if size == 0 else b""
        for start in range(0, size, CHUNK_BYTES):
            content = self._take(min(CHUNK_BYTES, size - start), last=start + CHUNK_BYTES >= size)
        return content

    def _take(self, size_bytes: int, process: subprocess.Popen[bytes] | None = None, *, last: bool = True) -> bytes:
        """Read the content of git's answer and the line break after it."""
        stdout = (process or self._process).stdout
        assert stdout is not None
        content = stdout.read(size_bytes)
        if last:
            stdout.read(1)
        if len(content) != size_bytes:
            raise EvidenceError(f"git stopped in the middle of an object: {self._stop_reason([])}")
        return content

    def ignored_by(self, paths: Iterable[bytes]) -> dict[bytes, bytes]:
        """Map each ignored path to the `.gitignore` of the working tree that ignores it.

        `.git/info/exclude` and the user's global excludes are not consulted: nobody reviews them.

        Raises:
            EvidenceError: git fails or takes too long.
        """
        question = b"".join(path + b"\0" for path in paths)
        if not question:
            return {}
        command = [*hardened_command(self._private), f"--work-tree={self._git.root}", "check-ignore"]
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

    def lines(self, *arguments: str, accepted: tuple[int, ...] = (0,)) -> Iterator[bytes]:
        """Yield the lines that a git command prints about these objects, as they arrive.

        Raises:
            EvidenceError: git ended with a code outside `accepted`, or outlasted the reader's deadline.
        """
        command = [*hardened_command(self._private), "-c", "core.commitGraph=false", *arguments]
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
            raise EvidenceError(f"`git {arguments[0]}`: {self._stop_reason([])}")

    def _stop_reason(self, header: list[bytes]) -> str:
        if header[1:] == [b"missing"]:
            return "it is missing from the repository"
        return "git took too long" if time.monotonic() >= self._deadline else "git cannot read it"


@contextmanager
def open_objects(git: GitDir, oid: str, deadline: float, *, quarantine: str | None = None) -> Iterator[ObjectReader]:
    """Yield a reader of the repository's objects; the length of `oid` selects the hash function.

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


def object_id(object_format: str, kind: str, content: bytes) -> str:
    """Compute the id of an object: the hash over `kind SP size NUL content`.

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


def _write(path: str, text: str) -> None:
    with open(path, "x", encoding="ascii") as file:
        file.write(text)
