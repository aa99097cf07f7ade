"""`policyguard lint DIR`: report mistakes and dangerous rules in policies."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from policyguard.cli.files import replace_file
from policyguard.cli.output import echo
from policyguard.cli.settings import author_settings, needed
from policyguard.cli.tests_not_run import say_not_run
from policyguard.errors import ConfigurationError
from policyguard.exit_codes import FINDINGS, OK
from policyguard.fs.safe_open import read_bounded
from policyguard.lint.baseline import parse_baseline, to_baseline
from policyguard.lint.formats.github import to_github
from policyguard.lint.formats.json import to_json
from policyguard.lint.formats.junit import to_junit
from policyguard.lint.formats.sarif import to_sarif
from policyguard.lint.formats.text import to_text
from policyguard.lint.report import Report
from policyguard.lint.runner import lint
from policyguard.policy.files import collect_folder

MAX_BASELINE_BYTES = 16_777_216

FORMATS: dict[str, Callable[[Report], str]] = {
    "text": lambda report: to_text(report, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ),
    "json": to_json,
    "sarif": to_sarif,
    "github": to_github,
    "junit": to_junit,
}


@click.command("lint")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--select", multiple=True, metavar="CODE", help="Only these rules: PG215, or PG2 for all that begin so.")
@click.option("--ignore", multiple=True, metavar="CODE", help="Not these rules; what stops a load is always reported.")
@click.option("--baseline", type=click.Path(path_type=Path), help="Findings known from before; only new ones count.")
@click.option("--write-baseline", type=click.Path(path_type=Path), help="Write today's findings as a baseline.")
def command(
    folder: Path | None,
    form: str,
    as_json: bool,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    baseline: Path | None,
    write_baseline: Path | None,
) -> int:
    """Lint the policies in FOLDER. Exits with 1 if there is an error or a warning."""
    policies = needed(author_settings(policies=folder), "policies")
    sources, unread = collect_folder(policies)
    try:
        report = lint(sources, time.time_ns(), unread=unread, select=select, ignore=ignore)
    except ValueError as problem:
        raise click.UsageError(str(problem)) from problem
    if write_baseline is not None:
        replace_file(write_baseline, to_baseline(report).encode())
    if baseline is not None:
        report = report.without(_baseline(baseline))
    say_not_run(policies, sources)
    echo(FORMATS["json" if as_json else form](report), nl=False)
    return OK if report.clean else FINDINGS


def _baseline(path: Path) -> frozenset[str]:
    data = read_bounded(path, MAX_BASELINE_BYTES)
    try:
        return parse_baseline(data)
    except ConfigurationError as problem:
        raise ConfigurationError(f"{path}: {problem.message}", help=problem.help) from problem
