"""Command line of the mutation tests: `python -m tests.mutants --module policyguard/verify.py`."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

from tests.mutants.generate import Mutant, mutants
from tests.mutants.run import Outcome, run, summary
from tests.mutants.targets import ROOT, modules, tests

LISTED = Path(__file__).parent / "survivors.md"
ALIVE = ("survived", "no test", "not applied")
REQUIRED_SHARE = 0.98
MEMORY = "/dev/shm"
"""Where a log's `fsync` costs nothing, if there is such a place."""


def main() -> int:
    """Try mutants, print the survivors that `survivors.md` does not list, and count."""
    options = _options()
    files = modules(tuple(options.module))
    chosen = [mutant for file in files for mutant in mutants(file, (ROOT / file).read_text())]
    if options.sample is not None and options.sample < len(chosen):
        chosen = random.Random(options.seed).sample(chosen, options.sample)
    if options.only:
        chosen = [mutant for mutant in chosen if any(text in mutant.name for text in options.only)]
    listed = {line.split("`")[1] for line in LISTED.read_text().splitlines() if line.startswith("- `")}
    outcomes: list[Outcome] = []

    def report(outcome: Outcome) -> None:
        outcomes.append(outcome)
        alive = outcome.verdict in ALIVE
        known = " (listed)" if outcome.mutant.name in listed else ""
        if alive or options.verbose:
            place = f"{outcome.mutant.lines[0]}:"
            print(
                f"{outcome.verdict}{known}: line {place} {outcome.mutant.name} [{outcome.tests} tests]"
                f" {outcome.seconds:.1f} s {outcome.killer}",
                flush=True,
            )

    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        unsound = run(
            chosen,
            files,
            options.tests or tests(files),
            jobs=options.jobs,
            budget_s=options.budget,
            lines=Path(options.lines or f"{folder}/lines.json"),
            folder=Path(folder, "tests"),
            report=report,
        )
    for outcome in outcomes:
        if outcome.killer in unsound:
            print(f"not judged: {outcome.mutant.name}: {outcome.killer} fails without a mutant too")
    if unsound:
        return 2
    return _count(chosen, outcomes, listed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--module", action="append", default=[], help="a file or folder; all of them if left out")
    parser.add_argument("--tests", action="append", default=[], help="a file of tests; by default those of the module")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--sample", type=int, help="try this number of mutants only")
    parser.add_argument("--seed", type=int, default=0, help="which sample")
    parser.add_argument("--only", action="append", help="try mutants whose name contains this text")
    parser.add_argument("--budget", type=float, default=20.0, help="processor seconds of tests for a mutant")
    parser.add_argument("--lines", help="keep here which tests run which lines, and use it if it exists")
    parser.add_argument("--verbose", action="store_true", help="print killed mutants too")
    return parser.parse_args()


def _count(chosen: list[Mutant], outcomes: list[Outcome], listed: set[str]) -> int:
    total = {"mutants": 0, "killed": 0, "alive": 0, "listed": 0}
    for module, verdicts in sorted(summary(outcomes).items()):
        alive = sum(verdicts.get(verdict, 0) for verdict in ALIVE)
        tried = sum(verdicts.values())
        print(f"{module}: {tried} mutants, {tried - alive} killed, {verdicts.get('timed out', 0)} of them by time")
        total["mutants"] += tried
        total["alive"] += alive
        total["killed"] += tried - alive
    if len(outcomes) != len(chosen) or not outcomes:
        print(f"{len(outcomes)} of {len(chosen)} mutants were tried: the tests could not be collected")
        return 2
    alive_names = {outcome.mutant.name for outcome in outcomes if outcome.verdict in ALIVE}
    unlisted = alive_names - listed
    killed = {outcome.mutant.name for outcome in outcomes} - alive_names
    for name in sorted(killed & listed):
        print(f"listed in {LISTED.name}, and killed: {name}")
    share = total["killed"] / total["mutants"]
    print(f"{total['mutants']} mutants, {total['killed']} killed ({share:.1%}), {len(unlisted)} survivors not listed")
    return 1 if unlisted or share < REQUIRED_SHARE else 0


if __name__ == "__main__":
    sys.exit(main())
