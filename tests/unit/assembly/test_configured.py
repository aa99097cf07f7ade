"""What `Guard.from_config` opens: everything that a guard needs is named, and the options are those of the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyguard.assembly.configured import configured_guard
from policyguard.attest.keys import PrivateKey
from policyguard.errors import ConfigurationError
from policyguard.keyfiles import write_private_key
from policyguard.model.decision import DEFAULT_AUDIENCE, DEFAULT_LIFETIME_S

KEY = PrivateKey.generate(b"\7" * 32)
NAMED = {"policies": "policies", "key": "guard.key", "log": "audit.db"}


def configuration(folder: Path, *lines: str, without: str = "") -> Path:
    write_private_key(folder / "guard.key", KEY)
    (folder / "policies").mkdir()
    text = [f"{name}: {path}" for name, path in NAMED.items() if name != without]
    (folder / "policyguard.yaml").write_text("\n".join([*text, *lines]) + "\n")
    return folder / "policyguard.yaml"


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """What the file does not say has the default of every guard."""
    parts = configured_guard(configuration(tmp_path))
    assert (parts.policies, parts.log) == (tmp_path / "policies", tmp_path / "audit.db")
    assert parts.key.public == KEY.public
    assert (parts.options["audience"], parts.options["lifetime_s"]) == (DEFAULT_AUDIENCE, DEFAULT_LIFETIME_S)
    assert parts.options["reserve"] is None


def test_the_options_are_those_of_the_file(tmp_path: Path) -> None:
    """The twin: each is passed on."""
    lines = ("audience: node-1", "lifetime: 60s", "accounts: {root: user:alice}", "speakFor: [slurm]")
    options = configured_guard(configuration(tmp_path, *lines)).options
    assert (options["audience"], options["lifetime_s"]) == ("node-1", 60)
    assert options["accounts"] == ({"root": "user:alice"}, frozenset({"slurm"}))


@pytest.mark.parametrize("name", NAMED)
def test_what_a_guard_needs_is_named(tmp_path: Path, name: str) -> None:
    """The message names the file and the field."""
    path = configuration(tmp_path, without=name)
    with pytest.raises(ConfigurationError, match=f"{path}: `{name}` is missing, expected a path"):
        configured_guard(path)


def test_a_job_in_the_folder_of_the_configuration_is_refused(tmp_path: Path) -> None:
    """A job must not be able to change what decides about it."""
    check = configured_guard(configuration(tmp_path)).options["check_folder"]
    with pytest.raises(ConfigurationError):
        check(str(tmp_path))
    elsewhere = tmp_path.parent / f"{tmp_path.name}-job"
    elsewhere.mkdir()
    check(str(elsewhere))
