"""Fixtures of the command-line tests: one `init` for the session, a copy of it for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.cli.group import run
from tests.e2e.cli_lab import CliLab, Ended


@pytest.fixture(scope="session")
def initial_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `policyguard init` has made; tests copy it."""
    folder = tmp_path_factory.mktemp("cli") / "lab"
    assert run(["init", str(folder)]) == 0
    return folder


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run a verb in this process."""

    def run_here(*words: str) -> Ended:
        capsys.readouterr()
        code = run(words)
        return Ended(code, *capsys.readouterr())

    return run_here


@pytest.fixture
def lab(initial_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Callable[..., Ended]) -> CliLab:
    """A fresh lab, which is the current folder."""
    folder = tmp_path / "lab"
    shutil.copytree(initial_folder, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("POLICYGUARD_CONFIG", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    return CliLab(folder, here)
