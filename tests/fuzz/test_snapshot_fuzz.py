"""Signed snapshots with one place changed: refused in words, or nothing raises on them. See `fuzz_snapshot.py`."""

from __future__ import annotations

import random

from tests.fuzz.fuzz_snapshot import Corpus, attempt

MUTANTS = 400


def test_a_changed_snapshot_is_refused_or_never_raises() -> None:
    """INVARIANT I4: everything is checked when a snapshot loads; `policyguard` never meets a surprise later."""
    corpus, pick = Corpus(150), random.Random(8)
    ends = {attempt(corpus, corpus.mutant(pick)[0]) for _ in range(MUTANTS)}
    assert ends == {"refused", "loaded"}


def test_a_signed_file_with_a_member_more_or_less_is_refused_or_never_raises() -> None:
    """A payload without `policy` escaped as a KeyError; a member that is written twice was read as one."""
    corpus, pick = Corpus(20), random.Random(8)
    ends = {(change, attempt(corpus, data)) for data, change in (corpus.member_mutant(pick) for _ in range(MUTANTS))}
    assert ("repeat", "loaded") not in ends
    assert {change for change, end in ends if end == "refused"} == {"remove", "add", "repeat"}
