"""Zip archives: every member must be accounted for, by the format of the archive or by its own content.

The caller lists the formats that an archive may have: `registry.py` has one row for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from policyguard.scan.archives.zip import Directory, Member, NoZip, archives, members
from policyguard.scan.archives.zip_members import check_sum, content_of, is_folder
from policyguard.scan.findings import CODE_SUFFIXES, Findings, Verdict
from policyguard.scan.formats.containers import Inner
from policyguard.scan.source import Source

_SMALL = 2**20
_RAW = ("npy", "safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipLayout:
    """How the archives of one format are recognised, and what is checked besides their members.

    `claims` returns True for an archive of the format, after it has checked the parts that only this format has.
    `scan` then reads all members, and may return the name of a variant; without it, each is read by its own content.
    An archive that nobody claims is of the format that `holds` nothing but members of one other, and several archives
    in one file are of the format that is a `series_of` another.
    """

    claims: Callable[[Sequence[Member], Findings], bool] | None = None
    scan: Callable[[Sequence[Member], Findings, Inner], str] | None = None
    holds: str = ""
    series_of: str = ""


Layouts = Mapping[str, ZipLayout]
"""The layouts by the names of their formats, in the order in which they give an archive its name."""


def scan_zip(source: Source, findings: Findings, inner: Inner, layouts: Layouts) -> str:
    """Scan a file that ends as a zip archive; return its format, `zip` if no other.

    Args:
        source: the bytes to scan.
        findings: takes what is found.
        inner: scans a file inside this one.
        layouts: what formats an archive may be of.
    """
    try:
        directories = archives(source)
    except NoZip:
        findings.add("ckpt.archive_broken", "no zip directory at the end, or bytes before the archive")
        return "zip"
    kinds = [_scan_archive(directory, findings, inner, layouts) for directory in directories]
    if len(kinds) > 1:
        return next((name for name, one in layouts.items() if {one.series_of} == set(kinds)), "zip")
    return kinds[0]


def _scan_archive(directory: Directory, findings: Findings, inner: Inner, layouts: Layouts) -> str:
    listed = members(directory, findings)
    # INVARIANT I18: each format that the archive may be of checks its own parts, whichever gives the archive its name.
    claimed = [name for name, one in layouts.items() if one.claims and one.claims(listed, findings)]
    if claimed and (scan := layouts[claimed[0]].scan) is not None:
        return scan(listed, findings, inner)
    kinds = {scan_member(member, findings, inner) for member in listed if not is_folder(member, findings)}
    if claimed:
        return claimed[0]
    return next((name for name, one in layouts.items() if {one.holds} == kinds), "zip")


def scan_member(member: Member, findings: Findings, inner: Inner) -> str:
    """Scan a member by its own content; return its format.

    Args:
        member: the member.
        findings: takes what is found.
        inner: scans a file inside this one.
    """
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
    # Large plain arrays are not read to their end for a checksum: the file's own digest covers them.
    if content.size <= _SMALL or kind not in _RAW or findings.pickled:
        check_sum(member, content, findings)
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
