"""The main job: `policyguard demo` does what the README says of it, in any shell, and fails when something is off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from policyguard.demo import quick as demo_
from tests.e2e.cli_lab import CliLab, process_environment

SCENES = (
    "1. A researcher submits a job from a clean commit",
    "2. The same job, with a change to the optimizer that nobody committed",
    "3. An intern asks for 256 GPUs",
    "4. An allowed decision is tried again elsewhere",
    "5. Somebody edits one byte of the log",
)
SAID = (
    "loss",
    "weight",
    "verified",
    "code.uncommitted",
    "optimizer.py",
    "quota.role_ceiling",
    "user:carol",
    "V7: ",
    "V8: ",
    "V6: ",
    "SOUND",
    "BROKEN  entry 1",
    "Every step behaved as expected.",
)


def test_the_demo_behaves_as_expected_in_a_hostile_shell(tmp_path: Path) -> None:
    """All five scenes go well where the user's shell sets PYTHONPATH, git variables and a configuration of its own."""
    git_config = tmp_path / "gitconfig"
    git_config.write_text(
        "[commit]\n\tgpgsign = true\n[init]\n\tdefaultBranch = trunk\n[core]\n\thooksPath = /nonexistent\n"
    )
    folder = tmp_path / "kept"
    environment = process_environment(
        GIT_DIR="/nonexistent",
        GIT_WORK_TREE="/",
        GIT_CONFIG_GLOBAL=str(git_config),
        HOME=str(tmp_path),
        POLICYGUARD_CONFIG="/nonexistent",
        PYTHONSTARTUP="/nonexistent",
        PYTHONWARNINGS="default",
    )
    done = subprocess.run(
        [sys.executable, "-m", "policyguard", "demo", "--folder", str(folder)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line[:1].isdigit()] == list(SCENES)
    assert [part for part in SAID if part not in done.stdout] == []
    assert "FAILED" not in done.stdout
    assert "\x1b" not in done.stdout
    assert (folder / "audit.db").exists()


def test_a_step_that_goes_otherwise_is_printed_and_counted(lab: CliLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """If an intern were allowed, the demo says FAILED, shows what came, and leaves with 1."""
    monkeypatch.setattr(demo_, "JOB", demo_.JOB.replace("{gpus}", "16"))
    monkeypatch.setattr(demo_, "SUBJECTS", dict.fromkeys(demo_.SUBJECTS, "user:alice"))
    monkeypatch.setattr(demo_, "_replayed", lambda _: None)
    monkeypatch.setattr(demo_, "_tampered", lambda _: None)
    ended = lab.here("demo")
    assert ended.code == 1
    assert "FAILED  denied, with who may raise the ceiling" in ended.out
    assert "exit code 0, expected 77" in ended.out
    assert "1 of the steps did not behave as expected." in ended.out


def test_the_demo_needs_git(lab: CliLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without git there is one line that says so, and nothing of the lab is left."""
    before = set(os.listdir(lab.folder.parent))
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("TMPDIR", str(lab.folder.parent))
    monkeypatch.setattr("tempfile.tempdir", None)
    ended = lab.here("demo")
    assert (ended.code, ended.complaint) == (69, "policyguard: `git` is not installed, the demo needs it")
    assert set(os.listdir(lab.folder.parent)) == before
