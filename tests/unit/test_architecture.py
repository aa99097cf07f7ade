"""The page about the architecture shows the package as it is."""

from __future__ import annotations

import re

from tests.unit.architecture import PAGE, direct, with_drawing
from tests.unit.test_layers import HEIGHT


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
