"""torch's zip archives (since 1.6): one folder with `data.pkl`, a file for each storage, and lines of text.

Source: torch/serialization.py `_save` and `_load`; caffe2/serialize/inline_container.cc.
"""

from __future__ import annotations

from collections.abc import Sequence

from policyguard.scan.archives.zip import STORED, Member
from policyguard.scan.archives.zip_members import check_sum, content_of, is_folder
from policyguard.scan.findings import Findings
from policyguard.scan.formats.containers import Inner
from policyguard.scan.formats.torchscript import MAX_CODE, check_script
from policyguard.scan.formats.zip_files import scan_member
from policyguard.scan.pickles.files import Storages, scan_whole
from policyguard.scan.pickles.machine import Dialect
from policyguard.scan.source import Source

_TORCH_NOTES = ("version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id")
"""Members that torch 1.6 to 2.13 writes beside pickle and storages; each is a line of text."""


def is_torch(listed: Sequence[Member], _: Findings) -> bool:
    """Return True for an archive with `data.pkl` in a folder, in any case, as torch's reader finds it."""
    return any(_is_root(member) for member in listed)


def _is_root(member: Member) -> bool:
    return member.name.casefold().endswith("/data.pkl")


def scan_torch(listed: Sequence[Member], findings: Findings, inner: Inner) -> str:
    """Scan every member of torch's layout; return `torch_zip`, or `torchscript` if there is code in it.

    Args:
        listed: the members.
        findings: takes what is found.
        inner: scans a file inside this one.
    """
    root = listed[0].name.partition("/")[0]
    if {member.name.partition("/")[0] for member in listed if _is_root(member)} != {root}:
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
    check_sum(member, content, findings)

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
            check_sum(member, member.data, findings)
            return
    if not is_folder(member, findings):
        findings.add("ckpt.archive_member", member.name)
        scan_member(member, findings, inner)
