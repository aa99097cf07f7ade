"""`policyguard grant`: what it signs counts until its end, and a mistake signs nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from policyguard.attest.keys import PrivateKey
from policyguard.cli.group import group
from policyguard.errors import ConfigurationError, PolicyGuardError, RequestError
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.gpu_grants import GrantCollector
from policyguard.keyfiles import write_private_key
from policyguard.model.request import Request
from tests.e2e.cli_lab import CliLab

KEY = PrivateKey.generate(b"g" * 32)


def granted(folder: Path, *words: str) -> None:
    """Run the command on a key of the test; its errors rise."""
    if not (folder / "lead.key").exists():
        write_private_key(folder / "lead.key", KEY)
    (folder / "grants").mkdir(exist_ok=True)
    arguments = ["grant", *words, "--key", str(folder / "lead.key")]
    result = CliRunner().invoke(group, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception


def test_a_grant_counts_for_its_subject_and_nobody_else(tmp_path: Path) -> None:
    """The collector supplies it to the one it names, under the pinned key only."""
    granted(tmp_path, "user:ivan", "--gpus", "64", "--until", "3d", "--out", str(tmp_path / "grants/ivan.json"))

    def seen(subject: str, key: PrivateKey) -> Any:
        collector = GrantCollector(str(tmp_path / "grants"), (key.public,))
        request = Request.of(subject, "job:submit", "job:team/vision/x")
        return collector.collect(request, JobInputs(), time.time_ns()).entries["context.grants"].value

    (record,) = seen("user:ivan", KEY)
    assert (record["subject"], record["gpus"]) == ("user:ivan", 64)
    assert seen("user:bob", KEY) == ()
    assert seen("user:ivan", PrivateKey.generate(b"x" * 32)) == ()


MISTAKES: dict[str, tuple[tuple[str, ...], type[PolicyGuardError], str]] = {
    "an end in the past": (("user:ivan", "--gpus", "9", "--until", "2020-01-01T00:00:00Z"), RequestError, "31 days"),
    "an end too far away": (("user:ivan", "--gpus", "9", "--until", "32d"), RequestError, "31 days"),
    "no time at all": (("user:ivan", "--gpus", "9", "--until", "friday"), RequestError, "expected a duration"),
    "a time without a zone": (("user:ivan", "--gpus", "9", "--until", "2026-03-06T18:00:00"), RequestError, "zone"),
    "a name that is no id": (("ivan", "--gpus", "9", "--until", "1h"), RequestError, "type:id"),
}


@pytest.mark.parametrize(("words", "family", "part"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_signs_nothing(
    words: tuple[str, ...], family: type[PolicyGuardError], part: str, tmp_path: Path
) -> None:
    """One line says what was expected, and no file is written."""
    with pytest.raises(family, match=part):
        granted(tmp_path, *words, "--out", str(tmp_path / "grants/x.json"))
    assert list((tmp_path / "grants").iterdir()) == []


def test_a_grant_is_never_overwritten(tmp_path: Path) -> None:
    """The second grant of one name is refused and the first one stays."""
    words = ("user:ivan", "--gpus", "9", "--until", "1h", "--out", str(tmp_path / "grants/x.json"))
    granted(tmp_path, *words)
    before = (tmp_path / "grants/x.json").read_bytes()
    with pytest.raises(ConfigurationError, match="exists already"):
        granted(tmp_path, *words)
    assert (tmp_path / "grants/x.json").read_bytes() == before


@pytest.mark.parametrize(
    ("grants", "said"),
    [
        ("", "`grants:` is not configured"),
        ("grants: {folder: grants, keys: [lead.key.pub]}\n", "`grants.keys` does not list it"),
        ("grants: {folder: grants, keys: [guard.key.pub]}\n", ""),
    ],
)
def test_a_grant_under_a_key_that_is_not_pinned_is_warned_about(lab: CliLab, grants: str, said: str) -> None:
    """Without `--key` the guard's own key signs, which usually counts for nothing."""
    assert lab.here("keys", "new", "lead.key").code == 0
    with lab.path("policyguard.yaml").open("a") as file:
        file.write(grants)
    ended = lab.here("grant", "user:ivan", "--gpus", "8", "--until", "1d", "--out", "g.json")
    assert ended.code == 0, ended.err
    assert said in ended.err
    assert bool(ended.err) is bool(said)
