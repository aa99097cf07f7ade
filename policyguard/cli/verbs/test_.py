"""`policyguard test [DIR]`: run the tests of policies, documents of `kind: Tests`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from policyguard.cli.output import echo, say, say_json
from policyguard.cli.settings import author_settings, needed
from policyguard.exit_codes import FINDINGS, OK
from policyguard.policy.files import read_folder
from policyguard.testing.junit import to_junit
from policyguard.testing.run import Outcome, count_results, run_tests, verdict
from policyguard.text import counted, quoted


@click.command("test")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--format", "form", type=click.Choice(["text", "json", "junit"]), default="text", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("-k", "--filter", "part", default="", metavar="TEXT", help="Only tests whose name contains TEXT.")
def command(folder: Path | None, form: str, as_json: bool, part: str) -> int:
    """Run the tests of the policies in FOLDER. Exits with 1 if one fails, or if none was run."""
    outcomes = run_tests(read_folder(needed(author_settings(policies=folder), "policies")))
    if not outcomes:
        say("no tests, expected documents of `kind: Tests` beside the policies", err=True)
    chosen = tuple(outcome for outcome in outcomes if part in outcome.case.name)
    _FORMATS["json" if as_json else form](chosen)
    if outcomes and not chosen:
        say(f"no test has {quoted(part)} in its name, expected a part of the name of one of {len(outcomes)}", err=True)
    results = count_results(chosen)
    return OK if results["passed"] and not results["failed"] else FINDINGS


def _say_text(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        case = outcome.case
        if case.skip is not None:
            say(f"skipped  {case.span}: {case.name}: {case.skip}")
        elif outcome.problem and outcome.decision is not None:
            say(f"FAILED   {case.span}: {case.name}", fg="red")
            say(f"         {outcome.problem}")
            for line in outcome.decision.explain().splitlines():
                say(f"         {line}")
    results = count_results(outcomes)
    say(
        f"{counted(results['passed'], 'test')} passed, {results['failed']} failed, {results['skipped']} skipped",
        fg="red" if results["failed"] else "green",
    )


def _say_json(outcomes: Sequence[Outcome]) -> None:
    say_json(
        {
            **count_results(outcomes),
            "tests": [_data(outcome) for outcome in outcomes],
        }
    )


def _data(outcome: Outcome) -> dict[str, object]:
    case, decision = outcome.case, outcome.decision
    data: dict[str, object] = {
        "name": case.name,
        "file": case.span.file,
        "line": case.span.line,
        "expected": case.expect,
        "outcome": outcome.result,
    }
    if decision is None:
        return {**data, "reason": case.skip}
    return {**data, "found": verdict(decision), "reasonCodes": decision.reason_codes, "problem": outcome.problem}


_FORMATS: dict[str, Callable[[Sequence[Outcome]], None]] = {
    "text": _say_text,
    "json": _say_json,
    "junit": lambda outcomes: echo(to_junit(outcomes), nl=False),
}
