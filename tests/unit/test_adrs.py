"""Each architecture decision has the same form, is listed by theme and is in the navigation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADRS = sorted(path for path in (ROOT / "docs" / "adr").glob("*.md") if path.name != "index.md")


@pytest.mark.parametrize("path", ADRS, ids=lambda path: path.stem)
def test_a_decision_has_date_status_options_and_price(path: Path) -> None:
    """The number in the title is that of the file, and no part is missing."""
    text = path.read_text()
    assert text.startswith(f"# {int(path.name[:4])}. ")
    assert re.search(r"^Date: \d{4}-\d\d-\d\d\. Status: (accepted|replaced by \[\d+\]\(.+\))\.$", text, re.MULTILINE)
    assert re.findall(r"^\*\*(\w[\w ]*)\.\*\* ", text, re.MULTILINE) == ["Context", "Options", "Choice", "Given up"]


def test_each_decision_is_listed_by_theme_and_in_the_navigation() -> None:
    """The index names each file once, with its title; so does `mkdocs.yml`."""
    index = (ROOT / "docs" / "adr" / "index.md").read_text()
    titles = {path.name: path.read_text().splitlines()[0].removeprefix("# ") for path in ADRS}
    assert {name: title for title, name in re.findall(r"^- \[(.+)\]\((.+)\)$", index, re.MULTILINE)} == titles
    navigation = re.findall(r": adr/(\d.+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert navigation == sorted(titles)
