"""Compares many byte code files with their sources, in several worker processes.

Both files are read here, compared with the digests of the listing, and passed on as bytes: the worker processes open no
file.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from policyguard.environment.compiler import Compiler
from policyguard.environment.compiler_worker import LOST
from policyguard.environment.listing import MAX_BYTECODE_BYTES, Listing
from policyguard.errors import EvidenceError
from policyguard.fs.safe_open import open_resolved, read_all, read_small

HEADER_BYTES = 16
MAX_SOURCE_BYTES = 32 << 20

MAX_LOST = 8
"""After this many crashes in a row, the remaining files count as not compared."""

UNREAD = 7
"""Result of a comparison whose source or byte code cannot be read; the compiler is not asked."""

_WORTH_A_PROCESS = 16
"""The number of comparisons that take about as long as starting another process."""

Progress = Callable[[int, int], None]
"""Called with the number of comparisons done, and their total."""


class Comparison(msgspec.Struct, frozen=True):
    """A byte code file, the source it was compiled from, and the optimisation level."""

    name: str
    source: str
    level: int


def compare_all(
    listing: Listing, comparisons: Sequence[Comparison], interpreter: str | None, progress: Progress | None
) -> list[tuple[Comparison, int, str]]:
    """Run all comparisons, with one worker process per core.

    Args:
        listing: the listed files.
        comparisons: the comparisons.
        interpreter: the path of the interpreter; None for this one.
        progress: is called as the work proceeds.
    """
    waiting, results, lock = iter(comparisons), list[tuple[Comparison, int, str]](), threading.Lock()

    def work() -> None:
        with Compiler(interpreter) as compiler:
            while True:
                with lock:
                    comparison = next(waiting, None)
                    is_lost = sum(code == LOST for _, code, _ in results[-MAX_LOST:]) == MAX_LOST
                if comparison is None:
                    return
                answer = (LOST, "the compiler failed too often") if is_lost else _compare(listing, comparison, compiler)
                with lock:
                    results.append((comparison, *answer))
                    if progress is not None:
                        progress(len(results), len(comparisons))

    count = min(len(os.sched_getaffinity(0)), 1 + len(comparisons) // _WORTH_A_PROCESS)
    with ThreadPoolExecutor(count, thread_name_prefix="policyguard-compile") as pool:
        for future in [pool.submit(work) for _ in range(count)]:
            future.result()
    return results


def _compare(listing: Listing, comparison: Comparison, compiler: Compiler) -> tuple[int, str]:
    """Compare one byte code file with its source; refuse files that changed since they were listed."""
    path = listing.path(comparison.source)
    try:
        bytecode = read_small(listing.path(comparison.name), MAX_BYTECODE_BYTES)
        source = _read_source(path)
    except EvidenceError as problem:
        return UNREAD, problem.message
    read = (_sha256(bytecode), _sha256(source))
    # INVARIANT I17: what is compared is what was listed, to the byte.
    if read != (listing.bytecode[comparison.name], source_digest(listing, comparison.source)):
        return UNREAD, "changed while it was measured"
    return compiler.compare(source, path, comparison.level, bytecode[HEADER_BYTES:])


def _read_source(path: str) -> bytes:
    descriptor, status, _ = open_resolved(path)
    try:
        if status.st_size > MAX_SOURCE_BYTES:
            raise EvidenceError(f"the source: found {status.st_size} bytes, expected at most {MAX_SOURCE_BYTES}")
        content = bytearray()
        read_all(descriptor, status, path, content.extend)
        return bytes(content)
    finally:
        os.close(descriptor)


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def source_digest(listing: Listing, source: str) -> str:
    """Return the digest of a source file, links followed; empty if it does not exist."""
    digest = listing.files.get(source, "").rpartition(" ")[2]
    return digest if digest.startswith("sha256:") else ""
