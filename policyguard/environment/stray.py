"""Byte code in `__pycache__` of a repository that Python may load and that is not what its source gives.

Byte code that import never loads is left out: without a source, or with a header that does not fit it. The rest is
compared with its source; what cannot be compared, as that of another Python, counts as different.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterable

from policyguard.environment.bytecode import check_bytecode, head_of, is_loaded, sources_of
from policyguard.environment.compiler import own_interpreter
from policyguard.environment.compilers import MAX_SOURCE_BYTES
from policyguard.environment.listing import MAX_BYTECODE_BYTES, Listing
from policyguard.errors import EvidenceError
from policyguard.fs.safe_open import read_small
from policyguard.text import printable_name

_KNOWN_HEADER = re.compile(r"\.(?:cpython-3(?:[7-9]|[1-9][0-9])t?|pypy[0-9]+)(?:\.opt-[0-9A-Za-z]+)?\.pyc\Z")
"""Names whose header has the form of PEP 552; that of older versions is not compared."""

_equal: dict[str, Listing] = {}
"""By repository, the byte code that was equal to its source, with both digests, so that it is compiled only once."""


def foreign_bytecode(root: str, paths: Iterable[bytes], deadline: float) -> list[bytes]:
    """List the byte code that Python may load and that differs from its source, or cannot be compared.

    Args:
        root: the top folder of the repository.
        paths: byte code in `__pycache__`, relative to it.
        deadline: a time of `time.monotonic()` after which nothing is read.

    Raises:
        EvidenceError: it takes too long.
    """
    foreign: dict[bytes, None] = {}
    listing = Listing(os.path.realpath(root), {})
    names: dict[str, bytes] = {}
    for path in paths:
        if time.monotonic() > deadline:
            raise EvidenceError("comparing the byte code of the repository took too long", help="delete `__pycache__`")
        try:
            name = os.fsdecode(path)
            if os.path.basename(name) == "__pycache__" or not _is_comparable(listing, name):
                foreign[path] = None
            elif name in listing.bytecode:
                names[name] = path
        except EvidenceError:
            foreign[path] = None
    known = _equal.get(listing.root, Listing(listing.root, {}))
    report = check_bytecode(listing, known.bytecode, known.files)
    _equal[listing.root] = Listing(listing.root, listing.files, report.equal)
    return [*foreign, *(names[finding.name] for finding in report.findings)]


def _is_comparable(listing: Listing, name: str) -> bool:
    """Add byte code that Python may load, and its source, to the listing; False if it cannot be compared."""
    sources = [source for source in sources_of(name) if os.path.isfile(listing.path(source))]
    if not sources:
        return True
    head = head_of(listing.path(name))
    if _KNOWN_HEADER.search(name):
        sources = [source for source in sources if is_loaded(head, listing.path(source))]
        if not sources:
            return True
    if f".{own_interpreter().tag}." not in name or name != printable_name(name):
        return False
    listing.bytecode[name] = _digest(listing.path(name), MAX_BYTECODE_BYTES)
    for source in sources:
        listing.files[source] = _digest(os.path.realpath(listing.path(source)), MAX_SOURCE_BYTES)
    return True


def _digest(path: str, limit_bytes: int) -> str:
    return f"sha256:{hashlib.sha256(read_small(path, limit_bytes)).hexdigest()}"
