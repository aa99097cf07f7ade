"""A job file's `action:` chose the rules: under an allow to read logs, any command started, at any size."""

from __future__ import annotations

import sys

import pytest

from tests.e2e.test_cli_run import JobLab, job

__all__ = ["job"]


@pytest.mark.parametrize("action", ["job:logs", "job:kill", "job:modify", "job:preempt", "job:breakglass-exec"])
def test_an_allow_of_something_else_starts_no_command(job: JobLab, action: str) -> None:
    """Researchers may read the logs of their team; that decision is no start, and no worker takes it for one."""
    file = job.lab.path("job.yaml")
    file.write_text(
        f"subject: user:alice\nresource: job:team/vision/run-1\naction: {action}\nproperties: {{gpus: 1}}\n"
    )
    words = (sys.executable, "train.py", str(job.ran))
    ended = job.policyguard("run", "--job", str(file), "--", *words)
    assert ended.code == 65
    assert f"found `{action}`, expected `job:submit` or `job:start`" in ended.err
    assert not job.ran.exists()
    assert [entry["decision"] for entry in job.lab.entries()] == ["deny"]


def test_a_submission_starts_it(job: JobLab) -> None:
    """The twin."""
    file = job.lab.path("job.yaml")
    file.write_text("subject: user:alice\nresource: job:team/vision/run-1\naction: job:submit\nproperties: {gpus: 1}\n")
    ended = job.policyguard("run", "--job", str(file), "--", sys.executable, "train.py", str(job.ran))
    assert ended.code == 3, ended.err
    assert job.ran.exists()


def test_a_worker_takes_no_other_allow_for_a_start(job: JobLab) -> None:
    """`verify --job` refuses before it compares anything: the submitter wrote the job file."""
    submitted = job.policyguard(
        *("run", "--job", "../job.yaml", "--out", "../signed.json"), "--", sys.executable, "train.py", str(job.ran)
    )
    assert submitted.code == 3, submitted.err
    file = job.lab.path("logs.yaml")
    file.write_text("subject: user:alice\nresource: job:team/vision/run-1\naction: job:logs\n")
    ended = job.policyguard("verify", "../signed.json", "--job", str(file), "--", sys.executable, "train.py")
    assert ended.code == 65
    assert "no other action starts a command" in ended.err


@pytest.mark.parametrize("folder", ["", "policies", "policies/new"])
def test_the_guards_own_folder_is_no_output(job: JobLab, folder: str) -> None:
    """A confined job named the lab's folder as its output, and wrote a policy into it."""
    output = job.lab.path("policies" if folder else ".", *folder.split("/")[1:])
    ended = job.policyguard(
        *("run", "--job", "../job.yaml", "--confine", "--output", f"own={output}", "--", sys.executable, "train.py")
    )
    assert ended.code == 65
    assert "of the guard there" in ended.err
    assert not job.ran.exists()


def test_the_guards_key_is_no_data(job: JobLab) -> None:
    key = job.lab.path("guard.key")
    ended = job.policyguard(
        *("run", "--job", "../job.yaml", "--confine", "--data", f"own={key}", "--", sys.executable, "train.py")
    )
    assert ended.code == 65
    assert "the guard's key" in ended.err
