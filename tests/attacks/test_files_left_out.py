"""Policies beside good ones that would not be read: a deny in `deny.YAML` is an error, not silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyguard.errors import ConfigurationError
from policyguard.policy.files import read_folder

LEFT_OUT = {
    "capitals": "deny.YAML",
    "one capital": "deny.Yml",
    "a backup": "deny.yaml~",
    "an old copy": "deny.yaml.bak",
    "switched off": "deny.yml.disabled",
    "saved by an editor": "#deny.yaml#",
    "hidden": ".deny.yaml",
    "in JSON": "deny.json",
    "in JSON, capitals": "deny.JSON",
    "a slip of the pen": "deny.ymal",
    "in a folder below": "more/deny.YAML",
}
FINE = (
    "README.md",
    "people.csv",
    "quota.json",
    "CODEOWNERS",
    ".gitignore",
    ".git/config.yaml",
    ".deny.yaml.swp",
    "a.yamlx",
)


def folder(root: Path, name: str, text: str) -> Path:
    (root / "allow.yaml").write_text("kind: Policy\n")
    file = root / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return root


@pytest.mark.parametrize("name", LEFT_OUT.values(), ids=LEFT_OUT)
def test_a_policy_that_would_not_be_read_stops_the_load(name: str, tmp_path: Path) -> None:
    """INVARIANT I6: deciding, `lint` and `compile` read the folder by this one function."""
    with pytest.raises(ConfigurationError, match="would not be read") as caught:
        read_folder(folder(tmp_path, name, '{"apiVersion": "policyguard/v1", "kind": "Policy"}'))
    assert "deny" in caught.value.message
    assert caught.value.help == "rename it to `deny.yaml`, or move it out of the folder"


@pytest.mark.parametrize("name", FINE)
def test_what_is_no_policy_may_lie_beside(name: str, tmp_path: Path) -> None:
    """The twins: documentation, data of adapters, other JSON, folders of tools."""
    assert list(read_folder(folder(tmp_path, name, "{}"))) == [str(tmp_path / "allow.yaml")]
