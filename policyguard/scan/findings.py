"""The result of scanning one file (verdict, format, imports, reasons), and the limits on the work.

`clean`: the file was read to the last byte that could carry code, and every part is explained. `unknown`: it cannot be
read, or contains something on no list. `hostile`: it contains a construct that runs code or deceives readers.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from policyguard.scan.reasons import REASONS as REASONS
from policyguard.scan.reasons import Verdict as Verdict
from policyguard.text import printable_ascii
from policyguard.values import FrozenMap

MAX_REASONS = 64
MAX_GLOBALS = 512
MAX_DIGESTS = 256
_RANK = {Verdict.CLEAN: 0, Verdict.UNKNOWN: 1, Verdict.HOSTILE: 2}


@dataclass(frozen=True, slots=True, order=True)
class Reason:
    """One thing that keeps a file from being clean: a code from `REASONS`, details, and where in the file.

    `where` is a path into settings (`$.model._target_`) or `line:column` of a text; empty where the format has neither.
    """

    code: str
    detail: str = ""
    where: str = ""

    @property
    def verdict(self) -> Verdict:
        return REASONS[self.code][0]

    @property
    def text(self) -> str:
        return f"{REASONS[self.code][1]}: {self.detail}" if self.detail else REASONS[self.code][1]


MAX_DETAIL_CHARS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on the work for one file; beyond one, the verdict is `unknown` with the limit's reason code."""

    decompressed_bytes: int = 4 * 2**30
    free_ratio_bytes: int = 64 * 2**20
    """Up to this size, any compression ratio is accepted: zeros compress 1000 to 1."""
    ratio: int = 200
    depth: int = 4
    opcodes: int = 4_000_000
    members: int = 200_000
    time_s: float = 60.0
    text_bytes: int = 64 * 2**20


DEFAULT_LIMITS = Limits()


class Exhausted(Exception):
    """A limit was reached; `code` is its reason code."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


class LayoutProblem(ValueError):
    """The file does not fit together as its format requires; the text says how."""


@dataclass(slots=True)
class Findings:
    """The reasons and imports collected by one scan, and what is left of the limits."""

    limits: Limits = DEFAULT_LIMITS
    extra_globals: frozenset[tuple[str, str]] = frozenset()
    clock: Callable[[], float] = time.monotonic
    globals: set[str] = field(default_factory=set)
    reasons: set[Reason] = field(default_factory=set)
    pickled: bool = False
    name: str = ""
    """The name of the file, or of the part being read; it can only make a verdict stricter."""
    templates: set[str] = field(default_factory=set)
    configurations: set[str] = field(default_factory=set)
    decompressed_bytes: int = 0
    opcodes: int = 0
    deadline: float = 0.0

    def __post_init__(self) -> None:
        self.deadline = self.clock() + self.limits.time_s

    def add(self, code: str, detail: str = "", where: str = "") -> None:
        """Record a reason; the verdict can only get worse.

        Args:
            code: a key of `REASONS`.
            detail: what it is about, such as the name of what is imported.
            where: a path into settings, or `line:column`; empty where the format has neither.
        """
        verdict, _ = REASONS[code]
        # A hostile reason is never dropped, even if the list is full.
        if len(self.reasons) < MAX_REASONS or (verdict is Verdict.HOSTILE and self.verdict is not Verdict.HOSTILE):
            texts = printable_ascii(detail, MAX_DETAIL_CHARS), printable_ascii(where, MAX_DETAIL_CHARS)
            self.reasons.add(Reason(code, *texts))

    def import_of(self, name: str) -> None:
        """Record that a pickle imports `name`."""
        if len(self.globals) < MAX_GLOBALS:
            self.globals.add(printable_ascii(name, MAX_DETAIL_CHARS))

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Scan a part of the file under this name; the names of settings and templates make a verdict stricter."""
        outer, self.name = self.name, name.replace("\\", "/").rpartition("/")[2]
        try:
            yield
        finally:
            self.name = outer

    def template(self, text: str) -> None:
        """Record the digest of a chat template."""
        self._add_digest(self.templates, text.encode("utf-8", "surrogatepass"), "chat templates")

    def configuration(self, data: bytes) -> None:
        """Record the digest of a settings text."""
        self._add_digest(self.configurations, data, "settings texts")

    def _add_digest(self, digests: set[str], data: bytes, what: str) -> None:
        digest = hashlib.sha256(data).hexdigest()
        # INVARIANT I18: a policy pins all of them; one that is not on the list must show.
        if len(digests) >= MAX_DIGESTS and digest not in digests:
            self.add("ckpt.too_large", f"more than {MAX_DIGESTS} {what}")
        else:
            digests.add(digest)

    def spend_opcodes(self, count: int) -> None:
        """Count opcodes; raise `Exhausted` beyond the limit."""
        self.opcodes += count
        if self.opcodes > self.limits.opcodes:
            raise Exhausted("ckpt.too_large", f"more than {self.limits.opcodes} pickle opcodes")
        self.check_time()

    def spend_bytes(self, count: int, packed: int) -> None:
        """Count decompressed bytes; raise `Exhausted` beyond the limit of size or ratio."""
        self.decompressed_bytes += count
        limits = self.limits
        if self.decompressed_bytes > limits.decompressed_bytes:
            raise Exhausted("ckpt.too_large", f"more than {limits.decompressed_bytes} bytes after decompression")
        if self.decompressed_bytes > max(limits.free_ratio_bytes, limits.ratio * packed):
            raise Exhausted("ckpt.too_compressed", f"more than {limits.ratio} to 1")
        self.check_time()

    def check_time(self) -> None:
        """Raise `Exhausted` if the time is up."""
        if self.clock() > self.deadline:
            raise Exhausted("ckpt.timeout", f"{self.limits.time_s:g} s")

    @property
    def verdict(self) -> Verdict:
        return max((reason.verdict for reason in self.reasons), key=_RANK.__getitem__, default=Verdict.CLEAN)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointScan:
    """The result of scanning one file.

    `sha256` is empty when the file could not be read to its end. `owner_uid`, `mode` (permission bits) and the two
    directory flags describe the file that was opened and the folder it lies in; -1 and False where nothing was opened.
    `pickled` says that some part is a pickle, however deeply packed. `templates` are the SHA-256 of every chat template
    in it, `configurations` those of every settings text, wherever they lie, so that a policy can pin them.
    """

    path: str
    verdict: Verdict
    format: str
    globals: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()
    pickled: bool = False
    templates: tuple[str, ...] = ()
    configurations: tuple[str, ...] = ()
    sha256: str = ""
    size_bytes: int = 0
    owner_uid: int = -1
    mode: int = 0
    dir_group_writable: bool = False
    dir_world_writable: bool = False

    def to_value(self) -> FrozenMap:
        """Convert the scan to a fact value, with reasons as codes."""
        return FrozenMap(
            path=self.path,
            verdict=self.verdict.value,
            format=self.format,
            globals=self.globals,
            reasons=tuple(sorted({reason.code for reason in self.reasons})),
            pickled=self.pickled,
            templates=self.templates,
            configurations=self.configurations,
            sha256=self.sha256,
            size_bytes=self.size_bytes,
            owner_uid=self.owner_uid,
            mode=self.mode,
            dir_group_writable=self.dir_group_writable,
            dir_world_writable=self.dir_world_writable,
        )


CODE_SUFFIXES = (
    *(".py", ".pyc", ".pyo", ".pyd", ".pyw", ".pyx", ".pyz", ".so", ".dll", ".dylib", ".sh", ".bash", ".ipynb", ".jar"),
    *(".js", ".exe", ".bat", ".cmd", ".ps1", ".whl", ".egg", ".rb", ".pl", ".lua", ".php", ".cu", ".cpp"),
    *(
        ".r",
        ".rmd",
        ".jl",
        ".gin",
        ".java",
        ".class",
        ".wasm",
        ".node",
        ".vbs",
        ".msi",
        ".mjs",
        ".cjs",
        ".zsh",
        ".fish",
        ".csh",
    ),
)
"""File names of code; a name can only make a verdict worse."""
