"""`decide` in a folder that somebody else filled: its policyguard.yaml configures nothing of the operator's guard."""

from __future__ import annotations

import shutil

import pytest

from tests.e2e.cli_lab import CliLab

HOSTILE = "approvals: approvals\nallowedSigners: signers\nstateDir: st\n"


@pytest.mark.parametrize("given", ["all options", "only the policies"])
def test_a_cloned_repository_does_not_configure_a_decision(lab: CliLab, given: str) -> None:
    """`decide` inside a folder with its own policyguard.yaml: where options name the guard, the file is not read."""
    clone = lab.folder.parent / "clone"
    clone.mkdir()
    clone.joinpath("policyguard.yaml").write_text(HOSTILE + "nonsense: true\n")
    request = str(lab.path("requests", "allowed.json"))
    options = ["--policies", str(lab.path("policies"))]
    if given == "all options":
        options += ["--key", str(lab.path("guard.key")), "--log", str(lab.path("audit.db"))]
    ended = lab.process("decide", *options, request, cwd=clone)
    assert "nonsense" not in ended.out + ended.err
    assert ended.code == (0 if given == "all options" else 78)


@pytest.mark.parametrize("name", ["policies", "key", "log"])
def test_a_folder_cannot_borrow_a_guard_from_elsewhere(lab: CliLab, name: str) -> None:
    """A file that names the guard's own key, log or policies, and brings the rest itself, decides nothing."""
    other = lab.folder.parent / "other"
    shutil.copytree(lab.folder, other)
    config = other / "policyguard.yaml"
    names = {"policies": "policies", "key": "guard.key", "log": "audit.db"}
    config.write_text(config.read_text().replace(f"{name}: {names[name]}", f"{name}: {lab.path(names[name])}"))
    request = str(lab.path("requests", "allowed.json"))
    ended = lab.process("decide", request, cwd=other)
    assert (ended.code, f"{name}: found" in ended.err) == (78, True)
    assert lab.process("decide", request).code == 0


def test_a_configuration_inside_a_repository_is_not_taken_from_the_current_folder(lab: CliLab) -> None:
    """A clone may bring the file; `--config` names it on purpose, and that is the twin."""
    lab.path(".git").mkdir()
    request = str(lab.path("requests", "allowed.json"))
    ended = lab.process("decide", request)
    assert (ended.code, "found in the repository" in ended.err) == (78, True)
    assert lab.process("decide", "--config", "policyguard.yaml", request).code == 0
