"""Changes fixtures at random, so that a scanner and a loader may disagree: opcodes, headers, keys, containers."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import json
import lzma
import pickletools
import random
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence

_OPCODES = b"(.012FIJKLMNPQRSTUVXabcdeghijlopqrstu})]\x80\x81\x85\x86\x87\x88\x89\x8c\x93\x94\x95"
_NUMBERS = (b"I0x1\n", b"I01\n", b"L1L\n", b"I1\0\n", b"K\x01", b"J\xff\xff\xff\x7f", b"\x8a\x01\x05", b"F1\n")
_WORDS = (b"os", b"system", b"builtins", b"dtype", b"O8", b"u1", b"numpy", b"shape", b"PK\x03\x04", b"\x93NUMPY")
_SNIPPETS = (
    *(
        b"cos\nsystem\n",
        b"(S'true'\ntR",
        b"\x8c\x02os\x8c\x06system\x93",
        b"\x8c\x04true\x85R",
        b"(S'true'\nios\nsystem\n",
    ),
    *(b"cbuiltins\ngetattr\n", b"cposix\nsystem\n", b"ccopyreg\n_reconstructor\n", b"c__builtin__\neval\n", b"(V1\nt"),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n"),
    *(b"ccollections\nOrderedDict\n)R", b"ctorch.storage\n_load_from_bytes\n", b"c_codecs\nencode\n", b"\x82\x01"),
    *(
        b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81",
        b"}X\x01\x00\x00\x00aK\x01sb",
        b"Q",
        b"Pos\n",
        b"\x95\x05" + b"\0" * 7,
    ),
    *(b"(cos\nsystem\nS'true'\no", b"\x92", b"\x81", b"b", b"0", b"2", b"1", b"h\0", b"q\0", b"\x94", b"p0\n", b"g0\n"),
    *(
        b"(",
        b"t",
        b"d",
        b"l",
        b"]",
        b"}",
        b")",
        b"N",
        b".",
        b"e",
        b"u",
        b"s",
        b"a",
        b"R",
        b"\x8f",
        b"\x90",
        b"\x97",
        b"\x98",
    ),
)
_NAMING = (
    *("_target_", "class_path", "_component_", "py/object", "py/reduce", "py/function", "path", "type", "auto_map"),
    *("()", "<<", "_args_", "_partial_", "_recursive_", "_convert_", "chat_template"),
)
_TARGETS = (
    *("os.system", "posix.system", "subprocess.call", "builtins.exec", "pathlib.os.system", "torch.nn.Linear", "eval"),
    *(
        "hydra.utils.get_method",
        "logging.os.system",
        "torch.hub.os.system",
        "shutil.rmtree",
        "torch.nn.modules.os.system",
    ),
)
_TAGS = (
    *("!!python/object/apply:os.system", "!!python/name:os.system", "!!python/module:os", "!!python/tuple", "!x"),
    *("!!python%2Fobject/new:os.system", "!<tag:yaml.org,2002:python/object/apply:os.system>", "!!python/object:os.x"),
    *(
        "!!python/object/new:subprocess.Popen",
        "&a",
        "*a",
        "? ",
        "- ",
        "!!str",
        "!!map",
        "!!python/object/apply:posix.system",
    ),
)
_BLOCKS = (
    *("{{ ''.__class__ }}", "{{ cycler.__init__.__globals__.os.popen('true') }}", "{% set x = lipsum %}", "{# x #}"),
    *(
        "{{ x|attr('__class__') }}",
        "{{ messages[0]['role'] }}",
        "{{ x['__cl' ~ 'ass__'] }}",
        "{%- for m in messages %}",
    ),
    *("{{ namespace.__init__.__globals__['os'].system('true') }}", "{% endfor %}", "{{ range(9)|join }}", "{% raw %}"),
)
_STRING = re.compile(rb'"(?:[^"\\\n]|\\.){0,60}"')


def mutated(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Change a file in one to five places, in its parts too, and sometimes pack it.

    Args:
        data: the file.
        others: files whose parts may be put into it.
        rng: where the chances come from.
    """
    if rng.random() < 0.6 and (changed := _inside(data, others, rng)) is not None:
        return changed
    edits = _TEXT_EDITS if _is_text(data) and rng.random() < 0.8 else _EDITS
    for _ in range(rng.randint(1, 5)):
        data = rng.choice(edits)(data, others, rng)
    return rng.choice(_PACKS)(data) if rng.random() < 0.1 else data


def _is_text(data: bytes) -> bool:
    return b"\0" not in data[:512] and data[:256].isascii() and b"\n" in data


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


def _header(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    """Change a byte of a header: the beginning, or behind a signature of zip."""
    marks = [0, *(found.start() for found in re.finditer(rb"PK(?:\x01\x02|\x03\x04|\x05\x06|\x06\x06)", data))]
    at = rng.choice(marks) + rng.randrange(64)
    return data[:at] + bytes([rng.choice((0, 1, 8, 0xFF, rng.randrange(256)))]) + data[at + 1 :]


def _parts(data: bytes) -> list[bytes]:
    """Split a pickle at its opcodes, as far as it can be read."""
    places: list[int] = []
    try:
        for _, _, place in pickletools.genops(data):
            places.append(place or 0)
            if len(places) > 20_000:
                break
    except Exception:  # noqa: BLE001 - whatever is no pickle has the parts that were read
        pass
    places = [*places, len(data)] if places else [0, len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(places)]


def _instructions(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Move, repeat, drop and insert whole opcodes."""
    parts = _parts(data)
    for _ in range(rng.randint(1, 4)):
        at, other = rng.randrange(len(parts) + 1), rng.randrange(len(parts) or 1)
        match rng.randrange(6):
            case 0:
                del parts[at : at + rng.randint(1, 3)]
            case 1 if parts:
                parts[at:at] = parts[other : other + rng.randint(1, 12)]
            case 2 if parts and at < len(parts):
                parts[at], parts[other] = parts[other], parts[at]
            case 3:
                source = _parts(rng.choice(others)[:20_000])
                start = rng.randrange(len(source))
                parts[at:at] = source[start : start + rng.randint(1, 12)]
            case _:
                parts[at:at] = [rng.choice(_SNIPPETS) for _ in range(rng.randint(1, 3))]
    return b"".join(parts)


_EDITS: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (
    *(_byte, _opcode, _number, _word, _cut, _again, _splice, _header),
    *(_instructions, _instructions, _instructions, _instructions),
)


# --- text ------------------------------------------------------------------------------------------------------------


def _respelled(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    """Write a text between quotes in another way."""
    found = list(_STRING.finditer(data))
    if not found:
        return data
    match = rng.choice(found)
    text = match[0][1:-1].decode("utf-8", "replace")
    forms = (
        '"'
        + "".join(f"\\u{ord(char):04x}" if ord(char) < 65536 and rng.random() < 0.5 else char for char in text)
        + '"',
        '"' + "".join(f"\\x{ord(char):02x}" if ord(char) < 128 and rng.random() < 0.5 else char for char in text) + '"',
        "'" + text + "'",
        text,
        "? " + text + "\n",
        json.dumps(json.dumps({text: text})),
        '"' + text + "\u200b" + '"',
    )
    return data[: match.start()] + rng.choice(forms).encode("utf-8", "surrogatepass") + data[match.end() :]


def _named(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    """Insert an entry that names code, at the beginning of a map."""
    key, target = rng.choice(_NAMING), rng.choice(_TARGETS)
    places = [match.end() for match in re.finditer(rb"\{", data)]
    if places and rng.random() < 0.7:
        at, rest = rng.choice(places), rng.choice(("", ' "_args_": ["true"],'))
        return data[:at] + f'"{key}": "{target}",{rest} '.encode() + data[at:]
    lines = [0, *(match.end() for match in re.finditer(rb"\n *", data))]
    at = rng.choice(lines)
    indent = b"\n" + b" " * (at - data.rfind(b"\n", 0, at) - 1)
    return data[:at] + f"{key}: {target}".encode() + indent + b"_args_: ['true']" + indent + data[at:]


def _tagged(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    places = [match.end() for match in re.finditer(rb"[:,\[-] ?", data)] or [0]
    at = rng.choice(places)
    argument = rng.choice(("", "['true'] ", "{args: ['true']} "))
    return data[:at] + f" {rng.choice(_TAGS)} {argument}".encode() + data[at:]


def _block(data: bytes, _: Sequence[bytes], rng: random.Random) -> bytes:
    at = _at(data, rng)
    return data[:at] + rng.choice(_BLOCKS).encode() + data[at:]


def _line(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Move or repeat a line, or take one from another file."""
    lines = data.splitlines(keepends=True) or [b""]
    other = rng.choice(others)
    source = other.splitlines(keepends=True) if _is_text(other) else lines
    at = rng.randrange(len(lines) + 1)
    lines[at : at + rng.randrange(2)] = [
        rng.choice(source)[:2_000],
        *rng.choice(((), (b"---\n",), (b"...\n",), (b"%YAML 1.1\n",))),
    ]
    return b"".join(lines)


_TEXT_EDITS: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (
    *(_respelled, _respelled, _named, _named, _named, _tagged, _tagged, _block, _line, _byte, _cut, _again, _splice),
)


# --- containers ------------------------------------------------------------------------------------------------------


def _inside(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes | None:
    """Change a part of a container and pack it again, with checksums and lengths that fit; None for no container."""
    try:
        if zipfile.is_zipfile(io.BytesIO(data)):
            return _inside_zip(data, others, rng)
        for unpack, pack in _PACKED:
            if (plain := _unpacked(data, unpack)) is not None:
                return pack(mutated(plain, others, rng))
        if data[257:262] == b"ustar":
            return _inside_tar(data, others, rng)
        if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data):
            return _inside_safetensors(data, others, rng)
    except Exception:  # noqa: BLE001 - a damaged container is changed as bytes
        return None
    return None


def _unpacked(data: bytes, unpack: Callable[[bytes], bytes]) -> bytes | None:
    try:
        return unpack(data)[: 2**20]
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError):
        return None


_PACKED: tuple[tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]], ...] = (
    (gzip.decompress, gzip.compress),
    (bz2.decompress, bz2.compress),
    (lzma.decompress, lzma.compress),
    (zlib.decompress, zlib.compress),
)


def _inside_zip(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = rng.randrange(len(members))
    name, content = members[at]
    match rng.randrange(8):
        case 0:
            members[at] = (
                rng.choice((name.upper(), "./" + name, "../" + name, name + "/", name[1:], "code/x.py")),
                content,
            )
        case 1:
            members.insert(rng.randrange(len(members) + 1), (name, rng.choice(others)))
        case 2:
            del members[at]
        case _:
            pickles = [index for index, (one, _) in enumerate(members) if one.endswith((".pkl", ".json", ".yaml"))]
            at = rng.choice(pickles) if pickles and rng.random() < 0.8 else at
            name, content = members[at]
            members[at] = (name, mutated(content, others, rng) if content else b"x")
    file = io.BytesIO()
    with zipfile.ZipFile(
        file, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return file.getvalue()


def _inside_tar(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        infos = archive.getmembers()
        chosen = rng.randrange(len(infos) or 1)
        style = rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
        with tarfile.open(fileobj=file, mode="w", format=style) as changed:
            for index, info in enumerate(infos):
                part = archive.extractfile(info) if info.isfile() else None
                content = part.read() if part else b""
                if index == chosen:
                    content = mutated(content, others, rng) if content and rng.random() < 0.7 else content
                    info.name = rng.choice((info.name, info.name, "./" + info.name, "../" + info.name, "x" * 120))
                    info.type = rng.choice((info.type, info.type, info.type, tarfile.SYMTYPE, tarfile.LNKTYPE))
                    info.pax_headers = rng.choice(({}, {"path": "../x"}, {"comment": "a\nb"}))
                    info.linkname = info.linkname or rng.choice(("", "..", "/tmp"))
                info.size = len(content) if info.isfile() else 0
                changed.addfile(info, io.BytesIO(content))
    return file.getvalue()


def _inside_safetensors(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = rng.choice((_respelled, _named, _byte, _again, _block))(data[8 : 8 + length], others, rng)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


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


_PACKS: tuple[Callable[[bytes], bytes], ...] = (
    gzip.compress,
    zlib.compress,
    bz2.compress,
    lzma.compress,
    _zipped,
    _tarred,
)
