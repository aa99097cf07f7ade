"""The incident, replayed: every step of the attack is refused, or leaves a trace that nobody can remove."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from policyguard.cli.verbs.demo_ import command
from policyguard.confinement.landlock import abi_version
from policyguard.demo.incident import replay
from policyguard.demo.incident.confined import TRIED
from policyguard.demo.incident.lab import Lab
from policyguard.demo.incident.story import Outcome, Story
from policyguard.demo.incident.weights import write_hostile, write_weights
from policyguard.scan.files import scan_file

NAMES = (
    "rights",
    "weights",
    "backdoor",
    "patch",
    "scale",
    "framework",
    "kills",
    "colleagues_weights",
    "reverted",
    "policies",
    "blame",
    "undetected",
    "confined",
)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """One whole replay; the tests below read what happened."""
    return replay.play(tmp_path_factory.mktemp("incident") / "lab")


def of(story: Story, step: int) -> list[Outcome]:
    return [outcome for outcome in story.outcomes if outcome.step == step]


def test_the_replay_has_the_twelve_steps_of_the_attack_and_a_confined_job() -> None:
    """No step of the attack table is left out, and their order is that of the table."""
    assert tuple(step.__name__ for step in replay.STEPS) == NAMES


@pytest.mark.parametrize("step", range(1, 14), ids=NAMES)
def test_each_step_ends_as_expected(story: Story, step: int) -> None:
    """I12: every attempt of the step is denied, refused, or told; and each step leaves an entry in the log."""
    outcomes = of(story, step)
    assert [outcome.what for outcome in outcomes if not outcome.good] == []
    assert any(outcome.entry is not None for outcome in outcomes) or (step == 13 and abi_version()[0] < 1)
    assert any(outcome.text.startswith(("DENY", "REFUSED")) for outcome in outcomes) or step in (12, 13)


@pytest.mark.skipif(abi_version()[0] < 6, reason=f"Landlock ABI 6 is needed: {abi_version()}")
def test_the_kernel_refuses_what_the_confined_job_tries(story: Story) -> None:
    """A colleague's checkpoint, a foreign program, another job, its own code."""
    refused = [outcome.what for outcome in of(story, 13) if outcome.what.startswith("the kernel refuses")]
    assert refused == [f"the kernel refuses {what}" for what in TRIED.values()]


def test_no_entry_can_be_removed_unnoticed(story: Story) -> None:
    """Deleting, renumbering, cutting off or changing any entry of the replay fails against the kept checkpoints."""
    last = of(story, 14)
    assert len(last) == 1 + len(replay.REMOVALS)
    assert all(outcome.good for outcome in last)


def test_a_story_that_ends_otherwise_is_reported_and_fails(tmp_path: Path) -> None:
    """The replay is no film: where the guard allows what the story calls denied, the outcome is bad and the code 1."""
    lab = Lab(tmp_path / "lab")
    try:
        story = Story(root=str(lab.root))
        story.denied("an allowed job is called denied", lab.decide(*lab.job("alice", "run", 8)), "ok.tier1")
        story.refused("nothing refuses", "V7", lambda: None)
    finally:
        lab.close()
    assert len(story.failures) == 2
    assert replay._report(story) == 1


def test_the_folder_must_be_new(tmp_path: Path) -> None:
    """Nothing that exists is touched."""
    result = CliRunner().invoke(command, ["incident", "--folder", str(tmp_path)])
    assert result.exit_code != 0
    assert list(tmp_path.iterdir()) == []


def test_the_weights_of_the_replay_are_what_they_claim(tmp_path: Path) -> None:
    """The honest checkpoint scans clean and the hostile one hostile: the replay's steps differ in nothing else."""
    write_weights(tmp_path / "good.pt", (1.0, 2.0, 3.0))
    write_hostile(tmp_path / "bad.pt", tmp_path / "marker")
    assert scan_file(tmp_path / "good.pt").verdict == "clean"
    assert scan_file(tmp_path / "bad.pt").verdict == "hostile"
    assert not (tmp_path / "marker").exists()
