"""Changes fixtures at random, so that a scanner and a loader may disagree: opcodes, headers, numbers, containers."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence

_OPCODES = b"(.012FIJKLMNPQRSTUVXabcdeghijlopqrstu})]\x80\x81\x85\x86\x87\x88\x89\x8c\x93\x94\x95"
_NUMBERS = (b"I0x1\n", b"I01\n", b"L1L\n", b"I1\0\n", b"K\x01", b"J\xff\xff\xff\x7f", b"\x8a\x01\x05", b"F1\n")
_WORDS = (b"os", b"system", b"builtins", b"dtype", b"O8", b"u1", b"numpy", b"shape", b"PK\x03\x04", b"\x93NUMPY")


def mutated(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Change a file in one to five places, and sometimes pack it.

    Args:
        data: the file.
        others: files whose parts may be put into it.
        rng: where the chances come from.
    """
    for _ in range(rng.randint(1, 5)):
        data = rng.choice(_EDITS)(data, others, rng)
    return rng.choice(_PACKS)(data) if rng.random() < 0.1 else data


def _at(data: bytes, rng: random.Random) -> int:
    return rng.randrange(len(data) + 1)


def _byte(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    at = _at(data, rng)
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def _opcode(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    at = _at(data, rng)
    return data[:at] + bytes([rng.choice(_OPCODES)]) + data[at + rng.randint(0, 1) :]


def _number(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    at = _at(data, rng)
    return data[:at] + rng.choice(_NUMBERS) + data[at:]


def _word(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    at, word = _at(data, rng), rng.choice(_WORDS)
    return data[:at] + word + data[at + rng.choice((0, len(word))) :]


def _cut(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    start, stop = sorted((_at(data, rng), _at(data, rng)))
    return data[:start] + data[min(stop, start + 40) :]


def _again(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    start, stop = sorted((_at(data, rng), _at(data, rng)))
    return data[:stop] + data[start:stop][:200] + data[stop:]


def _splice(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    other = rng.choice(others)
    start, at = rng.randrange(len(other)), _at(data, rng)
    return data[:at] + other[start : start + rng.randint(1, 120)] + data[at:]


_EDITS: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (
    _byte,
    _opcode,
    _number,
    _word,
    _cut,
    _again,
    _splice,
)


def _zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return file.getvalue()


def _tarred(data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("data.pkl")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


_PACKS: tuple[Callable[[bytes], bytes], ...] = (gzip.compress, zlib.compress, _zipped, _tarred)
