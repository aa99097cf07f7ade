"""Attacks on approvals that count once: clocks, long logs, threads and processes must not let one count again."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from policyguard.audit.continuity import rotate
from policyguard.audit.head import HeadLocation
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.verbs.approve_.listing import _check_unused
from policyguard.guard import Guard
from policyguard.model.facts import Facts
from tests.unit.audit.test_approval_use import HOUR, KEY, NOW, REQUEST, approved, folder, guard_in, without_claims

__all__ = ["folder"]


@pytest.mark.parametrize("count", [255, 256, 257, 600])
@pytest.mark.parametrize("is_old", [False, True], ids=["new log", "log without claims"])
def test_many_entries_from_a_slow_clock(folder: Path, count: int, is_old: bool) -> None:
    """A page of 256 entries that said to be hours old hid every entry before it."""
    with guard_in(folder) as guard, guard_in(folder, NOW - 5 * HOUR) as slow:
        assert guard.issue(approved()).decision.allowed
        slow.issue_many([Facts(REQUEST)] * count)
    if is_old:
        without_claims(folder)
    with guard_in(folder) as guard:
        assert not guard.issue(approved()).decision.allowed
        assert guard.issue(approved(2)).decision.allowed


@pytest.mark.parametrize("ahead", [-50_000, -1, 1, 50_000])
def test_a_clock_that_jumps(folder: Path, ahead: int) -> None:
    """Whatever the clock of the first decision said, and whatever the approval says of its own time."""
    made = NOW + ahead * HOUR
    with guard_in(folder, made + HOUR // 2) as wrong:
        assert wrong.issue(approved(made=made)).decision.allowed
        wrong.issue_many([Facts(REQUEST)] * 300)
    with guard_in(folder, made + HOUR // 2) as guard:
        assert not guard.issue(approved(made=made)).decision.allowed
        assert guard.issue(approved(2, made=made)).decision.allowed


def test_an_approval_that_first_counted_where_approvals_last(folder: Path) -> None:
    """It is used up for a quorum that counts once, in the same batch and later; the twin is a new approval."""
    stop = REQUEST.of("user:ines", "job:stop", "job:team/vision/run-21")
    with guard_in(folder) as guard:
        signed = guard.issue_many([approved(request=stop), approved(), approved(2)])
        assert [one.decision.allowed for one in signed] == [True, False, True]
        assert guard.issue(approved(3, request=stop)).decision.allowed
        assert not guard.issue(approved(3)).decision.allowed


@pytest.mark.parametrize("is_old", [False, True], ids=["new log", "log without claims"])
def test_a_rotation_of_the_log(folder: Path, is_old: bool) -> None:
    """The new log knows what counted in the old one, and in the one before that; the twin is a new approval."""

    def outcomes(*numbers: int) -> list[bool]:
        made = time.time_ns() - HOUR // 60
        with Guard.open(folder / "policies", key=folder / "guard.key", log=folder / "audit.db") as guard:
            return [guard.issue(approved(number, made=made)).decision.allowed for number in numbers]

    assert outcomes(1) == [True]
    for number in (2, 3):
        if is_old:
            without_claims(folder)
            is_old = False
        rotate(str(folder / "audit.db"), KEY, HeadLocation(str(folder), ""), archive=None, reason="full", now=NOW)
        assert outcomes(number, *range(1, number + 1)) == [True] + [False] * number


OTHER = """
import sys
from pathlib import Path
from tests.unit.audit.test_approval_use import approved, guard_in
with guard_in(Path(sys.argv[1])) as guard:
    print([guard.issue(approved(number)).decision.allowed for number in range(20)])
"""


@pytest.mark.parametrize("is_old", [False, True], ids=["new log", "log without claims"])
def test_processes_with_the_same_approvals(folder: Path, is_old: bool) -> None:
    """Each of twenty approvals counts in one of three processes, also while the claims are being made."""
    with guard_in(folder) as guard:
        guard.issue_many([Facts(REQUEST)] * 300)
    if is_old:
        without_claims(folder)
    others = [
        subprocess.Popen([sys.executable, "-c", OTHER, str(folder)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = [other.communicate(timeout=120)[0].strip("[]\n").split(", ") for other in others]
    assert all(sorted(of_one) == ["False", "False", "True"] for of_one in zip(*answers, strict=True))


def test_a_reader_without_write_access_sees_what_is_used(folder: Path) -> None:
    """`approve --list` and `explain` read claims, or entries where there are none."""
    with guard_in(folder) as guard:
        assert guard.issue(approved()).decision.allowed
    for _ in range(2):
        with pytest.raises(Exception, match="counted for entry 0 of the log"):
            _check_unused(approved().approvals, folder / "audit.db")
        _check_unused(approved(2).approvals, folder / "audit.db")
        with SqliteStore.open(folder / "audit.db", read_only=True) as store:
            if not store.claims.is_complete:
                return
        without_claims(folder)
