"""`policyguard env baseline|verify`: sign a list of the installed files, and compare with it later."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec

from policyguard.assembly.jobs import report_doubt
from policyguard.attest.keys import PublicKey
from policyguard.cli.files import replace_file, write_new
from policyguard.cli.jobs import warn
from policyguard.cli.options import json_option, key_option
from policyguard.cli.output import say, say_json
from policyguard.cli.settings import cache_seal, needed, settings
from policyguard.config.measurement import EnvironmentConfig
from policyguard.environment.bytecode import REASONS, Finding, check_bytecode
from policyguard.environment.cache import FileCache
from policyguard.environment.compilers import Progress
from policyguard.environment.listing import Listing, list_files
from policyguard.environment.owners import owners_of
from policyguard.environment.report import (
    MAX_BASELINE_BYTES,
    Baseline,
    EnvironmentReport,
    compare,
    make_baseline,
    read_baseline,
    verify_environment,
    who_changed,
)
from policyguard.environment.startup import is_new
from policyguard.errors import ConfigurationError, EvidenceError
from policyguard.exit_codes import FINDINGS, OK
from policyguard.fs.safe_open import read_small
from policyguard.keyfiles import read_passphrase, read_private_key, read_public_key
from policyguard.text import printable_name

SECTIONS = {
    "changed": "unlike the baseline",
    "added": "not in the baseline",
    "removed": "in the baseline, but gone",
    "autorun": "runs by itself",
    "unmeasured": "is loaded from a place that could not be measured",
    "unowned": "no distribution owns it",
    "doubly_owned": "two distributions own it",
    "unlike_record": "unlike its RECORD",
    "bytecode": "byte code unlike its source, or not compared with it",
    "idle_bytecode": "byte code that is never loaded",
    "starting": "that run at every start of the interpreter, or of a training",
}
_DIFFERENCES = ("changed", "added", "removed", "autorun", "unmeasured", "bytecode")
"""The sections that count as differences from a baseline; the others are only remarks."""
_MAX_LISTED = 40

interpreter_option = click.option(
    "--interpreter",
    type=click.Path(path_type=Path),
    metavar="PYTHON",
    help="A trusted Python of the environment's version to compile with; this one, if not given.",
)
prefix_argument = click.argument("prefix", type=click.Path(path_type=Path), default=Path(sys.prefix))


@click.group("env")
def command() -> None:
    """List an installed environment, sign the list, and compare with it later."""


@command.command("baseline")
@prefix_argument
@key_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Write the signed baseline to this file.")
@click.option("--force", is_flag=True, help="Replace the file if it is there; it is the previous baseline then.")
@click.option(
    "--previous", type=click.Path(path_type=Path), help="Name what is new since this baseline of the same key."
)
@interpreter_option
def baseline(
    prefix: Path, key: Path | None, out: Path, force: bool, previous: Path | None, interpreter: Path | None
) -> None:
    """Sign the list of every file in the environment at PREFIX (by default this interpreter's).

    Make it where the environment is built, before anybody else can write to it, and keep the key there. Byte code is
    compared with its source; what is not like it is named, and not listed. What runs at every start of the interpreter
    is named, and what of it is new.
    """
    private = read_private_key(needed(settings(key=key), "key"), passphrase=read_passphrase())
    before = previous or (out if force and out.exists() else None)
    known = _previous(before, private.public) if before is not None else None
    listing = list_files(str(_environment(prefix)), owners=())
    if not listing.files:
        raise EvidenceError(f"{prefix}: found no files, expected an installed environment")
    with _bar() as progress:
        judged = check_bytecode(listing, {}, {}, interpreter=_text(interpreter), progress=progress)
    stray = {item.name: listing.bytecode[item.name] for item in judged.findings if item.code == "stray"}
    (replace_file if force else write_new)(out, make_baseline(listing, (private,), {**judged.equal, **stray}))
    say(
        f"{out}: {len(listing.files)} files of {prefix}, {len(judged.equal)} of byte code like their source, "
        f"signed by {private.public.keyid[:16]}"
    )
    report = compare(listing, owners_of(str(prefix), listing.files), None, judged)
    _say_starting(report, listing, known)
    _say_doubtful(report, stray)


def _previous(path: Path, key: PublicKey) -> Baseline | None:
    try:
        return read_baseline(read_small(str(path), MAX_BASELINE_BYTES), (key,))
    except EvidenceError as problem:
        raise EvidenceError(
            f"{path}: {problem.message}", help="name an earlier baseline that this key signed: --previous FILE"
        ) from problem


def _say_starting(report: EnvironmentReport, listing: Listing, known: Baseline | None) -> None:
    """Print everything that runs by itself; what the previous baseline does not have first, marked as new."""
    new = [item for item in report.starting if known is None or is_new(item, listing, known.files)]
    if report.starting:
        since = "there is no previous baseline" if known is None else f"{len(new)} of them new"
        say(f"  {len(report.starting)} {SECTIONS['starting']}; {since}:", fg="yellow" if new else None)
    for item in (*new, *(item for item in report.starting if item not in new)):
        say(f"    {'new' if item in new else '   '} {item}", fg="yellow" if item in new else None)
    for folder in listing.outside:
        say(f"  listed from elsewhere, too: {printable_name(folder)}")


def _say_doubtful(report: EnvironmentReport, stray: Mapping[str, str]) -> None:
    """Print the files to check before the baseline is used."""
    for item in report.bytecode[:_MAX_LISTED]:
        word = "is listed now" if item.name in stray else "is not listed"
        say(f"  check {item.name}: {_explain(item)}; it {word}", fg="yellow")
    if len(report.bytecode) > _MAX_LISTED:
        say(f"  and at {len(report.bytecode) - _MAX_LISTED} more", fg="yellow")
    for unknown in report.unmeasured:
        say(f"  no environment is clean with this: {unknown}", fg="red")
    for name in ("unlike_record", "doubly_owned"):
        result = getattr(report, name)
        if result:
            say(f"  check {len(result)} that are listed now: {SECTIONS[name]}: {', '.join(result[:5])}", fg="yellow")


@command.command("verify")
@prefix_argument
@click.option("--baseline", "baseline_file", type=click.Path(path_type=Path), help="The signed baseline.")
@click.option("--signer", multiple=True, help="Who may sign it: `ed25519:...` or a public key file.")
@click.option("--cache", type=click.Path(path_type=Path), help="Remember digests of unchanged files here, mode 0600.")
@click.option("--key", type=click.Path(path_type=Path), help="Seal what is remembered with this private key.")
@click.option("--record-only", is_flag=True, help="Compare the files only with RECORD; nothing is called clean then.")
@interpreter_option
@json_option
def verify(
    prefix: Path,
    baseline_file: Path | None,
    signer: tuple[str, ...],
    cache: Path | None,
    key: Path | None,
    record_only: bool,
    interpreter: Path | None,
    as_json: bool,
) -> int:
    """Compare the environment at PREFIX with its signed baseline; name every difference, its owner and its time.

    Byte code that is not in the baseline is compared with its source.

    Exits with 0 if nothing differs, with 1 if something does. With --record-only an environment is never called clean:
    who edits a file can edit its line in RECORD.
    """
    prefix = _environment(prefix)
    config = settings(key=key)
    pinned = None if record_only else _environment_config(config.measurement.environment, baseline_file, signer)
    cache_path = cache or (pinned.cache if pinned is not None else None)
    python = interpreter or (pinned.interpreter if pinned is not None else None)
    began = time.perf_counter()
    expected = _baseline(pinned) if pinned is not None else None
    known = FileCache(str(cache_path), cache_seal(config, is_required=key is not None)) if cache_path else None
    with _bar() as progress:
        report = verify_environment(str(prefix), expected, cache=known, interpreter=_text(python), progress=progress)
    report_doubt(cache_path, report.doubt, warn)
    sections = _DIFFERENCES if pinned is not None else ("autorun", "unlike_record", "unmeasured", "bytecode")
    differs = any(getattr(report, section) for section in sections)
    if as_json:
        # INVARIANT I20: without a baseline nothing is called clean.
        answer = {"prefix": str(prefix), "clean": pinned is not None and not differs, "baseline": pinned is not None}
        say_json({**answer, **msgspec.to_builtins(report)})
    else:
        _say_report(prefix, report, sections, time.perf_counter() - began, has_baseline=pinned is not None)
    return FINDINGS if differs else OK


def _baseline(pinned: EnvironmentConfig) -> Baseline:
    return read_baseline(read_small(str(pinned.baseline), MAX_BASELINE_BYTES), pinned.keys, pinned.threshold)


def _environment(prefix: Path) -> Path:
    if not prefix.is_dir():
        raise ConfigurationError(f"{prefix}: found no folder, expected an installed environment such as `.venv`")
    return prefix


def _environment_config(
    configured: EnvironmentConfig | None, baseline: Path | None, signers: tuple[str, ...]
) -> EnvironmentConfig:
    """Return baseline and keys from the options, else from the configuration."""
    keys = tuple(_public(text) for text in signers)
    if configured is not None:
        result = replace(configured, baseline=baseline or configured.baseline)
        return replace(result, keys=keys, threshold=1) if keys else result
    # INVARIANT I20: without a baseline, and somebody pinned who signed it, nothing is called clean by mistake.
    if baseline is None or not keys:
        missing = "--signer" if baseline is not None else "--baseline"
        raise ConfigurationError(
            f"{missing} is missing, expected a signed baseline and who signed it",
            help="give --baseline and --signer, or `environment:` in a policyguard.yaml; or use --record-only",
        )
    return EnvironmentConfig(baseline=baseline, keys=keys)


def _public(text: str) -> PublicKey:
    return PublicKey.from_text(text) if text.startswith("ed25519:") else read_public_key(text)


def _say_report(
    prefix: Path, report: EnvironmentReport, counting: tuple[str, ...], took_s: float, *, has_baseline: bool
) -> None:
    """Print each section that is not empty; differences in red."""
    result = False
    for name, description in SECTIONS.items():
        names = [_line(item) for item in getattr(report, name)]
        if not names or (name == "starting" and has_baseline):
            continue
        counts = name in counting
        result = result or counts
        say(f"{'FOUND   ' if counts else 'remark  '}", nl=False, fg="red" if counts else "yellow", bold=counts)
        say(f"{len(names)} {description}")
        if counts:
            for item in names[:_MAX_LISTED]:
                file, _, more = item.partition(": ")
                line = f"{file}: {more}" if more else file
                say(f"          {line}  ({who_changed(str(prefix), file)})")
            if len(names) > _MAX_LISTED:
                say(f"          and {len(names) - _MAX_LISTED} more; --json lists them all")
        elif name == "starting":
            for item in names:
                say(f"          {item}")
    if not has_baseline:
        say("UNKNOWN ", nl=False, fg="yellow", bold=True)
        say(f"{prefix}: compared only with RECORD, which an editor of files can edit, too; it takes a signed baseline")
    elif not result:
        say("CLEAN   ", nl=False, fg="green", bold=True)
        say(f"{prefix}: nothing differs")
    took = f"{report.read} files read, {report.compared} compared with their source, in {took_s:.2f} s"
    say(took, err=True, dim=True)


def _line(result: str | Finding) -> str:
    return result if isinstance(result, str) else f"{result.name}: {_explain(result)}"


def _explain(finding: Finding) -> str:
    return f"{REASONS[finding.code]}{f' ({finding.detail})' if finding.detail else ''}"


def _text(path: Path | None) -> str | None:
    return str(path) if path is not None else None


@contextmanager
def _bar() -> Iterator[Progress | None]:
    """Show a progress bar on a terminal and yield its callback; yield None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    with ExitStack() as stack:
        bars: list[Any] = []

        def tell(done: int, total: int) -> None:
            if not bars:
                bar = click.progressbar(length=total, label="comparing byte code", file=sys.stderr)
                bars.append(stack.enter_context(bar))
            bars[0].update(done - bars[0].pos)

        yield tell
