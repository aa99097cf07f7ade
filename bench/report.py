"""What a run says: sections of rows, targets met or missed, the machine; as aligned text, Markdown or JSON."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """A promise: `measured` must be at most `limit` (at least, for `floor`)."""

    says: str
    measured: float
    limit: float
    floor: bool = False

    @property
    def met(self) -> bool:
        return self.measured >= self.limit if self.floor else self.measured <= self.limit


@dataclass(slots=True)
class Section:
    """One table: `rows` of cells under `headers`, and the promises that its numbers decide."""

    title: str
    headers: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the numbers come from."""

    cpu: str
    cores: int
    system: str
    python: str
    load: float

    @classmethod
    def here(cls) -> Machine:
        """Return this machine, with the one-minute load at this moment."""
        return cls(
            cpu=_cpu(),
            cores=os.cpu_count() or 1,
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            python=f"{platform.python_implementation()} {platform.python_version()}",
            load=round(os.getloadavg()[0], 2),
        )

    def __str__(self) -> str:
        return f"{self.cpu}, {self.cores} cores, {self.system}, {self.python}, load {self.load}"


def us(value: float) -> str:
    """Return microseconds with three digits that mean something, in ms from one millisecond on."""
    return f"{value / 1000:,.3g} ms" if 1_000 <= value < 1_000_000 else _digits(value)


def _digits(value: float) -> str:
    return f"{value / 1_000_000:.2f} s" if value >= 1_000_000 else f"{value:.3g} us"


def times(ratio: float) -> str:
    """Return a ratio as a factor: `1.27x`, `31x`, `5,400x`."""
    if ratio >= 100:
        return f"{float(f'{ratio:.3g}'):,.0f}x"
    return f"{ratio:.3g}x"


def text(section: Section) -> str:
    """Return the section as an aligned table for a terminal."""
    rows = [section.headers, *section.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(section.headers))]
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([section.title, "", *lines, *_after(section)])


def markdown(section: Section) -> str:
    """Return the section as a Markdown table under a heading."""
    bars = ["| " + " | ".join(row) + " |" for row in [section.headers, *section.rows]]
    bars.insert(1, "|---|" + "---:|" * (len(section.headers) - 1))
    after = _after(section)
    return "\n".join([f"## {section.title}", "", *bars, *(["", *(f"- {line}" for line in after)] if after else [])])


def as_data(sections: Iterable[Section], machine: Machine, versions: Sequence[str], seed: int) -> dict[str, Any]:
    """Return a whole run as JSON-able data."""
    return {
        "machine": asdict(machine),
        "versions": list(versions),
        "seed": seed,
        "sections": [
            asdict(section) | {"targets": [asdict(target) | {"met": target.met} for target in section.targets]}
            for section in sections
        ],
    }


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def _after(section: Section) -> list[str]:
    return [*section.notes, *(_promise(target) for target in section.targets)]


def _promise(target: Target) -> str:
    word = "at least" if target.floor else "at most"
    return f"{'met' if target.met else 'MISSED'}: {target.says}: {target.measured:,.3g}, {word} {target.limit:,.3g}"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if sys.platform == "linux" and info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
