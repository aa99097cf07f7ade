"""The environments that a program runs with, from files that anybody may have written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policyguard.evidence.confinement import installations


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A folder like a virtual environment, built on a second one like a Python."""
    for name in ("env/bin", "python/bin", "python/conda-meta"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "env" / "bin" / "tool").touch()
    return tmp_path / "env"


def test_an_environment_and_what_it_is_built_on_are_found(environment: Path) -> None:
    """By `home` in `pyvenv.cfg`, which may be a link."""
    real = environment.parent / "settings"
    real.write_text(f"version = 3.11\nhome = {environment.parent}/python/bin\n")
    (environment / "pyvenv.cfg").symlink_to(real)
    assert installations(str(environment / "bin" / "tool")) == (str(environment), str(environment.parent / "python"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("content", ["a FIFO", "a NUL byte", "no file"])
def test_settings_that_cannot_be_read_name_no_other_folder(environment: Path, content: str) -> None:
    """A FIFO was waited for, until the collector's time limit; a NUL byte in `home` raised."""
    settings = environment / "pyvenv.cfg"
    if content == "a FIFO":
        os.mkfifo(settings)
    elif content == "a NUL byte":
        settings.write_text(f"home = {environment.parent}/python\0/bin\n")
    else:
        (environment / "conda-meta").mkdir()
    assert installations(str(environment / "bin" / "tool")) == (str(environment),)
