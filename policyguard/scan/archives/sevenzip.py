"""Reads 7z archives if the extra `scan` is installed; otherwise they are `unknown`, never clean."""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from typing import Any

from policyguard.scan.archives.compressed import PackedBroken
from policyguard.scan.archives.zip import leaves_folder, plain_name
from policyguard.scan.findings import Exhausted, Findings
from policyguard.scan.source import BytesSource, Source

MAGIC = b"7z\xbc\xaf\x27\x1c"
_LARGEST = 256 * 2**20


def seven_zip_members(source: Source, findings: Findings) -> list[tuple[str, Source]] | None:
    """List name and content of each file; None if no reader for 7z is installed.

    Raises:
        PackedBroken: the archive is damaged or encrypted.
        Exhausted: it holds more than is read.
    """
    try:
        py7zr = importlib.import_module("py7zr")
    except ImportError:
        return None
    if source.size > _LARGEST:
        raise Exhausted("ckpt.too_large", "7z archive")
    try:
        return _read(py7zr, source, findings)
    except Exhausted:
        raise
    except Exception as problem:  # noqa: BLE001 - a guest's parser on hostile bytes may raise anything
        raise PackedBroken(type(problem).__name__) from None


def _read(py7zr: Any, source: Source, findings: Findings) -> list[tuple[str, Source]]:
    with py7zr.SevenZipFile(io.BytesIO(source.read(0, source.size)), "r") as archive:
        if archive.needs_password():
            raise PackedBroken("encrypted")
        infos = archive.list()
        if len(infos) > findings.limits.members:
            raise Exhausted("ckpt.too_large", "7z members")
        total = sum(info.uncompressed for info in infos)
        if total > _LARGEST:
            raise Exhausted("ckpt.too_large", "7z content")
        findings.spend_bytes(total, source.size)
        _check_names(infos, findings)
        factory = py7zr.io.BytesIOFactory(_LARGEST)
        archive.extract(factory=factory)
    return [(name, BytesSource(_bytes(content))) for name, content in factory.products.items()]


def _check_names(infos: Sequence[Any], findings: Findings) -> None:
    """Add a finding for each name that leaves the folder, occurs twice, or belongs to a link."""
    seen: set[str] = set()
    for info in infos:
        if leaves_folder(info.filename):
            findings.add("ckpt.archive_path", info.filename)
        if getattr(info, "is_symlink", False):
            findings.add("ckpt.archive_link", info.filename)
        # INVARIANT I18: of two files with one name, a reader keeps the last one or the first.
        if (folded := plain_name(info.filename)) in seen:
            findings.add("ckpt.archive_duplicate", info.filename)
        seen.add(folded)


def _bytes(content: Any) -> bytes:
    content.seek(0)
    data: bytes = content.read()
    return data
