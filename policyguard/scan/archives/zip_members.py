"""Reads the content of a member of a zip archive, and its checksum."""

from __future__ import annotations

from policyguard.scan.archives.compressed import PackedBroken, unpacked
from policyguard.scan.archives.zip import DEFLATED, STORED, Member, checksum
from policyguard.scan.findings import Findings
from policyguard.scan.source import Source


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


def check_sum(member: Member, content: Source, findings: Findings) -> None:
    """Add a finding if the content has another checksum than the archive says.

    Args:
        member: the member.
        content: its content.
        findings: takes what is found.
    """
    if checksum(content, findings) != member.crc:
        findings.add("ckpt.archive_crc", member.name)


def is_folder(member: Member, findings: Findings) -> bool:
    """Return True for the entry of a folder; one with content is a finding."""
    if not member.name.endswith("/"):
        return False
    if member.size or member.data.size:
        findings.add("ckpt.archive_mismatch", f"{member.name}: a folder with content")
    return True
