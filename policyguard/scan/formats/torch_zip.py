"""Checkpoints in zip archives (torch, numpy's npz, plain zip): every member must be accounted for."""

from __future__ import annotations

import json
from collections.abc import Sequence

from policyguard.scan.archives.compressed import PackedBroken, unpacked
from policyguard.scan.archives.zip import (
    DEFLATED,
    STORED,
    Directory,
    Member,
    NoZip,
    archives,
    checksum,
    members,
    plain_name,
)
from policyguard.scan.findings import CODE_SUFFIXES, Findings, Verdict
from policyguard.scan.formats.containers import Inner
from policyguard.scan.formats.keras import MAX_CONFIG, check_config_text
from policyguard.scan.formats.names import check_pickle_name
from policyguard.scan.formats.skops import MAX_SCHEMA, SCHEMA, check_schema
from policyguard.scan.formats.torch_export import MAX_GRAPH, check_graph, is_export
from policyguard.scan.formats.torchscript import MAX_CODE, check_script
from policyguard.scan.pickles.files import Storages, scan_whole
from policyguard.scan.pickles.machine import Dialect
from policyguard.scan.source import Source

_SMALL = 2**20
_RAW = ("npy", "safetensors")
_TORCH_NOTES = ("version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id")
"""Members that torch 1.6 to 2.13 writes beside pickle and storages; each is a line of text."""


def scan_zip(source: Source, findings: Findings, inner: Inner) -> str:
    """Scan a file that ends as a zip archive; return its format, `zip` if no other.

    Args:
        source: the bytes to scan.
        findings: takes what is found.
        inner: scans a file inside this one.
    """
    try:
        directories = archives(source)
    except NoZip:
        findings.add("ckpt.archive_broken", "no zip directory at the end, or bytes before the archive")
        return "zip"
    kinds = [_scan_archive(directory, findings, inner) for directory in directories]
    if len(kinds) > 1:
        return "torch_shard" if set(kinds) == {"torch_zip"} else "zip"
    return kinds[0]


def _scan_archive(directory: Directory, findings: Findings, inner: Inner) -> str:
    listed = members(directory, findings)
    roots = [member.name.partition("/")[0] for member in listed if member.name.casefold().endswith("/data.pkl")]
    if roots:
        return _scan_torch(listed, roots, findings, inner)
    is_keras = any(_is_keras(member, findings) for member in listed if member.name == "config.json")
    is_skops = any(_is_skops(member, findings) for member in listed if plain_name(member.name) == SCHEMA)
    is_program = is_export([member.name for member in listed])
    if is_program:
        _scan_program(listed, findings)
    kinds = {_scan_member(member, findings, inner) for member in listed if not _is_folder(member, findings)}
    if is_keras or is_skops or is_program:
        return "keras" if is_keras else "skops" if is_skops else "torch_export"
    return "npz" if kinds and kinds <= {"npy"} else "zip"


def _is_keras(member: Member, findings: Findings) -> bool:
    """Return True if Keras rebuilds a model from the configuration; check the classes that it names."""
    content = content_of(member, findings)
    if content is None or content.size > MAX_CONFIG or not _names_class(data := content.read(0, content.size)):
        return False
    check_config_text(data, findings)
    return True


def _is_skops(member: Member, findings: Findings) -> bool:
    """Return True if skops rebuilds a model from this schema; what it names is checked here."""
    content = content_of(member, findings)
    if content is None or content.size > MAX_SCHEMA:
        return False
    data = content.read(0, content.size)
    return check_schema(data, findings)


def _scan_program(listed: Sequence[Member], findings: Findings) -> None:
    findings.add("ckpt.format_opaque", "a program of torch.export, whose graph names functions")
    for member in listed:
        if member.name.endswith(".json") and (content := content_of(member, findings)) is not None:
            check_graph(content.read(0, MAX_GRAPH), findings)


def _names_class(data: bytes) -> bool:
    """Return True if some key is `class_name`, in any spelling."""
    try:
        return '"class_name"' in json.dumps(json.loads(data))
    except (ValueError, RecursionError):
        return b"class_name" in data


def _is_folder(member: Member, findings: Findings) -> bool:
    if not member.name.endswith("/"):
        return False
    if member.size or member.data.size:
        findings.add("ckpt.archive_mismatch", f"{member.name}: a folder with content")
    return True


def content_of(member: Member, findings: Findings) -> Source | None:
    """Read a member; None, with a finding, if it cannot be read."""
    if member.method == STORED:
        if member.size != member.data.size:
            findings.add("ckpt.archive_mismatch", f"{member.name}: stored in two sizes")
        return member.data
    if member.method != DEFLATED:
        findings.add("ckpt.compression_unknown", f"{member.name}: zip method {member.method}")
        return None
    try:
        content = unpacked(member.data, "deflate", findings)
    except PackedBroken:
        findings.add("ckpt.archive_broken", member.name)
        return None
    if content.size != member.size:
        findings.add("ckpt.archive_mismatch", f"{member.name}: {content.size} bytes, expected {member.size}")
    return content


def _scan_member(member: Member, findings: Findings, inner: Inner) -> str:
    if member.name.casefold().endswith(CODE_SUFFIXES):
        findings.add("ckpt.code_file", member.name)
    if member.encrypted:
        return _scan_encrypted(member, findings, inner)
    content = content_of(member, findings)
    if content is None:
        return "unknown"
    if not content.size:
        return "empty"
    pickled, findings.pickled = findings.pickled, False
    with findings.inside(member.name):
        kind = inner(content, findings)
    check_pickle_name(member.name, kind, findings)
    # Large plain arrays are not read to their end for a checksum: the file's own digest covers them.
    if content.size <= _SMALL or kind not in _RAW or findings.pickled:
        _check_sum(member, content, findings)
    findings.pickled |= pickled
    return kind


def _scan_encrypted(member: Member, findings: Findings, inner: Inner) -> str:
    """Scan the stored bytes as if they were not encrypted, because torch ignores that flag.

    Only hostile results count.
    """
    trial = Findings(limits=findings.limits, extra_globals=findings.extra_globals, clock=findings.clock)
    content = content_of(member, trial)
    kind = inner(content, trial) if content is not None else "unknown"
    pickled = [reason for reason in trial.reasons if reason.code.startswith("ckpt.pickle_")]
    if not any(reason.verdict is Verdict.HOSTILE for reason in pickled):
        return "unknown"
    for reason in pickled:
        findings.add(reason.code, reason.detail)
    findings.globals |= trial.globals
    return kind


def _check_sum(member: Member, content: Source, findings: Findings) -> None:
    if checksum(content, findings) != member.crc:
        findings.add("ckpt.archive_crc", member.name)


def _scan_torch(listed: Sequence[Member], roots: Sequence[str], findings: Findings, inner: Inner) -> str:
    """Scan torch's layout: one folder with `data.pkl`, `data/<key>` for each storage, and lines of text.

    Source: torch/serialization.py `_save` and `_load`; caffe2/serialize/inline_container.cc.
    """
    root = listed[0].name.partition("/")[0]
    if set(roots) != {root}:
        findings.add("ckpt.archive_member", "data.pkl outside the first folder")
    storages = Storages(findings)
    rest: dict[str, Member] = {}
    for member in listed:
        name = member.name.removeprefix(f"{root}/")
        if name.casefold() == "data.pkl":
            _scan_data_pickle(member, storages, findings, inner)
        else:
            rest[name] = member
    stored = {key: rest[f"data/{key}"] for key in storages.bytes_of if f"data/{key}" in rest}
    notes = rest.get("byteorder")
    for key, expected in storages.bytes_of.items():
        storage = rest.pop(f"data/{key}", None)
        # INVARIANT I18: a storage holds exactly the bytes its tensors claim (CVE-2026-24747 read beyond).
        if storage is None or storage.size != expected or (storage.method == STORED and storage.data.size != expected):
            findings.add("ckpt.storage_mismatch", f"data/{key}")
    storages.check_indexes(lambda key: _storage(stored.get(key), notes, findings))
    for name, member in rest.items():
        _scan_other(name, member, findings, inner)
    return "torchscript" if any(name.startswith("code/") or name == "constants.pkl" for name in rest) else "torch_zip"


def _storage(member: Member | None, byte_order: Member | None, findings: Findings) -> Source | None:
    """Return the bytes of a storage in the byte order that this scan reads: little-endian."""
    if member is None or (byte_order is not None and byte_order.data.read(0, 64) != b"little"):
        return None
    return content_of(member, findings)


def _scan_data_pickle(member: Member, storages: Storages, findings: Findings, inner: Inner) -> None:
    content = content_of(member, findings)
    if content is None:
        return
    _check_sum(member, content, findings)

    def nested(part: Source) -> None:
        inner(part, findings)

    scan_whole(
        content, findings, Dialect(persistent=storages.persistent, nested=nested, indexed=storages.indexed.append)
    )


def _is_script(name: str) -> bool:
    return name.casefold().startswith("code/") or name.casefold() == "constants.pkl"


def _scan_script(name: str, member: Member, findings: Findings) -> None:
    findings.add("ckpt.torchscript", name)
    if name.casefold().endswith(".py") and (content := content_of(member, findings)) is not None:
        check_script(content.read(0, MAX_CODE), findings)


def _scan_other(name: str, member: Member, findings: Findings, inner: Inner) -> None:
    if _is_script(name):
        _scan_script(name, member, findings)
        return
    if name in _TORCH_NOTES and member.method == STORED and member.size <= 64:
        content = member.data.read(0, 64)
        if content.isascii() and content.decode().strip().replace("\n", "").isprintable():
            _check_sum(member, member.data, findings)
            return
    if not _is_folder(member, findings):
        findings.add("ckpt.archive_member", member.name)
        _scan_member(member, findings, inner)
