"""`policyguard scan PATH...`: report each file's format, what loading it would import, and who can write it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from policyguard.assembly.jobs import digest_cache
from policyguard.cli.jobs import warn
from policyguard.cli.options import json_option
from policyguard.cli.output import say, say_json
from policyguard.cli.settings import cache_seal, settings
from policyguard.config.file import Config
from policyguard.errors import ConfigurationError
from policyguard.exit_codes import FINDINGS, OK
from policyguard.fs.safe_open import reason_of
from policyguard.scan.advice import advice
from policyguard.scan.files import Options, Progress, scan_paths
from policyguard.scan.findings import REASONS, CheckpointScan, Verdict
from policyguard.scan.picklescan import SecondOpinion
from policyguard.text import counted, printable

_COLOURS = {Verdict.CLEAN: "green", Verdict.UNKNOWN: "yellow", Verdict.HOSTILE: "red"}
_MAX_GLOBALS = 8
_REDRAW_BYTES = 32 << 20


@click.command("scan")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="PATH...")
@click.option("--class", "classes", multiple=True, metavar="MODULE.NAME", help="A class that pickles may import, too.")
@click.option("--cache", type=click.Path(path_type=Path), help="Remember digests in this file, mode 0600.")
@click.option(
    "--second-opinion", is_flag=True, help="Ask picklescan about clean files; one that it reports is hostile."
)
@click.option("-q", "--quiet", is_flag=True, help="Say only what is not clean.")
@click.option("--explain", metavar="CODE", help="Say what a reason code means and what makes such a file acceptable.")
@json_option
def command(
    paths: tuple[Path, ...],
    classes: tuple[str, ...],
    cache: Path | None,
    second_opinion: bool,
    quiet: bool,
    explain: str | None,
    as_json: bool,
) -> int:
    """Scan files and folders of weights; nothing is ever unpickled.

    Exits with 0 if every file is clean, with 1 if one is hostile, unknown or missing.
    """
    if explain is not None:
        return _explain(explain, as_json)
    if not paths:
        raise click.UsageError("missing argument 'PATH...'")
    config = settings()
    other = SecondOpinion() if second_opinion else None
    with progress_bar(paths) as progress:
        scans = scan_paths(paths, scan_options(config, classes, cache, progress))
    if other is not None:
        scans = tuple(map(other.on, scans))
    if as_json:
        say_json(scans_data(paths, scans))
    else:
        for scan in scans:
            if not quiet or scan.verdict is not Verdict.CLEAN:
                _say_scan(scan)
        _say_folders(paths, scans)
        _say_total(scans)
    # INVARIANT I20: only clean is clean; nothing scanned, unknown and hostile all leave with 1.
    return OK if scans and all(scan.verdict is Verdict.CLEAN for scan in scans) else FINDINGS


def scan_options(
    config: Config, classes: Sequence[str] = (), cache: Path | None = None, progress: Progress | None = None
) -> Options:
    """Combine the configuration with the options of the command.

    Args:
        config: the configuration.
        classes: classes that pickles may import, besides the listed ones.
        cache: the cache of digests.
        progress: is called as the work proceeds.

    Raises:
        ConfigurationError: the digest cache cannot be used.
    """
    for name in classes:
        if "." not in name.strip("."):
            raise click.UsageError(f"--class: found `{name}`, expected MODULE.NAME")
    extra = frozenset((name.rpartition(".")[0], name.rpartition(".")[2]) for name in classes)
    checkpoints = config.measurement.checkpoints
    path = cache or checkpoints.cache
    try:
        digests = digest_cache(path, cache_seal(config, is_required=False) if path is not None else None, warn)
    except OSError as problem:
        raise ConfigurationError(f"{path}: {reason_of(problem)}") from problem
    return Options(extra_globals=checkpoints.classes | extra, cache=digests, progress=progress)


def scans_data(paths: Sequence[Path], scans: Sequence[CheckpointScan]) -> dict[str, Any]:
    """Convert the scans to one object for `--json`: worst verdict, one row per named path, all files."""
    return {
        "verdict": worst(scans).value,
        "paths": [{"path": printable(str(path)), **_counts(inside)} for path, inside in _by_path(paths, scans)],
        "files": [scan_data(scan) for scan in scans],
    }


def scan_data(scan: CheckpointScan) -> dict[str, Any]:
    """Convert one scan to plain data for `--json`."""
    reasons = [
        {
            "code": reason.code,
            "detail": reason.detail,
            "where": reason.where,
            "does": advice(reason.code).does,
            "accept": advice(reason.code).accept,
        }
        for reason in scan.reasons
    ]
    return {**scan.to_value(), "reasons": reasons}


def worst(scans: Sequence[CheckpointScan]) -> Verdict:
    """Return the worst verdict of the scans; `unknown` if nothing was scanned."""
    return max((scan.verdict for scan in scans), key=list(Verdict).index, default=Verdict.UNKNOWN)


def _by_path(paths: Sequence[Path], scans: Sequence[CheckpointScan]) -> Iterator[tuple[Path, Sequence[CheckpointScan]]]:
    for path in paths:
        name = os.fsencode(path).decode("utf-8", "backslashreplace")
        prefix = name.rstrip("/") + "/" if name != "." else ""
        yield path, [scan for scan in scans if scan.path == name or scan.path.startswith(prefix)]


def _counts(scans: Sequence[CheckpointScan]) -> dict[str, Any]:
    counts = {verdict.value: sum(scan.verdict is verdict for scan in scans) for verdict in Verdict}
    return {"verdict": worst(scans).value, "files": len(scans), **counts}


def _explain(code: str, as_json: bool) -> int:
    if code not in REASONS:
        close = ", ".join(sorted(name for name in REASONS if code.rpartition(".")[2] in name)[:5])
        help_text = f"; similar: {close}" if close else ""
        raise click.UsageError(
            f"--explain: found `{printable(code)}`, expected a reason code of `docs/scan.md`{help_text}"
        )
    verdict, text = REASONS[code]
    row = advice(code)
    if as_json:
        say_json({"code": code, "verdict": verdict.value, "says": text, "does": row.does, "accept": row.accept})
        return OK
    say(f"{code}: {verdict.value}")
    for title, line in (("says", text), ("loader", row.does), ("accept", row.accept)):
        say(f"  {title:<7} {line}")
    return OK


def _say_folders(paths: Sequence[Path], scans: Sequence[CheckpointScan]) -> None:
    """Print a table of the named folders, each with the verdict of its worst file."""
    folders = [(path, inside) for path, inside in _by_path(paths, scans) if os.path.isdir(path) and len(inside) > 1]
    if not folders:
        return
    say("\nfolder verdict  clean  unknown  hostile  path")
    for path, inside in folders:
        row = _counts(inside)
        numbers = f"{row['clean']:>5}  {row['unknown']:>7}  {row['hostile']:>7}"
        say(f"       {row['verdict']:<8} {numbers}  {printable(str(path))}")


@contextmanager
def progress_bar(paths: Sequence[Path]) -> Iterator[Progress | None]:
    """Show a progress bar on a terminal and yield its callback; yield None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    total = sum(_size(path) for path in paths)
    with click.progressbar(length=max(total, 1), label="hashing", file=sys.stderr) as bar:
        yield _counter(bar.update)


def _counter(update: Callable[[int], None]) -> Progress:
    """Build a thread-safe callback that redraws the bar only from time to time."""
    lock, waiting = threading.Lock(), 0

    def count(path: str, size: int) -> None:  # noqa: ARG001
        nonlocal waiting
        with lock:
            waiting += size
            if waiting >= _REDRAW_BYTES:
                update(waiting)
                waiting = 0

    return count


def _size(path: Path) -> int:
    """Estimate how many bytes a path holds, for the progress bar."""
    if not os.path.isdir(path):
        return os.path.getsize(path) if os.path.isfile(path) else 0
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)


def _say_scan(scan: CheckpointScan) -> None:
    say(f"{scan.verdict.value.upper():<8}", nl=False, fg=_COLOURS[scan.verdict], bold=True)
    say(f" {scan.format:<12} {printable(scan.path)}")
    for reason in scan.reasons:
        text = REASONS[reason.code][1] if reason.code == "ckpt.missing" else reason.text
        say(f"         {reason.code}  {text}" + (f" (at {reason.where})" if reason.where else ""))
    if scan.globals and scan.verdict is not Verdict.CLEAN:
        names = printable(", ".join(scan.globals[:_MAX_GLOBALS]))
        more = len(scan.globals) - _MAX_GLOBALS
        say(f"         imports  {names}" + (f" and {more} more" if more > 0 else ""))
    writers = [
        word
        for word, is_so in (
            ("the file's group or anybody", bool(scan.mode & 0o022)),
            ("the folder's group", scan.dir_group_writable),
            ("anybody through the folder", scan.dir_world_writable),
        )
        if is_so
    ]
    if writers:
        say(f"         may be written by {' and '.join(writers)}", fg="yellow")


def _say_total(scans: Sequence[CheckpointScan]) -> None:
    counts = {verdict: sum(scan.verdict is verdict for scan in scans) for verdict in Verdict}
    size = sum(scan.size_bytes for scan in scans)
    summary = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items())
    say(f"{counted(len(scans), 'file')}, {counted(size, 'byte')}: {summary}")
