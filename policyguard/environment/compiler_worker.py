"""The worker process of `compiler.py`: compiles sources and compares the resulting code.

Runs in its own process (`python -I -S -B`), so that a source that crashes the compiler affects nothing else. Nothing
that it reads is run or loaded: the source is compiled, and `marshal_reader.py` reads the byte code.

    question = level, size of path, of source and of byte code (4 bytes each, little endian), path, source, byte code
    answer   = code, size of detail (4 bytes each, little endian), detail

The first answer, before any question, names the interpreter: its cache tag, its version and its magic number.
"""

from __future__ import annotations

import importlib.util
import marshal
import struct
import sys
from typing import BinaryIO

from policyguard.environment.marshal_reader import MAX_DEPTH, Malformed, Numbers, TooDeep, read

QUESTION = struct.Struct("<IIII")
ANSWER = struct.Struct("<II")

EQUAL, UNLIKE, DAMAGED, NESTED, UNCOMPILABLE = range(5)
LOST, HELLO = 5, 6
"""Codes that are no result of a comparison: no answer, and the interpreter's name."""

MAX_MEMORY_BYTES = 4 << 30

_FRAMES = 1_000 + 3 * MAX_DEPTH
"""The recursion limit: two calls per nesting level, and some for the callers."""


def serve(requests: BinaryIO, responses: BinaryIO) -> None:
    """Answer requests until the input ends."""
    if sys.version_info < (3, 11) or sys.implementation.name != "cpython":
        return
    _limit_memory()
    name = f"{sys.implementation.cache_tag} {sys.version.split(' ', 1)[0]} {importlib.util.MAGIC_NUMBER.hex()}"
    _say(responses, HELLO, name)
    while head := requests.read(QUESTION.size):
        level, path, source, bytecode = QUESTION.unpack(head)
        where = requests.read(path).decode("utf-8", "surrogateescape")
        code, detail = compare(requests.read(source), where, level, requests.read(bytecode))
        _say(responses, code, detail)


def compare(source: bytes, path: str, level: int, bytecode: bytes) -> tuple[int, str]:
    """Compare byte code with what this interpreter compiles from the source; return a code and a detail.

    Args:
        source: the source text.
        path: names the source in tracebacks.
        level: the optimisation level, 0 to 2.
        bytecode: the byte code without its header.
    """
    try:
        # Held by a name, as importlib does: what only the writer holds is written otherwise, and compared the long way.
        code = compile(source, path, "exec", dont_inherit=True, optimize=level)
        made = marshal.dumps(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as problem:
        return UNCOMPILABLE, f"its source does not compile: {type(problem).__name__}"
    if made == bytecode:
        return EQUAL, ""
    # INVARIANT I16: byte code that somebody left is read by us, and never loaded: `marshal` trusts its input.
    numbers: Numbers = {}
    before = sys.getrecursionlimit()
    # Only while reading: the compiler derives its own stack limit from it.
    sys.setrecursionlimit(max(before, _FRAMES))
    try:
        return (EQUAL, "") if read(bytecode, numbers) == read(made, numbers) else (UNLIKE, "")
    except TooDeep as problem:
        return NESTED, str(problem)
    except Malformed as problem:
        return DAMAGED, str(problem)
    finally:
        sys.setrecursionlimit(before)


def _say(responses: BinaryIO, code: int, detail: str) -> None:
    data = detail.encode("utf-8", "backslashreplace")
    responses.write(ANSWER.pack(code, len(data)) + data)
    responses.flush()


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:
        return
    _, hard_limit = resource.getrlimit(resource.RLIMIT_AS)
    limit = MAX_MEMORY_BYTES if hard_limit == resource.RLIM_INFINITY else min(MAX_MEMORY_BYTES, hard_limit)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard_limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
