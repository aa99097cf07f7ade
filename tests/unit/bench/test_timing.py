"""How the benchmark takes time and says what it found."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.documents import NOW, facts, sources
from bench.report import Machine, Section, Target, as_data, markdown, text, times, us
from bench.shapes import SHAPES
from bench.soak import strangers
from bench.timing import Contestant, race, threaded
from bench.workload import Workload
from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.policy.loader import load


def test_the_slower_contestant_has_the_larger_ratio() -> None:
    """A ratio is taken inside rounds: something that sleeps is slower than something that does not."""
    slow = Contestant(lambda _: time.sleep(0.0005), [1, 2])
    quick = Contestant(lambda given: given, [1, 2])
    race({"slow": slow, "quick": quick}, rounds=3, budget_s=0.002)
    assert slow.ratio_to(quick) > 10
    assert len(slow.rounds) == 3
    assert all(len(times_) >= 2 for times_ in slow.rounds)


def test_an_engine_that_threads_cannot_share_is_a_result() -> None:
    """What a call raises in a thread is reported by name, and nothing hangs."""

    def refuse(_: object) -> object:
        raise RuntimeError("not here")

    assert threaded(lambda: refuse, [1], threads=2, budget_s=0.01).failure == "RuntimeError"
    assert threaded(lambda: str, [1], threads=2, budget_s=0.01).rate_per_s > 0


def test_a_missed_promise_is_reported() -> None:
    """Text, Markdown and JSON carry the same verdict."""
    section = Section("Deciding", ("engine", "p50"), [("ours", us(3.21))], [Target("median us", 3.21, 3)])
    assert "MISSED: median us: 3.21, at most 3" in text(section)
    assert "| ours | 3.21 us |" in markdown(section)
    assert as_data([section], Machine.here(), ["x 1"], 7)["sections"][0]["targets"][0]["met"] is False
    assert Target("times faster", 12, 10, floor=True).met


@pytest.mark.parametrize(
    ("value", "shown"), [(0.5, "0.5 us"), (999.0, "999 us"), (1500.0, "1.5 ms"), (2_500_000.0, "2.50 s")]
)
def test_microseconds_read_well(value: float, shown: str) -> None:
    """Numbers carry three digits and their unit."""
    assert us(value) == shown


def test_ratios_read_well() -> None:
    """Large factors have separators, small ones their digits."""
    assert (times(5432.1), times(1.274)) == ("5,430x", "1.27x")


def test_our_engine_answers_the_lab_as_the_naive_evaluation() -> None:
    """The lab's own YAML loads, and every decision is the expected one."""
    lab = Workload.build(100, questions=40)
    snapshot = _snapshot(lab)
    assert {rule.shape for rule in lab.rules} == set(SHAPES)
    assert [Engine(snapshot).decide(facts(question), NOW).allowed for question in lab.questions] == [
        question.allowed for question in lab.questions
    ]


def test_strangers_leave_nothing_behind() -> None:
    """Deciding for thousands of unknown subjects grows the process by less than a megabyte."""
    lab = Workload.build(10, questions=4)
    assert strangers(_snapshot(lab), facts(lab.questions[0]), count=5_000) < 1_000_000


def test_the_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One table on the terminal, the same in Markdown and JSON, each from this run."""
    words = ["--quick", "--only", "growth", "--sizes", "10", "--peers", "pycasbin"]
    assert main([*words, "--json", str(tmp_path / "b.json"), "--markdown", str(tmp_path / "b.md")]) == 0
    assert "Growth and floor" in capsys.readouterr().out
    assert "## Growth and floor" in (tmp_path / "b.md").read_text()
    assert '"seed": 20261122' in (tmp_path / "b.json").read_text()


def _snapshot(lab: Workload) -> Snapshot:
    policies = load(sources(lab))
    return Snapshot.of(policies, assign_roles(policies.roles, policies.bindings, policies.exclusions))
