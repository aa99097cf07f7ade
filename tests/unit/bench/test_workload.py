"""The benchmark's lab: the same for one seed, half allowed, and every engine answers every question alike."""

from __future__ import annotations

from collections import Counter
from importlib import metadata

import pytest

from bench import peers
from bench.shapes import SHAPES
from bench.workload import SHARES, SIZES, Workload


@pytest.fixture(scope="module")
def lab() -> Workload:
    return Workload.build(100, questions=60)


def test_one_seed_gives_one_lab() -> None:
    """Rules and questions are a function of size and seed; another seed gives others."""
    assert Workload.build(100, questions=20) == Workload.build(100, questions=20)
    assert Workload.build(100, questions=20).rules != Workload.build(100, questions=20, seed=1).rules


@pytest.mark.parametrize("size", SIZES[:3])
def test_half_of_the_questions_are_allowed(size: int) -> None:
    """The lab has exactly as many rules as asked for, every class of them, and as many allowed as denied questions."""
    lab = Workload.build(size, questions=40)
    assert len(lab.rules) == size
    assert {rule.id.rpartition("-")[0] for rule in lab.rules} == set(SHARES)
    assert Counter(question.allowed for question in lab.questions) == {True: 20, False: 20}
    assert all(lab.decide(question) is question.allowed for question in lab.questions)


def test_every_shape_is_met(lab: Workload) -> None:
    """At 100 rules each condition stands in some rule, so no lowering goes untried."""
    assert {rule.shape for rule in lab.rules} == set(SHAPES)


@pytest.mark.parametrize("name", peers.NAMES)
def test_every_peer_answers_every_question_as_the_naive_evaluation(name: str, lab: Workload) -> None:
    """The engines that are compared decide the same thing."""
    try:
        prepared = peers.prepare(name, lab)
    except (ImportError, metadata.PackageNotFoundError):
        pytest.skip(f"{name} is not installed")
    peers.check(name, prepared, lab)


def test_a_peer_that_answers_wrongly_is_named(lab: Workload) -> None:
    """A disagreement stops the run and says which engine and which question."""
    prepared = peers.Prepared(list(lab.questions), lambda _: True)
    with pytest.raises(peers.Disagreement, match="always-yes at 100 rules: expected allowed=False"):
        peers.check("always-yes", prepared, lab)
