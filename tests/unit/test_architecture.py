"""The page about the architecture shows the package as it is."""

from __future__ import annotations

import re

from tests.unit.architecture import PAGE, direct, with_drawing
from tests.unit.test_layers import HEIGHT

ROOT = PAGE.parents[1]


def test_the_drawing_of_the_floors_is_that_of_the_code() -> None:
    """Floors or imports that changed need `python -m tests.unit.architecture`, which draws them again."""
    text = PAGE.read_text()
    assert with_drawing(text) == text


def test_each_room_has_a_row_that_says_what_it_is_for() -> None:
    """No package or top module is missing, and none is listed that is gone."""
    rows = re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", PAGE.read_text().split("## The rooms")[1], re.MULTILINE)
    assert sorted(rows) == sorted(name for name in HEIGHT if name != "__main__")


def test_an_import_that_another_one_implies_is_not_drawn() -> None:
    """The twin: an import that nothing implies is."""
    assert direct({"guard": {"policy", "model"}, "policy": {"model"}, "model": set()}) == {
        "guard": {"policy"},
        "policy": {"model"},
        "model": set(),
    }
    assert direct({"guard": {"audit", "policy"}, "policy": set(), "audit": set()})["guard"] == {"audit", "policy"}


def test_the_places_for_new_things_exist() -> None:
    """Every file and folder that the table names is there; of a name with `<...>`, the folder above."""
    table = PAGE.read_text().split("## Where a new thing goes")[1]
    paths = re.findall(r"`((?:policyguard|docs|tests)/[^`]+?)(?:::\w+)?`", table)
    missing = [path for path in paths if not (ROOT / path.partition("<")[0]).parent.exists()]
    assert len(paths) > 20
    assert [*missing, *(path for path in paths if "<" not in path and not (ROOT / path).exists())] == []
