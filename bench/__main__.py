"""`python -m bench`: measure everything in one run and print it.

    python -m bench [--quick] [--only NAME]... [--sizes 10,100,...] [--peers NAME,...] [--json FILE] [--markdown FILE]

All numbers of a table come from the same run; nothing comes from an earlier one. Exit 1 if a promise is missed and
`--strict` is given.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from bench import confinement, decide, loading, memory, peers, signing, soak
from bench.report import Machine, Section, as_data, markdown, text
from bench.workload import SEED, SIZES

OURS = ("policyguard-engine", "cel-expr-python", "cryptography", "msgspec", "pyyaml")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections that were asked for and print them; return the exit code."""
    options = _options(argv)
    machine = Machine.here()
    names = [name for name in options.peers if _installed(name)]
    versions = [*_versions(), *dict.fromkeys(peers.version(name) for name in names)]
    sys.stdout.write(f"{machine}\nseed {SEED}; {', '.join(versions)}\n")
    sections: list[Section] = []
    for section in _sections(options, names):
        sys.stdout.write("\n" + text(section) + "\n")
        sys.stdout.flush()
        sections.append(section)
    if options.json is not None:
        options.json.write_text(json.dumps(as_data(sections, machine, versions, SEED), indent=2) + "\n")
    if options.markdown is not None:
        head = f"Machine: {machine}. Seed {SEED}. Versions: {', '.join(versions)}."
        options.markdown.write_text("\n\n".join([head, *map(markdown, sections)]) + "\n")
    missed = sum(not target.met for section in sections for target in section.targets)
    sys.stdout.write(f"\n{missed} of {sum(len(section.targets) for section in sections)} promises missed\n")
    return 1 if missed and options.strict else 0


def _sections(options: argparse.Namespace, names: Sequence[str]) -> Iterator[Section]:
    effort = decide.QUICK if options.quick else decide.FULL
    runs = 5 if options.quick else 20
    scratch: Path = options.scratch
    tables: dict[str, Callable[[], Sequence[Section]]] = {
        "peers": lambda: decide.beside_peers(options.sizes, names, effort),
        "growth": lambda: [decide.growth(options.sizes, effort)],
        "unindexed": lambda: [decide.unindexed(effort, size=max(options.sizes))],
        "signing": lambda: [signing.signing(effort)],
        "logging": lambda: [signing.logging(effort, scratch)],
        "loading": lambda: [loading.loading(runs, scratch)],
        "memory": lambda: [memory.memory(scratch)],
        "confinement": lambda: [confinement.confinement(10 * runs), confinement.from_commit(runs)],
        "soak": lambda: [soak.soak(2 if options.quick else 10)],
    }
    for name, table in tables.items():
        if not options.only or name in options.only:
            yield from table()


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure policyguard beside its peers.")
    parser.add_argument("--quick", action="store_true", help="a minute instead of ten; the numbers are rougher")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="peers, growth, unindexed, signing, logging, loading, memory, confinement or soak; may be repeated",
    )
    parser.add_argument("--sizes", type=_numbers, default=SIZES, metavar="N,N", help="numbers of rules")
    parser.add_argument("--peers", type=_names, default=peers.NAMES, metavar="NAME,NAME", help=", ".join(peers.NAMES))
    parser.add_argument("--scratch", type=Path, default=Path(), metavar="DIR", help="where logs are written")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a promise is missed")
    return parser.parse_args(argv)


def _numbers(listed: str) -> tuple[int, ...]:
    return tuple(int(number) for number in listed.split(","))


def _names(listed: str) -> tuple[str, ...]:
    return tuple(listed.split(","))


def _installed(name: str) -> bool:
    try:
        peers.module(name)
    except ImportError:
        sys.stdout.write(f"{name}: not installed, left out\n")
        return False
    return True


def _versions() -> Iterator[str]:
    for name in OURS:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"{name} from source"


if __name__ == "__main__":
    sys.exit(main())
