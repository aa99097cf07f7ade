"""Archives that show two readers two files, by the names of their members. Nothing here is ever unpacked."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
import zlib

import pytest

from policyguard.scan.content import scan_content
from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.source import BytesSource


def scanned(data: bytes) -> Findings:
    findings = Findings()
    scan_content(BytesSource(data), findings)
    return findings


def codes(data: bytes) -> set[str]:
    return {reason.code for reason in scanned(data).reasons}


def zip_of(name: str, extra: bytes = b"", *others: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.extra = extra
        archive.writestr(info, "{}")
        for other in others:
            archive.writestr(zipfile.ZipInfo(other), "{}")
    return file.getvalue()


def unicode_path(written: str, meant: str) -> bytes:
    """The Info-ZIP extra field that gives a member another name."""
    body = b"\x01" + struct.pack("<I", zlib.crc32(written.encode())) + meant.encode()
    return struct.pack("<2H", 0x7075, len(body)) + body


def test_a_unicode_path_that_differs_is_hostile() -> None:
    """Python 3.12 reads the extra field, Python 3.11 and torch the header."""
    assert "ckpt.archive_mismatch" in codes(zip_of("notes.json", unicode_path("notes.json", "config.json")))
    assert scanned(zip_of("notes.json", unicode_path("notes.json", "notes.json"))).verdict is Verdict.CLEAN


@pytest.mark.parametrize("other", ["./a.json", "a//../a.json", "A.JSON", "x/../a.json", ".//a.json"])
def test_two_names_of_one_file_are_hostile(other: str) -> None:
    """Unpacked, the second overwrites the first."""
    assert scanned(zip_of("a.json", b"", other)).verdict is Verdict.HOSTILE


def test_an_extra_field_without_an_end_is_not_clean() -> None:
    """Python refuses it, others read on."""
    assert codes(zip_of("a.json", b"\x99\x99\xff\x00ab")) >= {"ckpt.archive_name"}


def tar_of(*names: str, pax: dict[str, str] | None = None, kind: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = 2, pax or {}
            archive.addfile(info, io.BytesIO(b"{}"))
    return file.getvalue()


def raw_pax(records: bytes, kind: bytes = b"x") -> bytes:
    """An archive whose extended header is exactly this."""
    info = tarfile.TarInfo("pax")
    info.size, info.type = len(records), kind
    return info.tobuf(tarfile.USTAR_FORMAT) + records + b"\0" * (-len(records) % 512) + tar_of("ok.json")


def record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


PAX = {
    "a path behind a line break of a comment": raw_pax(record("path", "../../x") + record("comment", "a\n12 path=ok")),
    "a path in a comment": raw_pax(record("comment", "a\n15 path=../x")),
    "a path for all that follow": raw_pax(record("path", "../x"), b"g"),
    "a record without its end": raw_pax(b"99 path=../x\n"),
    "two paths": raw_pax(record("path", "a") + record("path", "b")),
    "a path with a zero byte": raw_pax(record("path", "ok\0/../x")),
    "a size": raw_pax(record("size", "1")),
    "a sparse name": raw_pax(record("GNU.sparse.name", "../x")),
    "another character set": raw_pax(record("hdrcharset", "BINARY")),
}


@pytest.mark.parametrize("name", PAX)
def test_an_extended_header_that_readers_split_differently_is_never_clean(name: str) -> None:
    """A record's length says where it ends, not a line break."""
    assert scanned(PAX[name]).verdict is not Verdict.CLEAN


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_ordinary_tar_archives_are_clean(kind: int) -> None:
    """The harmless twins: long names, accents, times of fractions of a second."""
    names = (
        "a.json",
        "folder/" + "b" * 90 + ".json",
        *(() if kind == tarfile.USTAR_FORMAT else ("c" * 200 + "é.json",)),
    )
    assert scanned(tar_of(*names, kind=kind)).verdict is Verdict.CLEAN
    if kind == tarfile.PAX_FORMAT:
        assert scanned(tar_of("a.json", pax={"mtime": "1.5", "comment": "one line"})).verdict is Verdict.CLEAN


@pytest.mark.parametrize(
    "pair", [("./a.json", "a.json"), ("a.json", "A.json"), ("a/b.json", "a//b.json"), ("é", "e\u0301")]
)
def test_two_names_of_one_file_in_a_tar_are_hostile(pair: tuple[str, str]) -> None:
    """NeMo takes `./model_config.yaml` or `model_config.yaml`, whichever it meets."""
    assert "ckpt.archive_duplicate" in codes(tar_of(*pair))


@pytest.mark.parametrize(("kind", "code"), [(tarfile.SYMTYPE, "ckpt.archive_link"), (b"V", "ckpt.archive_member")])
def test_links_are_hostile_and_other_types_unknown(kind: bytes, code: str) -> None:
    """A volume label or a sparse file deceives nobody, and is not read here."""
    info = tarfile.TarInfo("x")
    info.type, info.linkname = kind, "y"
    assert codes(info.tobuf(tarfile.USTAR_FORMAT) + tar_of("a.json")) == {code}


def test_a_keras_configuration_by_escapes_is_one() -> None:
    """JSON knows many spellings of a key."""
    text = json.dumps({"class_name": "Lambda", "config": {}}).replace("class_name", "cl\\u0061ss_name")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", text)
    assert "ckpt.keras_lambda" in codes(file.getvalue())
