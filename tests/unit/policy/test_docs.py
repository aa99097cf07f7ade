"""The page on the policy language tells the truth: its documents load, its tables name every field there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policyguard.policy.documents import TABLES
from policyguard.policy.loader import load

PAGE = (Path(__file__).parents[3] / "docs" / "policy-language.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_documents_on_the_page_are_one_policy_set() -> None:
    """All YAML blocks together load without an error."""
    found = load({f"block-{i}.yaml": block.encode() for i, block in enumerate(BLOCKS)})
    assert {"freeze", "foreign-pickle", "vision-keeps-small"} <= {rule.id for rule in found.rules}


@pytest.mark.parametrize("kind", TABLES)
def test_every_field_of_every_kind_is_on_the_page(kind: str) -> None:
    """A field that is added to the language is added to the page."""
    assert f"`{kind}`" in PAGE
    for name in TABLES[kind]:  # type: ignore[index]
        assert re.search(rf"\b{name}\b", PAGE), name
