"""The seam: what one collector does cannot spoil what the others saw, and can only take access away."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from policyguard.attest.signers import Signers
from policyguard.errors import EvidenceError
from policyguard.evidence.approvals.artifact_collector import ArtifactReviewCollector
from policyguard.evidence.approvals.collectors import RequestReviewCollector, ReviewedRepositoryCollector, ReviewFiles
from policyguard.evidence.breakglass import ReviewCollector
from policyguard.evidence.checkpoint import CheckpointCollector, JobCheckpoints
from policyguard.evidence.collector import Collected, Collector, JobInputs, gather
from policyguard.evidence.confinement import ConfinementCollector
from policyguard.evidence.dataset import DatasetCollector
from policyguard.evidence.environment_collector import EnvironmentCollector, MissingBaselineCollector
from policyguard.evidence.from_commit import FromCommitCollector
from policyguard.evidence.gpu_grants import GrantCollector
from policyguard.evidence.identity import IdentityCollector
from policyguard.evidence.injected import InjectionCollector
from policyguard.evidence.job import JobCollector
from policyguard.evidence.platform import ChannelCollector
from policyguard.evidence.program import ProgramCollector
from policyguard.evidence.push.certificate import Signed
from policyguard.evidence.push.collector import PushCollector
from policyguard.evidence.quota import QuotaCollector
from policyguard.evidence.repository import RepositoryCollector
from policyguard.evidence.scale import ScaleCollector
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.request import Request

NOW = 1_700_000_000_000_000_000
REQUEST = Request.of("user:alice", "job:submit", "job:team/vision/run-17", gpus=8)


def fact(value: object, assurance: Assurance = Assurance.MEASURED, source: str = "test") -> Fact:
    return Fact(value, assurance, source, NOW)  # type: ignore[arg-type]


class Answering:
    """A collector that supplies what it is told to, right or wrong."""

    def __init__(self, entries: Mapping[str, object], declares: tuple[str, ...] = ("resource.gpus",)) -> None:
        self.name = "answering"
        self.declares = declares
        self.entries = entries

    def collect(self, request: Request, inputs: JobInputs, now: int) -> Collected:
        return Collected(entries=self.entries)  # type: ignore[arg-type]


class Raising(Answering):
    def __init__(self, problem: BaseException) -> None:
        super().__init__({})
        self.name = "raising"
        self.problem = problem

    def collect(self, request: Request, inputs: JobInputs, now: int) -> Collected:
        raise self.problem


class Hanging(Answering):
    def __init__(self) -> None:
        super().__init__({"resource.gpus": fact(1)})
        self.name = "hanging"
        self.release = threading.Event()

    def collect(self, request: Request, inputs: JobInputs, now: int) -> Collected:
        self.release.wait(20)
        return Collected(entries={"resource.gpus": fact(1)})


def look(*collectors: Collector, request: Request = REQUEST, timeout_s: float = 5.0) -> Facts:
    return gather(request, collectors, JobInputs(), lambda: NOW, timeout_s)


def test_claims_count_where_nothing_is_measured() -> None:
    """Without a collector the request's own properties are claimed facts."""
    found = look().entries
    assert {"resource.gpus"} == set(found)
    assert (found["resource.gpus"].value, found["resource.gpus"].assurance) == (8, Assurance.CLAIMED)


def test_the_higher_assurance_wins() -> None:
    """A measured value replaces the claim."""
    assert look(Answering({"resource.gpus": fact(512)})).entries["resource.gpus"].value == 512


def test_equal_assurance_that_disagrees_is_no_fact() -> None:
    """I1: two measurements that differ are absent, and so is the weaker claim."""
    facts = look(Answering({"resource.gpus": fact(8)}), Answering({"resource.gpus": fact(9)}))
    assert "resource.gpus" not in facts.entries
    assert "disagree" in str(facts.missing["resource.gpus"])


def test_equal_assurance_that_agrees_is_one_fact() -> None:
    """I1, the twin: two equal measurements are a fact."""
    facts = look(Answering({"resource.gpus": fact(8)}), Answering({"resource.gpus": fact(8)}))
    assert facts.entries["resource.gpus"].value == 8


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("bound", [0, 1])
def test_of_equal_facts_the_newer_date_counts(order: tuple[int, int], bound: int) -> None:
    """The age of a fact is that of its last observation; what one collector binds stays bound."""
    ages = [Fact(8, Assurance.MEASURED, f"{age} s ago", NOW - age * 10**9, age == bound) for age in (0, 1)]
    facts = look(*(Answering({"resource.gpus": ages[index]}) for index in order))
    assert facts.entries["resource.gpus"] == Fact(8, Assurance.MEASURED, "0 s ago", NOW, True)


@pytest.mark.parametrize(
    ("observed_at", "words"),
    [
        (NOW + 1, "in the future"),
        (NOW + 10**12, "observed 1000.000 s in the future"),
        (2**63 - 1, "in the future"),
        (None, "without the time"),
        (True, "without the time"),
        (1.5, "without the time"),
        ("2026-01-01", "without the time"),
        (2**63, "without the time"),
        (-(2**70), "without the time"),
    ],
)
def test_a_fact_that_cannot_be_dated_is_absent(observed_at: Any, words: str) -> None:
    """I2: neither a date from the future nor none at all; the claim does not step in. The twin is dated now."""
    facts = look(Answering({"resource.gpus": Fact(8, Assurance.MEASURED, "test", observed_at)}))
    assert "resource.gpus" not in facts.entries
    assert words in str(facts.missing["resource.gpus"])
    assert look(Answering({"resource.gpus": Fact(8, Assurance.MEASURED, "test", NOW)})).entries


class Contributing(Answering):
    def __init__(self, accounts: tuple[str, ...] | None, *, unknown: bool = False) -> None:
        super().__init__({}, ())
        self.accounts, self.unknown = accounts, unknown

    def collect(self, request: Request, inputs: JobInputs, now: int) -> Collected:
        return Collected(contributors=self.accounts, contributors_unknown=self.unknown)


class NeverContributing(Raising):
    measures_contributors = False


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("accounts", [(), ("user:alice",)])
def test_unknown_contributors_are_never_replaced(accounts: tuple[str, ...], first: bool) -> None:
    """I8: a collector that saw none does not speak for one that could not measure."""
    for blind in (Contributing(None, unknown=True), Contributing(("user:bob",), unknown=True), Raising(OSError())):
        pair: list[Collector] = [blind, Contributing(accounts)]
        assert look(*(pair if first else pair[::-1])).contributors is None
    hanging = Hanging()
    assert look(hanging, Contributing(accounts), timeout_s=0.05).contributors is None
    hanging.release.set()


def test_contributors_of_all_collectors_are_united() -> None:
    """The twin: who does not determine contributors, by its answer or its declaration, takes nothing away."""
    others: list[Collector] = [Contributing(None), NeverContributing(OSError()), Contributing(("user:b",))]
    assert look(*others, Contributing(())).contributors == ("user:b",)
    assert look(Contributing(()), Contributing(None)).contributors == ()
    assert look(Contributing(None)).contributors is None


def test_true_is_not_one() -> None:
    """I1: `true` and 1 are different values although Python calls them equal."""
    facts = look(Answering({"resource.gpus": fact(True)}), Answering({"resource.gpus": fact(1)}))
    assert "resource.gpus" not in facts.entries


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (EvidenceError("the disk is gone"), "raising: the disk is gone"),
        (RuntimeError("first\nsecond"), "raising: the collector failed: first\\nsecond"),
        (RecursionError(), "raising: the collector failed"),
        (SystemExit(3), "raising: the collector failed: 3"),
    ],
    ids=["an error of ours", "somebody's bug", "too deep", "an attempt to end the process"],
)
def test_a_broken_collector_leaves_an_absent_fact_and_a_reason(problem: BaseException, words: str) -> None:
    """I2: nothing rises, the fact is missing, and the request's claim does not step in for it."""
    facts = look(Raising(problem))
    assert "resource.gpus" not in facts.entries
    assert str(facts.missing["resource.gpus"]).startswith(words)
    assert "claim does not count" in str(facts.missing["resource.gpus"])


class RaisingMapping(dict[str, Fact]):
    def items(self) -> Any:
        raise RuntimeError("a mapping with code")


MALFORMED: dict[str, Any] = {
    "no entries": {"entries": None},
    "entries that are a list": {"entries": [fact(8)]},
    "entries with code": {"entries": RaisingMapping()},
    "no reasons": {"missing": None},
    "contributors that are a number": {"contributors": 5},
    "contributors that are text": {"contributors": "user:alice"},
    "a contributor that is none": {"contributors": (1, None)},
    "no approvals": {"approvals": None},
    "an approval that is none": {"approvals": ("user:bob",)},
    "unusable lines that are none": {"unusable": None},
    "an unknown that is text": {"contributors_unknown": "no"},
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_answer_of_a_collector_is_a_failure_that_names_it(fields: dict[str, Any]) -> None:
    """It was raised out of `Guard.decide`, and nothing was logged; its twin is the well-formed answer."""

    class Malformed(Answering):
        def collect(self, request: Request, inputs: JobInputs, now: int) -> Collected:
            return Collected(**fields)

    facts = gather(REQUEST, (Malformed({}),), JobInputs(), lambda: NOW)
    assert "answering: the collector's answer is malformed" in str(facts.missing["resource.gpus"])
    assert facts.contributors is None
    well_formed = gather(REQUEST, (Answering({"resource.gpus": fact(8)}),), JobInputs(), lambda: NOW)
    assert well_formed.entries["resource.gpus"].value == 8


def test_a_collector_that_is_interrupted_prints_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """A thread's KeyboardInterrupt is a failed collector, as SystemExit is."""
    facts = gather(REQUEST, (Raising(KeyboardInterrupt()),), JobInputs(), lambda: NOW)
    assert "the collector failed: KeyboardInterrupt" in str(facts.missing["resource.gpus"])
    assert capsys.readouterr().err == ""


def test_a_slow_collector_is_abandoned() -> None:
    """I2: the look ends at its time limit, and what the slow one finds later is not used."""
    hanging = Hanging()
    begun = time.monotonic()
    facts = look(hanging, Answering({"resource.nodes": fact(2)}, ("resource.nodes",)), timeout_s=0.1)
    hanging.release.set()
    assert time.monotonic() - begun < 3
    assert "longer than 0.1 s" in str(facts.missing["resource.gpus"])
    assert facts.entries["resource.nodes"].value == 2


def test_another_collector_may_supply_what_one_missed() -> None:
    """A path is missing only if nobody supplied it."""
    facts = look(Raising(RuntimeError("x")), Answering({"resource.gpus": fact(16)}))
    assert facts.entries["resource.gpus"].value == 16
    assert not facts.missing


def test_undeclared_paths_are_refused() -> None:
    """I17: a collector cannot speak about what it did not announce; what it declared still counts."""
    facts = look(Answering({"subject.employment": fact("fte"), "resource.gpus": fact(4)}))
    assert "subject.employment" not in facts.entries
    assert "does not declare" in str(facts.missing["subject.employment"])
    assert facts.entries["resource.gpus"].value == 4


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("resource.gpus", fact(1.5)),
        ("resource.gpus", fact(None)),
        ("resource.gpus", 8),
        ("resource.a.b", fact(1)),
        ("gpus", fact(1)),
    ],
    ids=["a float", "a null", "a bare value", "three segments", "one segment"],
)
def test_what_is_no_fact_is_refused(path: str, value: object) -> None:
    """I2: wrong kinds of answers are absent facts, never exceptions."""
    facts = look(Answering({path: value}, (path,)), request=Request.of("user:a", "job:submit", "job:x"))
    assert path not in facts.entries
    assert path in facts.missing


def test_a_declared_path_that_is_not_supplied_has_a_reason() -> None:
    """Whoever is denied learns that somebody looked and did not see."""
    assert look(Answering({})).missing["resource.gpus"].startswith("answering: not seen")  # type: ignore[union-attr]


def test_facts_are_dated_at_the_start_of_the_measurement() -> None:
    """The clock is read once, before the looking."""
    times = iter([NOW, NOW + 1])
    facts = gather(REQUEST, [IdentityCollector()], JobInputs(), lambda: next(times))
    assert {NOW} == {found.observed_at for found in facts.entries.values()}


def test_a_channel_vouches_for_what_it_was_named_for() -> None:
    """I1: named paths rise to observed, the others stay claims; a named path that nobody set is missing."""
    channel = ChannelCollector(("subject.uid", "resource.gpus", "resource.gpus"))
    assert channel.declares == ("resource.gpus", "subject.uid")
    request = Request.of("user:alice", "job:submit", "job:team/vision/run-17", gpus=8, nodes=2)
    collected = channel.collect(request, JobInputs(), NOW)
    assert {path: (found.value, found.assurance) for path, found in collected.entries.items()} == {
        "resource.gpus": (8, Assurance.OBSERVED)
    }
    assert collected.missing == {"subject.uid": "the calling platform did not say"}


ALL_COLLECTORS: tuple[Collector, ...] = (
    IdentityCollector(),
    JobCollector(),
    RepositoryCollector(),
    RequestReviewCollector((), ReviewFiles(approvals=Path("/nonexistent/approvals")), ("job:submit",)),
    ReviewedRepositoryCollector((), ReviewFiles(approvals=Path("/nonexistent/approvals"))),
    ArtifactReviewCollector((), ReviewFiles(approvals=Path("/nonexistent/approvals")), "checkpoint", lambda: "0" * 64),
    ChannelCollector(("resource.gpus", "subject.uid")),
    EnvironmentCollector("/nonexistent/baseline", ()),
    MissingBaselineCollector(),
    ReviewCollector(Path("/nonexistent/audit.db"), ()),
    CheckpointCollector(),
    DatasetCollector(),
    JobCheckpoints(),
    GrantCollector("/nonexistent/grants"),
    QuotaCollector(file="/nonexistent/quota.json"),
    InjectionCollector(),
    ProgramCollector(),
    ScaleCollector(),
    ConfinementCollector(),
    FromCommitCollector(),
    PushCollector(EvidenceError("not seen"), Signed(status="none"), Signers(()), "REMOTE_USER"),
)

HARD_INPUTS = {
    "nothing": JobInputs(),
    "a folder that does not exist": JobInputs(argv=("python", "x.py"), directory="/nonexistent/folder"),
    "a relative folder": JobInputs(argv=("",), directory="."),
    "bytes that are no UTF-8": JobInputs(argv=("python", "\udcff.py"), directory="/tmp", files=("\udcfe",)),
    "NUL in every name": JobInputs(argv=("a\0b",), directory="/\0", files=("\0",), environment={"PATH": "\0"}),
    "a device": JobInputs(argv=("/dev/zero",), directory="/dev", files=("zero", "/dev/zero")),
    "a file as folder": JobInputs(argv=("ls",), directory="/etc/passwd"),
    "confined, with strange folders": JobInputs(
        argv=("/bin/true",), directory="/tmp", confine=True, outputs={"x": "/nonexistent"}, data={"y": "\0", "z": "/"}
    ),
}


@pytest.mark.parametrize("collector", ALL_COLLECTORS, ids=lambda collector: str(collector.name))
@pytest.mark.parametrize("inputs", HARD_INPUTS.values(), ids=HARD_INPUTS.keys())
def test_every_collector_keeps_the_contract(collector: Collector, inputs: JobInputs) -> None:
    """I2 and I17: every declared path is either a fact or missing with a reason in one line; in time, no error."""
    facts = gather(REQUEST, [collector], inputs, lambda: NOW, timeout_s=5.0)
    seen = set(facts.entries) | set(facts.missing)
    assert set(collector.declares) <= seen
    assert seen <= {*collector.declares, "resource.gpus"}
    assert all("\n" not in str(reason) and "longer than" not in str(reason) for reason in facts.missing.values())


def test_the_contract_test_knows_every_collector() -> None:
    """A new `...Collector` class in the room must be added to the contract test."""
    room = Path(__file__).parents[3] / "policyguard" / "evidence"
    written = {
        line.split("(")[0].split(":")[0].removeprefix("class ")
        for file in room.rglob("*.py")
        for line in file.read_text().splitlines()
        if line.startswith("class ") and ("Collector" in line or "JobCheckpoints" in line) and "Protocol" not in line
    }
    assert {type(collector).__name__ for collector in ALL_COLLECTORS} == written
