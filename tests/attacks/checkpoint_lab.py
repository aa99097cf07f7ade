"""Hostile checkpoints, built when the tests run; every one, if loaded, would call `print` or the like.

Each entry of `HOSTILE` is one technique; the name is a sentence about it. Techniques are those that the advisories of
picklescan, fickling and modelscan describe; nothing here is copied from their samples.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

MAGIC = 0x1950A86A20F9469CFC6C


def text(value: str) -> bytes:
    data = value.encode()
    return b"\x8c" + bytes([len(data)]) + data


def calls(module: str, name: str, argument: str = "x") -> bytes:
    """A protocol 0 pickle that calls `module.name(argument)`."""
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


def calls_stacked(module: str, name: str) -> bytes:
    return b"\x80\x04" + text(module) + text(name) + b"\x93" + text("x") + b"\x85R."


EVIL = calls("os", "system")


def zipped(members: dict[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, method)
    return file.getvalue()


def torch_zip(data: bytes, **members: bytes) -> bytes:
    return zipped({"archive/data.pkl": data, "archive/version": b"3\n", **members})


def tensor_pickle(count: int = 2, *, key: str = "0") -> bytes:
    """What torch writes for one float tensor of `count` elements."""
    persistent = b"(" + _binary("storage") + b"ctorch\nFloatStorage\n" + _binary(key) + _binary("cpu")
    persistent += b"J" + struct.pack("<i", count) + b"tQ"
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + persistent + b"K\x00" + b"K\x02\x85K\x01\x85\x89"
    return b"\x80\x02" + rebuilt + b"ccollections\nOrderedDict\n)RtR."


def _binary(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def tarred(members: dict[str, bytes], link: str | None = None) -> bytes:
    return tarred_pairs(list(members.items()), link)


def tarred_pairs(members: list[tuple[str, bytes]], link: str | None = None) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
    return file.getvalue()


def npy(pickled: bytes, descr: object = "|O") -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': (1,), }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + pickled


def patched(data: bytes, old: bytes, new: bytes, count: int = 1) -> bytes:
    assert old in data
    return data.replace(old, new, count)


def flagged(data: bytes, bits: int) -> bytes:
    """The archive with the flag bits of every central header set."""
    changed, at = bytearray(data), data.find(b"PK\x01\x02")
    while at >= 0:
        changed[at + 8] |= bits
        at = data.find(b"PK\x01\x02", at + 4)
    return bytes(changed)


def safetensors(header: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def safetensors_polyglot() -> bytes:
    """Valid safetensors; a pickle reader takes the header length for a text and reads on inside the metadata.

    The length is `X` and a text length. JSON text holds no control characters and no stray bytes, so each opcode above
    0x7f hides as the second byte of a character whose first is the argument of BINPUT, and names have 32 letters.
    """
    length = 0x58 | 0x60 << 8
    start = b'{"__metadata__":{"a":"'
    start += b" " * (5 + 0x60 - 8 - len(start))
    code = b"q\xc2\x8c(torch.utils.data.datapipes.utils.decoder"
    code += b"q\xc2\x8c a_name_that_is_32_characters_lonq\xc2\x93Nq\xc2\x85R."
    return safetensors((start + code + b'"}}').ljust(length), b"")


def joblib_polyglot() -> bytes:
    """An array of eight bytes for joblib, without padding; for a plain reader its bytes are opcodes."""
    code = b"cos\nsystem\n(Vx\ntR."
    wrapper = b"\x80\x04" + text("joblib.numpy_pickle") + text("NumpyArrayWrapper") + b"\x93)\x81}("
    wrapper += text("subclass") + text("numpy") + text("ndarray") + b"\x93"
    wrapper += text("shape") + b"K" + bytes([len(code)]) + b"\x85" + text("order") + text("C")
    wrapper += text("dtype") + text("numpy") + text("dtype") + b"\x93" + text("u1") + b"\x89\x88\x87R"
    wrapper += text("allow_mmap") + b"\x89ub"
    return wrapper + code + b"."


def legacy(main: bytes, keys: list[str], storages: bytes = b"") -> bytes:
    head = b"".join(pickle.dumps(part, 2) for part in (MAGIC, 1001, {"little_endian": True}))
    return head + main + pickle.dumps(keys, 2) + storages


def module_pickle(module: str, name: str) -> bytes:
    """What torch's older layout wrote for an object of a whole model: its class comes with its source, by Q."""
    persistent = b"(" + _binary("module") + f"c{module}\n{name}\n".encode() + _binary("a.py") + _binary("x = 1") + b"tQ"
    return b"\x80\x02" + persistent + b")\x81}" + _binary("training") + b"\x88sb."


def nested(levels: int) -> bytes:
    data = EVIL
    for _ in range(levels):
        data = zipped({"inner.zip": data})
    return data


GOOD = tensor_pickle()
STORAGE = {"archive/data/0": b"\0" * 8}

HOSTILE: dict[str, Callable[[], bytes]] = {
    "a call of os.system": lambda: EVIL,
    "a call with protocol 4": lambda: calls_stacked("os", "system"),
    "a call of posix.system": lambda: calls("posix", "system"),
    "a call of builtins.eval": lambda: calls("builtins", "eval"),
    "a call of exec by its Python 2 name": lambda: calls("__builtin__", "exec"),
    "a call of subprocess.Popen": lambda: calls("subprocess", "Popen"),
    "an import hook, importlib.import_module": lambda: calls("importlib", "import_module"),
    "a dotted name on a listed module": lambda: calls_stacked("collections", "OrderedDict.__init__.__globals__"),
    "getattr": lambda: calls("builtins", "getattr"),
    "operator.attrgetter": lambda: calls("operator", "attrgetter"),
    "operator.methodcaller": lambda: calls("operator", "methodcaller"),
    "functools.partial": lambda: calls("functools", "partial"),
    "a nested pickle.loads": lambda: calls("pickle", "loads"),
    "a torch gadget, torch.hub.load": lambda: calls("torch.hub", "load"),
    "a torch gadget, torch.load": lambda: calls("torch", "load"),
    "a numpy gadget, runstring": lambda: calls("numpy.testing._private.utils", "runstring"),
    "a joblib gadget, joblib.load": lambda: calls("joblib", "load"),
    "pip.main": lambda: calls("pip", "main"),
    "a file written, logging.FileHandler": lambda: calls("logging", "FileHandler"),
    "a connection, socket.create_connection": lambda: calls("socket", "create_connection"),
    "a module of a newer Python": lambda: calls("_pyrepl.pager", "pipe_pager"),
    "a module of an older Python": lambda: calls("commands", "getoutput"),
    "INST": lambda: b"(Vx\nios\nsystem\n.",
    "OBJ": lambda: b"(cos\nsystem\nVx\no.",
    "NEWOBJ": lambda: b"\x80\x02cos\nsystem\nVx\n\x85\x81.",
    "NEWOBJ_EX": lambda: b"\x80\x04cos\nsystem\n)}\x92.",
    "EXT1": lambda: b"\x80\x02\x82\x01.",
    "EXT2": lambda: b"\x80\x02\x83\x01\x00.",
    "EXT4": lambda: b"\x80\x02\x84\x01\x00\x00\x00.",
    "a name taken from the memo": lambda: (
        b"\x80\x04"
        + text("os")
        + b"\x94"
        + text("system")
        + b"\x940"
        + b"0"
        + b"h\x00h\x01\x93"
        + text("x")
        + b"\x85R."
    ),
    "a name computed by a call": lambda: (
        b"\x80\x04cbuiltins\nstr\n" + text("os") + b"\x85R" + text("system") + b"\x93."
    ),
    "a name that is no text": lambda: b"\x80\x04K\x01K\x02\x93.",
    "a name from old 8-bit text": lambda: b"\x80\x02U\x02osU\x06system\x93Vx\n\x85R.",
    "a name with an escape that pickletools undoes": lambda: b"ccoll\\x65ctions\nOrderedDict\n)R.",
    "a module with a space, two names for a splitter": lambda: b"ccollections OrderedDict\nx\n)R.",
    "a call of a computed value": lambda: b"\x80\x02ccollections\nOrderedDict\n)R)R.",
    "a state given to a class": lambda: b"\x80\x02ccollections\nOrderedDict\n}Vx\nK\x01sb.",
    "a special attribute given to an object": lambda: b"\x80\x02ccollections\nOrderedDict\n)R}V__class__\nK\x01sb.",
    "items put into something that is no map": lambda: b"\x80\x02ctorch\nSize\n)RVx\nK\x01s.",
    "a persistent id": lambda: b"\x80\x02Vx\nQ.",
    "a persistent id as a line": lambda: b"Px\n.",
    "an unusual codec": lambda: b"c_codecs\nencode\n(Vx\nVevil\ntR.",
    "a reader function passed on as a factory": lambda: (
        b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(ctorch.storage\n_load_from_bytes\nctorch\nTensor\n(Vx\nt}tR."
    ),
    "a hostile pickle inside _load_from_bytes": lambda: (
        b"\x80\x03ctorch.storage\n_load_from_bytes\nC" + bytes([len(EVIL)]) + EVIL + b"\x85R."
    ),
    "a call before a broken end": lambda: EVIL[:-1] + b"\xff\xff",
    "a call and no end": lambda: EVIL[:-1],
    "a second pickle after a harmless one": lambda: pickle.dumps({"a": 1}) + EVIL,
    "bytes after the pickle": lambda: pickle.dumps({"a": 1}) + b"garbage",
    "an argument over the end of its frame": lambda: (
        b"\x80\x05\x95" + struct.pack("<Q", 2) + b"B" + struct.pack("<I", 20) + b"\0" * 20 + b"."
    ),
    "values left behind": lambda: b"\x80\x04]" + b"2" * 150 + b".",
    "a frame in a frame": lambda: b"\x80\x05\x95" + struct.pack("<Q", 12) + b"N\x95" + struct.pack("<Q", 2) + b"0N.",
    "a billion references": lambda: b"\x80\x04]" + b"(" * 9 + b"N" + (b"2" * 9 + b"t") * 9 + b"a.",
    "out-of-band buffers": lambda: b"\x80\x05\x97.",
    "a call in a torch zip": lambda: torch_zip(EVIL),
    "a call in a torch zip, deflated": lambda: zipped({"archive/data.pkl": EVIL}, method=zipfile.ZIP_DEFLATED),
    "a torch zip with a wrong checksum": lambda: patched(torch_zip(GOOD, **STORAGE), b"\x80\x02c", b"\x80\x03c"),
    "an encrypted bit that is a lie": lambda: flagged(torch_zip(EVIL), 0x1),
    "an encrypted harmless member": lambda: flagged(torch_zip(GOOD, **STORAGE), 0x1),
    "a patch-data bit": lambda: flagged(torch_zip(GOOD, **STORAGE), 0x20),
    "a strong-encryption bit": lambda: flagged(torch_zip(GOOD, **STORAGE), 0x40),
    "a member renamed in its own header": lambda: patched(
        torch_zip(GOOD, **STORAGE), b"archive/data.pkl", b"archive/datA.pkl"
    ),
    "two members of one name": lambda: patched(
        zipped({"archive/data.pkl": GOOD, "archive/dat2.pkl": GOOD, **STORAGE}), b"dat2.pkl", b"data.pkl", 2
    ),
    "two members that differ in case": lambda: zipped({"archive/data.pkl": GOOD, "archive/DATA.PKL": EVIL, **STORAGE}),
    "data.pkl in a second folder": lambda: zipped({"archive/data.pkl": GOOD, "other/data.pkl": EVIL, **STORAGE}),
    "junk before the archive": lambda: b"junk" * 8 + torch_zip(GOOD, **STORAGE),
    "a pickle before the archive": lambda: EVIL + torch_zip(GOOD, **STORAGE),
    "bytes after the archive": lambda: torch_zip(GOOD, **STORAGE) + b"\0" * 40,
    "a pickle where a storage should be": lambda: torch_zip(GOOD, **STORAGE, **{"archive/data/1": EVIL}),
    "a member that torch does not write": lambda: torch_zip(GOOD, **STORAGE, **{"archive/run.py": b"print()"}),
    "a storage smaller than its tensor": lambda: torch_zip(tensor_pickle(1000), **STORAGE),
    "a storage that is not there": lambda: torch_zip(GOOD),
    "a name that leaves the folder": lambda: zipped({"../../home/x.npy": npy(b"\0" * 8, "<f8")}),
    "a zip in a zip": lambda: nested(2),
    "zips nested without end": lambda: nested(12),
    "a tar with a pickle": lambda: tarred({"model.pkl": EVIL}),
    "a tar with two members of one name": lambda: tarred_pairs([("a.json", b"{}"), ("a.json", b"[]")]),
    "a module in a zip": lambda: zipped({"handler.py": b"x = 1"}),
    "a tar with a module": lambda: tarred({"handler.py": b"x = 1"}),
    "a tar with a link": lambda: tarred({"a.npy": npy(b"\0" * 8, "<f8")}, link="model.pt"),
    "a tar in a zip": lambda: zipped({"a.tar": tarred({"model.pkl": EVIL})}),
    "a gzipped tar": lambda: gzip.compress(tarred({"model.pkl": EVIL})),
    "torch's tar layout": lambda: tarred(
        {"sys_info": pickle.dumps({}), "pickle": EVIL, "storages": pickle.dumps(0), "tensors": pickle.dumps(0)}
    ),
    "torch's legacy layout": lambda: legacy(EVIL, []),
    "torch's legacy layout, storages that lie": lambda: legacy(GOOD, ["0"], struct.pack("<q", 1) + b"\0" * 4),
    "torch's legacy layout, bytes after": lambda: legacy(GOOD, ["0"], struct.pack("<q", 2) + b"\0" * 8 + EVIL),
    "zlib": lambda: zlib.compress(EVIL),
    "gzip": lambda: gzip.compress(EVIL),
    "bz2": lambda: bz2.compress(EVIL),
    "xz": lambda: lzma.compress(EVIL),
    "lzma": lambda: lzma.compress(EVIL, format=lzma.FORMAT_ALONE),
    "lz4, not read": lambda: b"\x04\x22\x4d\x18" + b"\0" * 40,
    "a second gzip stream": lambda: gzip.compress(pickle.dumps(1)) + gzip.compress(EVIL),
    "an object array": lambda: npy(EVIL),
    "an object array in a record": lambda: npy(EVIL, [("a", "<f4"), ("b", "|O")]),
    "an object array in an npz": lambda: zipped({"a.npy": npy(EVIL)}),
    "an npy of other length than it says": lambda: npy(b"\0" * 80, "<f8"),
    "an npy with a pickle behind it": lambda: npy(b"\0" * 8 + EVIL, "<f8"),
    "array bytes that are opcodes": joblib_polyglot,
    "safetensors with bytes behind": lambda: safetensors(b"{}", EVIL),
    "safetensors with a key twice": lambda: safetensors(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"x",
    ),
    "safetensors with a hole": lambda: safetensors(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', b"xx"),
    "safetensors with an overlap": lambda: safetensors(
        b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
        b"xx",
    ),
    "safetensors with an unknown dtype": lambda: safetensors(
        b'{"a":{"dtype":"OBJ","shape":[1],"data_offsets":[0,1]}}', b"x"
    ),
    "safetensors with a header beyond the file": lambda: struct.pack("<Q", 10**7) + b"{}" + b" " * 600,
    "a safetensors file that is also a pickle": safetensors_polyglot,
    "a tar whose first name is a pickle": lambda: tarred({"cos\nsystem\n(Vx\ntR.": b""}),
    "an array that ends as a zip": lambda: npy(torch_zip(EVIL), f"|S{len(torch_zip(EVIL))}"),
    "a safetensors file that ends as a zip": lambda: safetensors(
        b'{"a":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % ((len(torch_zip(EVIL)),) * 2), torch_zip(EVIL)
    ),
    "YAML that names Python": lambda: b"a: !!python/object/apply:os.system [x]\n",
    "a chat template that asks for a class": lambda: b'{"chat_template": "{{ m.__class__.__mro__ }}"}',
    "a chat template that spells its underscores": lambda: b'{"t": ["{{ m[\'\\\\x5f\\\\x5fclass\\\\x5f\\\\x5f\'] }}"]}',
    "a chat template behind braces in a string": lambda: b'{"t": "{{ \'}}\' ~ m.__init__ }}"}',
    "a chat template given twice": lambda: b'{"t": "{{ m.__init__ }}", "t": "{{ m }}"}',
    "a chat template that uses the attr filter": lambda: b"{% set x = m | attr('x') %}",
    "a template file that asks for globals": lambda: b"{% for m in ms %}{{ m.__init__.__globals__ }}{% endfor %}",
    "a class of a legacy model that is a function": lambda: legacy(module_pickle("os", "system"), []),
    "a shell script": lambda: b"#!/bin/sh\necho\n",
    "SQLite, not read": lambda: b"SQLite format 3\0" + b"\0" * 40,
    "HDF5 of nothing": lambda: b"\x89HDF\r\n\x1a\n" + b"\0" * 40,
    "GGUF of nothing": lambda: b"GGUF" + b"\0" * 40,
    "random bytes": lambda: bytes(range(255, 0, -1)),
    "nothing": lambda: b"",
}

CERTAIN = {name for name in HOSTILE if name.startswith(("a call of", "INST", "OBJ", "NEWOBJ", "EXT"))}
"""Those that must be called hostile, not merely unknown."""
