"""Attacks between the verification of a job and its start: files of the program are replaced, and put back.

`on_start` runs exactly there. Each attack wins the race every time, and is noticed every time.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.audit.receipt import SignedDecision
from policyguard.hooks.launcher.launch import WatchOptions, launch
from policyguard.verify import VerifiedDecision
from tests.e2e.launcher_lab import Lab, commit_all, make_lab, request

TRAIN = "import sys, time\nopen(sys.argv[1], 'w').write('as decided')\ntime.sleep(30 if len(sys.argv) > 2 else 0)\n"
EVIL = TRAIN.replace("as decided", "sabotage")
STATUS_OF_A_REFUSAL = 77

Attack = Callable[[Path], None]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = make_lab(tmp_path)
    (lab.job / "train.py").write_text(TRAIN)
    (lab.job / "run.sh").write_text(f'#!/bin/sh\nexec {sys.executable} train.py "$@"\n')
    (lab.job / "run.sh").chmod(0o755)
    commit_all(lab.job)
    return lab


def start(lab: Lab, between: Callable[[], object], *argv: str) -> tuple[int, list[SignedDecision]]:
    """Start the job, with something that happens between its verification and its start."""
    alerts: list[SignedDecision] = []

    def on_start(_: VerifiedDecision) -> None:
        between()

    with lab.guard() as guard:
        status = launch(
            guard,
            request(),
            lab.inputs(argv or (sys.executable, "train.py", str(lab.ran), "stay")),
            lab.trust,
            audience="node-1",
            on_start=on_start,
            watch=WatchOptions(on_alert=alerts.append),
        )
    return status, alerts


def write(job: Path) -> None:
    (job / "train.py").write_text(EVIL)


def rename(job: Path) -> None:
    other = job.parent / "other.py"
    other.write_text(EVIL)
    other.rename(job / "train.py")


def link(job: Path) -> None:
    other = job.parent / "other.py"
    other.write_text(EVIL)
    (job / "train.py").unlink()
    (job / "train.py").symlink_to(other)


def remove(job: Path) -> None:
    (job / "train.py").unlink()


def move_folder(job: Path) -> None:
    moved = job.with_name("moved")
    job.rename(moved)
    shutil.copytree(moved, job)
    (job / "train.py").write_text(EVIL)


def back_at_once(job: Path) -> None:
    (job / "train.py").rename(job / "aside")
    (job / "aside").rename(job / "train.py")


def keep_times(job: Path) -> None:
    before = (job / "train.py").stat()
    (job / "train.py").write_text(EVIL + "#" * (before.st_size - len(EVIL)))
    os.utime(job / "train.py", ns=(before.st_atime_ns, before.st_mtime_ns))


ATTACKS = (write, rename, link, remove, move_folder, back_at_once, keep_times)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_script_that_is_replaced_before_the_start_ends_the_job(lab: Lab, attack: Attack) -> None:
    """I15: it may run for some milliseconds, and then the job is ended, with 77 and an alert that names the file."""
    status, alerts = start(lab, lambda: attack(lab.job))
    assert status == STATUS_OF_A_REFUSAL
    assert alerts[0].decision.reason_codes == ("drift.start",)
    assert str(lab.job) in str(alerts[0].decision.facts.missing["resource.start"])


@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.05])
def test_a_script_that_is_put_back_while_the_job_starts_ends_the_job(lab: Lab, delay_s: float) -> None:
    """I15: swapped before the start, restored as soon as the interpreter has read it."""
    aside = lab.folder / "aside"

    def restore() -> None:
        time.sleep(delay_s)
        (lab.job / "train.py").unlink(missing_ok=True)
        aside.rename(lab.job / "train.py")

    def swap() -> None:
        (lab.job / "train.py").rename(aside)
        (lab.job / "train.py").write_text(EVIL)
        threading.Thread(target=restore).start()

    status, alerts = start(lab, swap)
    assert status == STATUS_OF_A_REFUSAL
    assert alerts[0].decision.reason_codes == ("drift.start",)


def test_the_race_is_noticed_ten_times_of_ten(lab: Lab) -> None:
    """I15: also by a job that has ended before anybody could compare it."""
    train = lab.job / "train.py"
    for _ in range(10):
        status, alerts = start(lab, lambda: rename(lab.job), sys.executable, "train.py", str(lab.ran))
        assert (status, [alert.decision.reason_codes for alert in alerts]) == (77, [("drift.start",)])
        train.write_text(TRAIN)


def test_a_program_that_is_replaced_before_the_start_ends_the_job(lab: Lab) -> None:
    """I15: the executable itself, behind a link that leads to another file."""
    link = lab.folder / "shell"
    link.symlink_to("/bin/sh")

    def retarget() -> None:
        link.unlink()
        link.symlink_to(shutil.copy("/bin/sh", lab.folder / "other"))

    status, alerts = start(lab, retarget, str(link), "-c", "sleep 30; true")
    assert status == STATUS_OF_A_REFUSAL
    assert alerts[0].decision.reason_codes == ("drift.start",)


def test_the_folder_is_the_one_that_was_measured(lab: Lab) -> None:
    """I15: a folder that is exchanged is not the one that the job starts in."""
    seen = lab.folder / "seen"

    def exchange() -> None:
        lab.job.rename(lab.folder / "moved")
        lab.job.mkdir()

    start(lab, exchange, "/bin/sh", "-c", f"/bin/pwd -P > {seen}; sleep 30; true")
    assert seen.read_text().strip() == str(lab.folder / "moved")


def nothing() -> None:
    pass


TWINS: dict[str, Callable[[Lab], Callable[[], object]]] = {
    "nothing happens": lambda lab: nothing,
    "another file of the folder is written": lambda lab: lambda: (lab.job / "output.txt").write_text("1"),
    "the script is read": lambda lab: lambda: (lab.job / "train.py").read_text(),
}


@pytest.mark.parametrize("twin", TWINS)
def test_a_job_that_nobody_replaces_is_not_disturbed(lab: Lab, twin: str) -> None:
    """The twin, one step away."""
    status, alerts = start(lab, TWINS[twin](lab), sys.executable, "train.py", str(lab.ran))
    assert (status, alerts, lab.ran.read_text()) == (0, [], "as decided")


@pytest.mark.parametrize(
    "argv",
    [
        ("./run.sh",),
        ("env", "FOO=1", sys.executable, "train.py"),
        ("/bin/sh", "-c", f'cd .. && exec {sys.executable} job/train.py "$0" "$@"'),
    ],
)
def test_a_job_that_starts_the_next_program_is_not_disturbed(lab: Lab, argv: tuple[str, ...]) -> None:
    """The twin: wrappers and scripts become other programs, in other folders, with other variables."""
    status, alerts = start(lab, nothing, *argv, str(lab.ran))
    assert (status, alerts, lab.ran.read_text()) == (0, [], "as decided")


def test_a_job_may_write_where_it_was_started(lab: Lab) -> None:
    """The twin: outputs beside the program, from its first moment."""
    source = (
        "import os, sys\nos.mkdir('out')\nopen('out/log', 'w').write('1')\nos.chdir('out')\nopen(sys.argv[1], 'w')\n"
    )
    (lab.job / "train.py").write_text(source)
    commit_all(lab.job)
    assert start(lab, nothing, sys.executable, "train.py", str(lab.ran)) == (0, [])
