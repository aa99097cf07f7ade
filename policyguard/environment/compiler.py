"""Runs a Python interpreter in its own process, which checks whether byte code is what it compiles.

The interpreter is never that of the measured environment: it is the one that runs this process, or one that the
operator names. It gets no environment variables, site packages or paths of the measured environment. It may crash, hang
or run out of memory; the only effect is the answer `LOST`.
"""

from __future__ import annotations

import importlib.util
import os
import select
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

import msgspec

from policyguard.environment.compiler_worker import ANSWER, EQUAL, HELLO, LOST, QUESTION, UNLIKE
from policyguard.errors import EvidenceError
from policyguard.text import printable_name

ANSWER_S = 30.0
"""The time limit for one file; the largest sources of common frameworks take about a second."""

MAX_ANSWER_BYTES = 65_536

_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_START = (
    "import sys; sys.path.append(sys.argv[1]); from policyguard.environment.compiler_worker import serve; "
    "serve(sys.stdin.buffer, sys.stdout.buffer)"
)
_ISOLATED = ("-I", "-S", "-B", "-W", "ignore")
_WITHOUT_COLUMNS = ("-X", "no_debug_ranges")


class Interpreter(msgspec.Struct, frozen=True):
    """An interpreter's cache tag, version, and magic number in hex: `cpython-311`, `3.11.7`."""

    tag: str
    version: str
    magic: str

    @property
    def name(self) -> str:
        """A text that is unique to this interpreter's byte code."""
        return f"{self.tag} {self.version} {self.magic}"


def own_interpreter() -> Interpreter:
    tag, version = sys.implementation.cache_tag, sys.version.split(" ", 1)[0]
    return Interpreter(tag, version, importlib.util.MAGIC_NUMBER.hex())


class _Lost(Exception):
    """The worker process ended or timed out."""


class Compiler:
    """One worker process, started at the first comparison and again after a crash. Not thread-safe."""

    def __init__(self, interpreter: str | None = None, *, answer_s: float = ANSWER_S) -> None:
        self._path = os.path.abspath(interpreter or sys.executable or "")
        self._answer_s = answer_s
        self._running: dict[tuple[str, ...], subprocess.Popen[bytes]] = {}
        self._interpreter = None if interpreter else own_interpreter()

    @property
    def interpreter(self) -> Interpreter:
        """Ask the interpreter to identify itself.

        Raises:
            EvidenceError: there is no such interpreter, or its version is not supported.
        """
        if self._interpreter is None:
            try:
                self._process(())
            except (_Lost, OSError, ValueError) as problem:
                raise EvidenceError(
                    f"`{printable_name(self._path)}`: found no Python 3.11 or newer to compile with"
                ) from problem
        assert self._interpreter is not None
        return self._interpreter

    def compare(self, source: bytes, path: str, level: int, bytecode: bytes) -> tuple[int, str]:
        """Compare byte code, without its header, with a source; `path` only appears in tracebacks.

        Code that was compiled without columns for tracebacks (`-X no_debug_ranges`) equals its source, too.

        Args:
            source: the source text.
            path: names the source in tracebacks.
            level: the optimisation level, 0 to 2.
            bytecode: the byte code without its header.
        """
        code, detail = self._ask((), source, path, level, bytecode)
        if code != UNLIKE:
            return code, detail
        without, _ = self._ask(_WITHOUT_COLUMNS, source, path, level, bytecode)
        return (EQUAL, "") if without == EQUAL else (code, detail)

    def close(self) -> None:
        """Stop the worker process."""
        for process in self._running.values():
            _end(process)
        self._running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, options: tuple[str, ...], source: bytes, path: str, level: int, bytecode: bytes) -> tuple[int, str]:
        where = os.fsencode(path)
        question = QUESTION.pack(level, len(where), len(source), len(bytecode)) + where + source + bytecode
        try:
            process = self._process(options)
            assert process.stdin is not None
            process.stdin.write(question)
            process.stdin.flush()
            return _answer(process, self._answer_s)
        # INVARIANT I17: whatever becomes of the compiler, what it did not call equal is not.
        except (_Lost, OSError, ValueError) as problem:
            if options in self._running:
                _end(self._running.pop(options))
            return LOST, f"the compiler gave no answer: {str(problem) or 'it ended'}"

    def _process(self, options: tuple[str, ...]) -> subprocess.Popen[bytes]:
        if options in self._running:
            return self._running[options]
        process = subprocess.Popen(
            [self._path, *_ISOLATED, *options, "-c", _START, _HOME],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            cwd="/",
        )
        self._running[options] = process
        code, name = _answer(process, self._answer_s)
        if code != HELLO or name.count(" ") != 2:
            raise _Lost("it is no interpreter")
        self._interpreter = Interpreter(*name.split(" "))
        return process


def _environment() -> dict[str, str]:
    """Build the worker's environment: only the library path, which some builds of Python need."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}


def _answer(process: subprocess.Popen[bytes], within_s: float) -> tuple[int, str]:
    deadline = time.monotonic() + within_s
    code, size = ANSWER.unpack(_bytes(process, ANSWER.size, deadline))
    if size > MAX_ANSWER_BYTES:
        raise _Lost("it said too much")
    return code, _bytes(process, size, deadline).decode("utf-8", "replace")


def _bytes(process: subprocess.Popen[bytes], size: int, deadline: float) -> bytes:
    assert process.stdout is not None
    received = b""
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    while len(received) < size:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise _Lost("it took too long")
        part = os.read(process.stdout.fileno(), size - len(received))
        if not part:
            raise _Lost("it ended")
        received += part
    return received


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            try:
                stream.close()
            except OSError:
                pass
    process.wait()
