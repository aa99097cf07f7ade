"""Run mutants: one process collects the tests and measures which lines each runs; a fork of it tries each mutant.

The fork swaps the code of the mutated functions in place, so nothing is imported again, and stops at the first test
that fails. Tests that start a process of their own do not see the mutant. Tests that killed a mutant of the module run
first for the next one.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import importlib
import json
import os
import resource
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import coverage
import pytest
from _pytest.runner import runtestprotocol

from tests.mutants.generate import Mutant, code_of
from tests.mutants.targets import PACKAGE, ROOT

SURVIVED, KILLED, NOT_APPLIED = 0, 1, 2
MAX_EXAMPLES = 10
LONGEST_TEST_S = 4.0
"""Processor seconds. A slower test does not run for mutants."""
IDLE_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one mutant: `killed`, `timed out`, `survived`, `no test` runs its line, or `not applied`."""

    mutant: Mutant
    verdict: str
    seconds: float
    tests: int
    killer: str = ""


@dataclass(kw_only=True)
class Lines:
    """Which tests run a line, and the processor seconds of each test that passed."""

    seconds: dict[str, float] = field(default_factory=dict)
    by_line: dict[str, dict[int, list[str]]] = field(default_factory=dict)

    def tests_of(self, mutant: Mutant, budget_s: float, killers: Set[str]) -> list[str]:
        """Select the tests that run the line of a mutant, as many as the budget allows.

        Those behind its condition come first, and no others where others cannot differ; then those that killed another
        mutant, then the fastest.
        """

        def order(name: str) -> tuple[bool, bool, float]:
            return name not in behind, name not in killers, self.seconds.get(name, LONGEST_TEST_S)

        behind = self._names(mutant.module, mutant.body) if mutant.body is not None else set()
        names = behind if mutant.shows_behind else self._names(mutant.module, mutant.lines)
        chosen: list[str] = []
        spent = 0.0
        for name in sorted(names, key=order):
            if name in self.seconds and self.seconds[name] < LONGEST_TEST_S and spent < budget_s:
                spent += self.seconds[name]
                chosen.append(name)
        return chosen

    def _names(self, module: str, lines: tuple[int, int]) -> set[str]:
        by_line = self.by_line.get(module, {})
        return {name for line in range(lines[0], lines[1] + 1) for name in by_line.get(line, [])}


class Runner:
    """A pytest plugin that tries mutants instead of running the tests."""

    def __init__(
        self,
        mutants: list[Mutant],
        modules: list[str],
        *,
        jobs: int,
        budget_s: float,
        lines: Path,
        report: Callable[[Outcome], None],
    ) -> None:
        self.mutants = mutants
        self.modules = modules
        self.jobs = jobs
        self.budget_s = budget_s
        self.file = lines
        self.report = report
        self.killers: set[str] = set()
        self.unsound: set[str] = set()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        factory: Any = session.config._tmp_path_factory  # type: ignore[attr-defined]  # pytest has no public way
        base: Path = factory.getbasetemp()
        _few_examples(session.items)
        if not self.file.exists():
            self._measure_all(session.items, base, factory)
        lines = Lines(**json.loads(self.file.read_text(), object_hook=_integer_keys))
        for module in self.modules:
            importlib.import_module(module.removesuffix(".py").replace("/", "."))
        gc.collect()
        functions = _functions()
        gc.freeze()
        running: dict[int, tuple[Mutant, float, int, Path]] = {}
        for number, mutant in enumerate(self.mutants):
            names = [name for name in lines.tests_of(mutant, self.budget_s, self.killers) if name in items]
            if not names:
                self.report(Outcome(mutant=mutant, verdict="no test", seconds=0, tests=0))
                continue
            limits_s = {items[name]: 2 + 5 * lines.seconds[name] for name in names}
            folder = base / f"m{number}"
            process = _fork(functools.partial(_try, mutant, functions[mutant.module], limits_s, folder, factory))
            running[process] = (mutant, time.monotonic(), len(names), folder)
            while len(running) >= self.jobs:
                self._reap(running)
        while running:
            self._reap(running)
        self._control([items[name] for name in sorted(self.killers, key=lines.seconds.__getitem__)], base, factory)
        return True

    def _measure_all(self, items: list[pytest.Item], base: Path, factory: Any) -> None:
        """Measure which lines each test runs, the files of tests shared among the jobs."""
        files = sorted({item.path for item in items})
        parts = [base / f"lines{number}" for number in range(self.jobs)]
        for number, part in enumerate(parts):
            shared = set(files[number :: self.jobs])
            chosen = [item for item in items if item.path in shared]
            _fork(functools.partial(_measure, chosen, self.modules, part, factory))
        for _ in parts:
            os.waitpid(-1, 0)
        merged = Lines()
        for part in parts:
            lines = Lines(**json.loads(part.with_suffix(".json").read_text(), object_hook=_integer_keys))
            merged.seconds |= lines.seconds
            for module, by_line in lines.by_line.items():
                known = merged.by_line.setdefault(module, {})
                for line, names in by_line.items():
                    known[line] = known.get(line, []) + names
        self.file.write_text(json.dumps(dataclasses.asdict(merged)))

    def _control(self, killers: list[pytest.Item], base: Path, factory: Any) -> None:
        """Run each test that killed a mutant without one; what fails then has killed nothing."""
        while killers:
            folder = base / f"control{len(killers)}"
            os.waitpid(_fork(functools.partial(_passes, killers, folder, factory)), 0)
            failed = folder.with_suffix(".killer")
            if not failed.exists():
                break
            self.unsound.add(failed.read_text())
            killers = [item for item in killers if item.nodeid not in self.unsound]

    def _reap(self, running: dict[int, tuple[Mutant, float, int, Path]]) -> None:
        process, status = os.waitpid(-1, 0)
        mutant, start, tests, folder = running.pop(process)
        shutil.rmtree(folder, ignore_errors=True)
        verdict = "timed out"
        if os.WIFEXITED(status):
            verdict = {SURVIVED: "survived", NOT_APPLIED: "not applied"}.get(os.WEXITSTATUS(status), "killed")
        elif os.WTERMSIG(status) not in (signal.SIGPROF, signal.SIGALRM, signal.SIGKILL):
            verdict = "killed"
        killer = folder.with_suffix(".killer")
        name = killer.read_text() if killer.exists() else ""
        self.killers |= {name} - {""}
        seconds = time.monotonic() - start
        self.report(Outcome(mutant=mutant, verdict=verdict, seconds=seconds, tests=tests, killer=name))


def _fork(work: Callable[[], int]) -> int:
    process = os.fork()
    if process:
        return process
    code = KILLED
    try:
        silent = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(silent, descriptor)
        code = work()
    finally:
        os._exit(code)  # whatever escaped


def _measure(items: list[pytest.Item], modules: list[str], folder: Path, factory: Any) -> int:
    folder.mkdir(mode=0o700)
    factory._basetemp = folder
    measuring = coverage.Coverage(
        data_file=None, config_file=False, include=[str(ROOT / module) for module in modules], messages=False
    )
    measuring.set_option("run:core", "ctrace")
    signal.signal(signal.SIGPROF, _too_slow)
    measuring.start()
    seconds: dict[str, float] = {}
    caches = [thing for thing in gc.get_objects() if type(thing) is functools._lru_cache_wrapper]
    for item, following in zip(items, [*items[1:], None], strict=True):
        for cache in caches:
            cache.cache_clear()  # or only the first of several tests seems to run what is behind it
        measuring.switch_context(item.nodeid)
        start = _worked_s()
        signal.setitimer(signal.ITIMER_PROF, LONGEST_TEST_S)
        reports = runtestprotocol(item, log=False, nextitem=following)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if [report.outcome for report in reports] == ["passed", "passed", "passed"]:
            seconds[item.nodeid] = round(_worked_s() - start, 4)
    measuring.stop()
    data = measuring.get_data()
    by_line: dict[str, dict[int, list[str]]] = {}
    for module in modules:
        contexts = data.contexts_by_lineno(str(ROOT / module))
        by_line[module] = {line: [name for name in names if name in seconds] for line, names in contexts.items()}
    folder.with_suffix(".json").write_text(json.dumps({"seconds": seconds, "by_line": by_line}))
    return SURVIVED


def _worked_s() -> float:
    """Processor seconds of this process and of those that it waited for."""
    return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def _too_slow(number: int, frame: object) -> None:
    raise TimeoutError("this test is too slow to run for mutants")


def _try(
    mutant: Mutant, functions: list[FunctionType], limits_s: dict[pytest.Item, float], folder: Path, factory: Any
) -> int:
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _end_when_idle()
    folder.mkdir(mode=0o700)
    factory._basetemp = folder
    if not _swap(functions, code_of(mutant, str(ROOT / mutant.module))):
        return NOT_APPLIED
    items = list(limits_s)
    for item, following in zip(items, [*items[1:], None], strict=True):
        signal.setitimer(signal.ITIMER_PROF, limits_s[item])
        if any(report.failed for report in runtestprotocol(item, log=False, nextitem=following)):
            folder.with_suffix(".killer").write_text(item.nodeid)
            return KILLED
    return SURVIVED


def _end_when_idle() -> None:
    """End this process once it has waited for `IDLE_S`: a mutant may make it wait for ever. A slow machine does not."""
    worked_s = time.process_time()

    def end(number: int, _: object) -> None:
        nonlocal worked_s
        before, worked_s = worked_s, time.process_time()
        if worked_s - before < 0.001:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, IDLE_S, IDLE_S)


def _passes(items: list[pytest.Item], folder: Path, factory: Any) -> int:
    """Run tests without a mutant, as for one: the control of a verdict."""
    folder.mkdir(mode=0o700)
    factory._basetemp = folder
    for item, following in zip(items, [*items[1:], None], strict=True):
        if any(report.failed for report in runtestprotocol(item, log=False, nextitem=following)):
            folder.with_suffix(".killer").write_text(item.nodeid)
            return KILLED
    return SURVIVED


def _functions() -> dict[str, list[FunctionType]]:
    """Collect the functions of each module of the package, and empty every cache."""
    by_module: dict[str, list[FunctionType]] = defaultdict(list)
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__code__.co_filename.startswith(str(PACKAGE)):
            by_module[str(Path(thing.__code__.co_filename).relative_to(ROOT))].append(thing)
        elif type(thing) is functools._lru_cache_wrapper:
            thing.cache_clear()
    return by_module


def _swap(functions: list[FunctionType], compiled: Mapping[tuple[str, int], CodeType]) -> int:
    """Give each function the code that the mutant has at its place."""
    swapped = 0
    for function in functions:
        code = compiled.get((function.__code__.co_qualname, function.__code__.co_firstlineno))
        if code is not None and code.co_freevars == function.__code__.co_freevars:
            function.__code__ = code
            swapped += 1
    return swapped


def _few_examples(items: Iterable[pytest.Item]) -> None:
    """Give property tests few and always the same examples; one that fails is not made smaller, which takes long."""
    from hypothesis import Phase, settings

    for item in items:
        test = getattr(item, "obj", None)
        test = getattr(test, "__func__", test)
        chosen = getattr(test, "_hypothesis_internal_use_settings", None)
        if chosen is not None:
            few = min(chosen.max_examples, MAX_EXAMPLES)
            phases = (Phase.explicit, Phase.generate)
            test._hypothesis_internal_use_settings = settings(  # type: ignore[union-attr]
                chosen, max_examples=few, derandomize=True, database=None, deadline=None, phases=phases
            )


def _integer_keys(pairs: dict[str, Any]) -> dict[Any, Any]:
    return {int(key) if key.isdigit() else key: value for key, value in pairs.items()}


def run(
    mutants: list[Mutant],
    modules: list[str],
    tests: list[str],
    *,
    jobs: int,
    budget_s: float,
    lines: Path,
    folder: Path,
    report: Callable[[Outcome], None],
) -> set[str]:
    """Try all mutants with these tests, their files in this folder; the tests that fail without a mutant too."""
    runner = Runner(mutants, modules, jobs=jobs, budget_s=budget_s, lines=lines, report=report)
    options = [
        "-q",
        "-q",
        "--no-header",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:cov",
        f"--basetemp={folder}",
    ]
    pytest.main([*options, *tests], plugins=[runner])
    return runner.unsound


def summary(outcomes: Iterable[Outcome]) -> dict[str, dict[str, int]]:
    """Count the verdicts of each module."""
    counted: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for outcome in outcomes:
        counted[outcome.mutant.module][outcome.verdict] += 1
    return counted
