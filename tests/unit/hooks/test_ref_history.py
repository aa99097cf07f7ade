"""Where decisions say that references may stand: each accepted row of looks beside those one step away."""

from __future__ import annotations

from itertools import count

import pytest

from policyguard.hooks.git.ref_history import NOTHING, Finding, History, Observation

MAIN = "refs/heads/main"
LIFE = 10
"""For so long an accepted move may be made, in these tests."""

Row = tuple[int, str, str] | tuple[int, str, str, bool]


def codes(
    *rows: Row,
    now: int = 1_000,
    present: str = NOTHING,
    begin: dict[str, str] | None = None,
) -> list[str]:
    """Return the findings on decisions (at, old, new[, allowed]) about main, which stands at `present`."""
    history = History({} if begin is None else begin)
    numbers = count()
    for at, old, new, *rest in rows:
        allowed = bool(rest[0]) if rest else True
        history.add(
            Observation(
                entry=next(numbers), ref=MAIN, old=old, new=new, allowed=allowed, issued_at=at, expires=at + LIFE
            )
        )
    return [each.code for each in history.compare({MAIN: present} if present != NOTHING else {}, now)]


CLEAN: dict[str, tuple[list[Row], str]] = {
    "one after the other": ([(0, NOTHING, "a"), (20, "a", "b")], "b"),
    "created and deleted": ([(0, NOTHING, "a"), (20, "a", NOTHING)], NOTHING),
    "there and back, each decided": ([(0, NOTHING, "a"), (20, "a", "b"), (40, "b", "a")], "a"),
    "there and back at once": ([(0, NOTHING, "a"), (1, "a", "b"), (2, "b", "a")], "a"),
    "a refused push between": ([(0, NOTHING, "a"), (20, "a", "x", False), (40, "a", "b")], "b"),
    "two at once, the first won": ([(0, NOTHING, "a"), (20, "a", "b"), (21, "a", "c")], "b"),
    "two at once, the second won": ([(0, NOTHING, "a"), (20, "a", "b"), (21, "a", "c")], "c"),
    "two at once, and one more": ([(0, NOTHING, "a"), (20, "a", "b"), (21, "a", "c"), (90, "b", "d")], "d"),
    "two at once, and back again": ([(0, NOTHING, "a"), (20, "a", "b"), (21, "a", "c"), (90, "c", "a")], "a"),
    "nothing ever": ([], NOTHING),
    "a look without a move": ([(0, NOTHING, NOTHING, False)], NOTHING),
}


@pytest.mark.parametrize("name", CLEAN)
def test_what_decisions_explain_is_no_finding(name: str) -> None:
    """Pushes that git made, refused, or made in another order than they were decided."""
    rows, present = CLEAN[name]
    assert codes(*rows, present=present) == []


FOUND: dict[str, tuple[list[Row], str, list[str]]] = {
    "another value": ([(0, NOTHING, "a")], "x", ["moved"]),
    "gone": ([(0, NOTHING, "a"), (20, "a", "b")], NOTHING, ["vanished"]),
    "never decided": ([], "x", ["uncovered"]),
    "only denied": ([(0, NOTHING, "a", False)], "a", ["moved"]),
    "taken back": ([(0, NOTHING, "a"), (20, "a", "b")], "a", ["taken-back"]),
    "taken back to an older one": ([(0, NOTHING, "a"), (20, "a", "b"), (40, "b", "c")], "a", ["moved"]),
    "moved between decisions": ([(0, NOTHING, "a"), (20, "x", "b")], "b", ["moved"]),
    "taken back between decisions": ([(0, NOTHING, "a"), (20, "a", "b"), (40, "a", "c")], "c", ["taken-back"]),
    "told by a denial": ([(0, NOTHING, "a"), (20, "a", "b"), (40, "a", "c", False)], "a", ["taken-back"]),
    "deleted and decided anew": ([(0, NOTHING, "a"), (20, "a", "b"), (40, NOTHING, "c")], "c", ["moved"]),
    "a deletion that was undone": ([(0, NOTHING, "a"), (20, "a", NOTHING)], "a", ["taken-back"]),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_no_decision_explains_is_a_finding(name: str) -> None:
    """INVARIANT I19: one edit behind git, wherever in the row it falls, is told once."""
    rows, present, expected = FOUND[name]
    assert codes(*rows, present=present) == expected


def test_an_accepted_move_may_be_under_way() -> None:
    """While its decision has not expired, the reference may stand before or after it."""
    for present in ("a", "b"):
        assert codes((0, NOTHING, "a"), (20, "a", "b"), now=25, present=present) == []
    assert codes((0, NOTHING, "a"), (20, "a", "b"), now=30, present="a") == ["taken-back"]


def test_a_baseline_is_where_the_row_begins() -> None:
    """What stood there then needs no decision; without one, what stood there before the first look is said."""
    assert codes((0, "a", "b"), present="b", begin={MAIN: "a"}) == []
    assert codes(present="a", begin={MAIN: "a"}) == []
    assert codes(present="b", begin={MAIN: "a"}) == ["moved"]
    assert codes(begin={MAIN: "a"}) == ["vanished"]
    history = History(None)
    history.add(Observation(entry=4, ref=MAIN, old="a", new="b", allowed=True, issued_at=0, expires=1))
    text = "was at a before the first decision, entry 4; no decision covers that"
    assert history.compare({MAIN: "b"}, 9) == [Finding(code="uncovered-before", ref=MAIN, text=text, entry=4)]


def test_every_single_edit_behind_git_is_found() -> None:
    """All rows of up to four decided moves over three values, each with one undecided move put anywhere in it."""
    values = (NOTHING, "a", "b")
    missed = 0
    for first in values[1:]:
        for second in values:
            for third in values:
                path = [NOTHING, first, second, third]
                if any(path[i] == path[i + 1] for i in range(3)):
                    continue
                rows: list[Row] = [(20 * i, path[i], path[i + 1]) for i in range(3)]
                assert codes(*rows, present=third) == []
                for wrong in set(values) - {third}:
                    assert codes(*rows, present=wrong), (rows, wrong)
                for at in (1, 2):
                    for wrong in set(values) - {path[at]}:
                        edited = [*rows[:at], (20 * at, wrong, path[at + 1] if path[at + 1] != wrong else "c")]
                        missed += not codes(*edited, present=edited[-1][2])
    assert missed == 0
