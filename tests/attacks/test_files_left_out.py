"""Policies beside good ones that would not be read: a deny in `deny.YAML` is an error, not silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyguard.cli.group import run
from policyguard.cli.verbs.init_ import create_files
from policyguard.errors import PolicyErrors
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
    "a digit too many": "deny.yaml2",
    "without a suffix": "deny",
    "another suffix": "deny.txt",
    "named like a page": "deny.md",
    "named like a page of another kind": "deny.rst",
    "named like a page for browsers": "deny.html",
    "JSON with comments": "deny.jsonc",
    "a letter of another script": "deny.y\u0430ml",
    "in a hidden folder": ".old/deny.yaml",
    "far below a hidden folder": ".old/more/deny.yaml",
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
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(text)
    return root


@pytest.mark.parametrize("name", LEFT_OUT.values(), ids=LEFT_OUT)
def test_a_policy_that_would_not_be_read_stops_the_load(name: str, tmp_path: Path) -> None:
    """INVARIANT I6: deciding, `lint` and `compile` read the folder by this one function."""
    with pytest.raises(PolicyErrors, match=r"not (be )?read") as caught:
        read_folder(folder(tmp_path, name, '{"apiVersion": "policyguard/v1", "kind": "Policy"}'))
    (error,) = caught.value.errors
    assert "deny" in str(error.span)
    expected = (
        "whose name does not begin with a dot" if name.startswith(".old") else "rename it to `deny.yaml`, or move"
    )
    assert expected in str(error.help)


@pytest.mark.parametrize(
    ("command", "code"), [(("lint",), 1), (("compile", "-o", "out", "--key", "guard.key"), 65), (("decide",), 65)]
)
def test_a_policy_that_would_not_be_read_has_the_code_of_a_mistake_in_policies(
    command: tuple[str, ...],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is the author's mistake, as a wrong field is: a finding of `lint`, bad data elsewhere; every file is named."""
    create_files(tmp_path / "lab")
    monkeypatch.chdir(tmp_path / "lab")
    for name in ("deny.YAML", "deny2.yaml~"):
        Path("policies", name).write_text("kind: Policy\n")
    verb, *options = command
    words = ["--config", "policyguard.yaml", "requests/allowed.json"] if verb == "decide" else ["policies"]
    assert run([verb, *words, *options]) == code
    shown = "".join(capsys.readouterr())
    assert "policies/deny.YAML:1:1: " in shown
    assert "policies/deny2.yaml~:1:1: " in shown
    assert not Path("out").exists()
    # The twin: without them.
    for name in ("deny.YAML", "deny2.yaml~"):
        Path("policies", name).unlink()
    assert run([verb, *words, *options]) == 0


@pytest.mark.parametrize("before", ["", "---\n", "# a comment\n\n", "kind: Policy\n", "```\nquoted\n```\n"])
def test_a_policy_in_a_page_is_a_policy(before: str, tmp_path: Path) -> None:
    """`deny.md` was ignored in silence, as YAML; its twin quotes the same lines."""
    policy = f"{before}apiVersion: policyguard/v1\n"
    with pytest.raises(PolicyErrors, match="not be read"):
        read_folder(folder(tmp_path, "deny.md", policy))
    quoted = "".join(f"    {line}\n" for line in policy.splitlines())
    assert len(read_folder(folder(tmp_path, "deny.md", quoted))) == 1


@pytest.mark.parametrize("name", FINE)
def test_what_is_no_policy_may_lie_beside(name: str, tmp_path: Path) -> None:
    """The twins: documentation, data of adapters, other JSON, folders of tools."""
    assert list(read_folder(folder(tmp_path, name, "{}"))) == [str(tmp_path / "allow.yaml")]


@pytest.mark.parametrize(
    "name", ["README.md", ".git/hooks/sample.yaml", "..2026_11_28/deny.yaml", ".venv/lib/config.yaml"]
)
def test_pages_about_policies_and_hidden_folders_of_others_may_lie_beside(name: str, tmp_path: Path) -> None:
    """A page quotes policies; git and a ConfigMap keep copies in hidden folders; a tool's files are no policies."""
    text = "key: value\n" if name.startswith(".venv") else "```yaml\napiVersion: policyguard/v1\n```\n"
    assert len(read_folder(folder(tmp_path, name, text))) == 1
