"""Files made of pickles: plain ones, joblib's with arrays between opcodes, and torch's older layouts.

One reading is not enough: data that joblib reads as arrays is read as opcodes by `pickle.load`, so both readings must
be harmless (INVARIANT I18).
"""

from __future__ import annotations

from collections.abc import Callable

from policyguard.scan.findings import Exhausted, Findings
from policyguard.scan.pickles.allowlist import STORAGE_ITEM_BYTES
from policyguard.scan.pickles.arrays import item_type, items_of
from policyguard.scan.pickles.machine import Broken, Dialect, Machine, kind_of
from policyguard.scan.pickles.sparse import check_indexes
from policyguard.scan.pickles.values import NOTHING, Abstract, Import, Items, Made, Other, Stored
from policyguard.scan.source import Cursor, Source, Truncated, window

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
"""torch/serialization.py, `MAGIC_NUMBER` and `PROTOCOL_VERSION`."""

Nested = Callable[[Source], None]
_WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")
_WRAPPER_ENTRIES = {"subclass", "shape", "order", "dtype", "allow_mmap", "numpy_array_alignment_bytes"}
_ARRAY = Import("numpy", "ndarray")
_ALIGNMENT = 16


def read_one(cursor: Cursor, findings: Findings, dialect: Dialect) -> tuple[Machine, Abstract]:
    """Read the pickle at the cursor; return the machine and the value.

    A pickle that breaks is a finding and gives NOTHING.

    Args:
        cursor: where the pickle begins.
        findings: takes what is found.
        dialect: how the file's own reader differs from `pickle.load`.
    """
    machine = Machine(cursor, findings, dialect)
    try:
        value = machine.run()
    except Broken as problem:
        findings.add("ckpt.pickle_broken", f"{problem} near byte {cursor.position}")
        value = NOTHING
    except Truncated:
        findings.add("ckpt.truncated", "inside a pickle")
        value = NOTHING
    finally:
        findings.pickled = True
    return machine, value


def scan_whole(source: Source, findings: Findings, dialect: Dialect) -> Abstract:
    """Read a source that must be a single pickle, and return its value.

    Args:
        source: the bytes to scan.
        findings: takes what is found.
        dialect: how the file's own reader differs from `pickle.load`.
    """
    cursor = Cursor(source)
    _, value = read_one(cursor, findings, dialect)
    if value is not NOTHING and cursor.remaining:
        findings.add("ckpt.trailing_bytes", f"{cursor.remaining} bytes after the pickle")
        _scan_rest(cursor, findings, dialect)
    return value


def scan_pickles(source: Source, findings: Findings, nested: Nested) -> str:
    """Scan a file that begins with a pickle; return its format: `pickle`, `joblib` or `torch_legacy`.

    Args:
        source: the bytes to scan.
        findings: takes what is found.
        nested: scans what is packed inside.
    """
    joblib = _Joblib(findings)
    dialect = Dialect(built=joblib.built, nested=nested)
    joblib.dialect = dialect
    cursor = Cursor(source)
    _, value = read_one(cursor, findings, dialect)
    if type(value) is int and value == LEGACY_MAGIC:
        _scan_legacy(cursor, findings, nested)
        return "torch_legacy"
    if joblib.arrays and _reads_differently(source, findings, nested):
        findings.add("ckpt.polyglot", "array bytes that are opcodes for a plain reader")
    if value is not NOTHING and cursor.remaining:
        findings.add("ckpt.pickle_sequence", f"{cursor.remaining} bytes after the first pickle")
        _scan_rest(cursor, findings, dialect)
    return "joblib" if joblib.arrays else "pickle"


def probe(source: Source, findings: Findings) -> bool:
    """Return True if `pickle.load` of these bytes would import code that can run, or call an import.

    Asked of files of every format: the reader chooses how to read, not the format (INVARIANT I18).
    """
    return begins_as_program(_read_plainly(source, findings, None))


def begins_as_program(machine: Machine) -> bool:
    """Return True if the part that was read imports what can run code, or calls what it imports."""
    codes = {reason.code for reason in machine.findings.reasons}
    runs_code = bool(codes & {"ckpt.pickle_global", "ckpt.pickle_extension"})
    return machine.imported > 0 and (machine.called > 0 or runs_code)


_UNLISTED = "ckpt.pickle_unlisted"
_DIFFERENT = frozenset(f"ckpt.pickle_{what}" for what in ("global", "extension", "build", "unresolved", "reader"))
"""Reason codes that make a second reading of the same bytes dangerous."""


def _reads_differently(source: Source, findings: Findings, nested: Nested) -> bool:
    """Return True if a plain reading of a joblib file does harm that joblib's reading does not.

    A plain reader takes a pickled object array for the end of the file, with memo numbers of its own; so names get
    mixed up. An unlisted import made of parts that the proper reading imports too is such a mix and no module anywhere.
    """
    trial = _read_plainly(source, findings, nested).findings
    parts = {part for name in findings.globals for part in name.split(".")}
    unlisted = [f"a result of {reason.detail}"[:60] for reason in findings.reasons if reason.code == _UNLISTED]
    differing = {
        reason
        for reason in trial.reasons - findings.reasons
        # An object of a class that the proper reading cannot clear either, where a plain reader wants a name.
        if not (reason.code == "ckpt.pickle_unresolved" and reason.detail.startswith(tuple(unlisted)))
    }
    is_foreign = any(
        reason.code == _UNLISTED and not parts.issuperset(reason.detail.split(".")) for reason in differing
    )
    return is_foreign or any(reason.code in _DIFFERENT for reason in differing)


def _read_plainly(source: Source, findings: Findings, nested: Nested | None) -> Machine:
    trial = Findings(limits=findings.limits, extra_globals=findings.extra_globals, clock=findings.clock)
    machine = Machine(Cursor(source), trial, Dialect(nested=nested))
    try:
        machine.run()
    except Exhausted as limit:
        # A reading that does not end within limits has not been shown to be harmless.
        findings.add(limit.code, "in a second reading")
    except (Broken, Truncated):
        pass
    return machine


def _scan_rest(cursor: Cursor, findings: Findings, dialect: Dialect) -> None:
    while cursor.remaining:
        findings.check_time()
        _, value = read_one(cursor, findings, dialect)
        if value is NOTHING:
            return


class _Joblib:
    """joblib's dialect: after the BUILD of an array wrapper, the array's data follows in the file.

    Source: joblib 1.6 `numpy_pickle.py`, `NumpyArrayWrapper.read_array`.
    """

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.arrays = 0
        self.dialect = Dialect()

    def built(self, cursor: Cursor, target: Abstract) -> Abstract:
        if not (isinstance(target, Made) and isinstance(target.callee, Import) and target.callee.pair == _WRAPPER):
            return None
        entries = target.state.plain_map() if isinstance(target.state, Items) else None
        if entries is None or not _WRAPPER_ENTRIES.issuperset(entries):
            # joblib would take the shape and the dtype from attributes that this reading does not know.
            raise Broken("an array wrapper whose state is computed")
        self.arrays += 1
        item = item_type(entries.get("dtype"), self.findings)
        if item is None:
            raise Broken("an array wrapper without a dtype")
        if item.has_objects:
            # INVARIANT I18: joblib calls `pickle.load` here, which has a memo of its own and knows no wrappers.
            read_one(cursor, self.findings, Dialect(nested=self.dialect.nested))
            return Made(_ARRAY)
        count = items_of(entries.get("shape"))
        if count is None or not isinstance(entries.get("shape"), tuple):
            raise Broken("an array wrapper without a shape")
        if entries.get("numpy_array_alignment_bytes") is not None:
            padding = cursor.take(1)[0]
            if padding > _ALIGNMENT or cursor.take(padding).strip(b"\xff"):
                raise Broken("array padding that is not padding")
        cursor.skip(count * item.size)
        return Made(_ARRAY)


class Storages:
    """Torch's persistent ids: the storages of a checkpoint, and the number of bytes that each must have."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.bytes_of: dict[str, int] = {}
        self.item_bytes_of: dict[str, int] = {}
        self.indexed: list[Made] = []

    def persistent(self, value: Abstract) -> Abstract:
        """Record a storage and return a placeholder; an id of another form is a finding."""
        if isinstance(value, tuple) and len(value) == 4 and value[0] == "module" and isinstance(value[1], Import):
            # The older layout of a whole model keeps each class with its source; the reader returns the class.
            self.findings.add("ckpt.pickle_persistent_id", "a class of a whole model with its source")
            return value[1]
        if not (isinstance(value, tuple) and len(value) in (5, 6) and value[0] == "storage"):
            self.findings.add("ckpt.pickle_persistent_id", kind_of(value))
            return Other("persistent object")
        kind, key, count = value[1], value[2], value[4]
        item_bytes = STORAGE_ITEM_BYTES.get(kind.name) if isinstance(kind, Import) else None
        if item_bytes is None or type(key) not in (str, int) or type(count) is not int or count < 0:
            self.findings.add("ckpt.pickle_persistent_id", "a storage without type, key or size")
            return Other("persistent object")
        known = self.bytes_of.setdefault(str(key), count * item_bytes)
        self.item_bytes_of[str(key)] = item_bytes
        if known != count * item_bytes and len(value) == 5:
            self.findings.add("ckpt.storage_mismatch", f"storage {key} of two sizes")
        return Stored("storage", str(key), kind.name if isinstance(kind, Import) else "")

    def check_indexes(self, storage_of: Callable[[str], Source | None]) -> None:
        """Check the tensors whose indexes are data; `storage_of` returns a storage's bytes."""
        for tensor in self.indexed:
            check_indexes(tensor, storage_of, self.findings)


def _scan_legacy(cursor: Cursor, findings: Findings, nested: Nested) -> None:
    """Scan the layout before torch 1.6: magic, protocol, system info, object, storage keys, storages.

    Source: torch/serialization.py, `_legacy_load`.
    """
    storages = Storages(findings)
    plain = Dialect(nested=nested)
    _, protocol = read_one(cursor, findings, plain)
    if protocol != LEGACY_PROTOCOL:
        findings.add("ckpt.pickle_broken", "legacy torch file of another protocol")
    values: list[Abstract] = []
    stored = Dialect(persistent=storages.persistent, nested=nested, indexed=storages.indexed.append)
    for dialect in (plain, stored, plain):
        _, value = read_one(cursor, findings, dialect)
        if value is NOTHING:
            return
        values.append(value)
    keys = values[-1].items if isinstance(values[-1], Items) and values[-1].kind == "list" else None
    if keys is None or {str(key) for key in keys} != set(storages.bytes_of):
        findings.add("ckpt.storage_mismatch", "storage keys and tensors name different storages")
        return
    sources: dict[str, Source] = {}
    for key in keys:
        count = int.from_bytes(cursor.take(8), "little", signed=True)
        if count * storages.item_bytes_of[str(key)] != storages.bytes_of[str(key)]:
            findings.add("ckpt.storage_mismatch", f"storage {key}")
            return
        size = storages.bytes_of[str(key)]
        sources[str(key)] = window(cursor.source, cursor.skip(size), size)
    storages.check_indexes(sources.get)
    if cursor.remaining:
        findings.add("ckpt.trailing_bytes", f"{cursor.remaining} bytes after the storages")


def scan_torch_tar(members: dict[str, Source], findings: Findings) -> None:
    """Scan torch's first layout, a tar of `storages`, `tensors`, `pickle` and `sys_info`.

    Source: torch/serialization.py, `legacy_load`.
    """
    if "sys_info" in members:
        scan_whole(members["sys_info"], findings, Dialect())
    _scan_interleaved(members["storages"], findings, _skip_storage)
    if "tensors" in members:
        _scan_interleaved(members["tensors"], findings, _skip_tensor)
    scan_whole(members["pickle"], findings, Dialect(persistent=lambda _: Other("tensor")))


def _scan_interleaved(source: Source, findings: Findings, skip: Callable[[Cursor, Abstract], None]) -> None:
    """Read a count, then as many pickles, each followed by raw data."""
    cursor = Cursor(source)
    _, count = read_one(cursor, findings, Dialect())
    if type(count) is not int or not 0 <= count <= findings.limits.members:
        findings.add("ckpt.pickle_broken", "a count that is none")
        return
    for _ in range(count):
        findings.check_time()
        _, value = read_one(cursor, findings, Dialect())
        if value is NOTHING:
            return
        skip(cursor, value)
    if skip is _skip_storage and cursor.remaining:
        read_one(cursor, findings, Dialect())
    if cursor.remaining:
        findings.add("ckpt.trailing_bytes", f"{cursor.remaining} bytes")


def _skip_storage(cursor: Cursor, value: Abstract) -> None:
    kind = value[2] if isinstance(value, tuple) and len(value) == 3 else None
    item_bytes = STORAGE_ITEM_BYTES.get(kind.name) if isinstance(kind, Import) else None
    if item_bytes is None:
        raise Broken("a storage without a type")
    cursor.skip(int.from_bytes(cursor.take(8), "little", signed=True) * item_bytes)


def _skip_tensor(cursor: Cursor, _: Abstract) -> None:
    dimensions = int.from_bytes(cursor.take(4), "little", signed=True)
    cursor.skip(4)
    cursor.skip(8 * (2 * dimensions + 1))
