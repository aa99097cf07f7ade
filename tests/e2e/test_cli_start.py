"""`run --confine --from-commit` and `verify` as users call them: options, job files, workers elsewhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from policyguard.confinement.landlock import abi_version
from tests.attacks.git_lab import git
from tests.e2e.test_cli_run import JobLab, job

__all__ = ["job"]

MISSPELT = {
    "run": ("run", "--job", "../job.yaml", "--confin"),
    "run, a short option": ("run", "--job", "../job.yaml", "-x"),
    "run, with a value": ("run", "--job", "../job.yaml", "--outputs=w=/tmp"),
    "run, after the mark": ("run", "--job", "../job.yaml", "--", "-c"),
    "verify": ("verify", "../signed.json", "--job", "../job.yaml", "--confin"),
    "verify, before the file": ("verify", "--confin", "../signed.json", "--job", "../job.yaml"),
    "approve": ("approve", "--job", "../job.yaml", "--confin"),
}


@pytest.mark.parametrize("words", MISSPELT.values(), ids=list(MISSPELT))
def test_a_misspelt_option_is_never_the_program(job: JobLab, words: tuple[str, ...]) -> None:
    """`run --confin` looked for a program called `--confin`; `verify` compared with one."""
    mark = () if words[-2] == "--" else ("--",)
    ended = job.policyguard(*words, *mark, sys.executable, "train.py", str(job.ran))
    assert (ended.code, ended.out) == (64, ""), ended.err
    assert not job.ran.exists()
    assert job.lab.entries() == []


def test_options_of_the_command_are_its_own(job: JobLab) -> None:
    """The twin: whatever comes after the program belongs to it, also without `--`, and if it is one of ours."""
    (job.code / "train.py").write_text("import sys\nopen(sys.argv[1], 'w').write(' '.join(sys.argv[2:]))\n")
    commit(job)
    words = ("train.py", str(job.ran), "--watch", "3", "-q", "--nosuch")
    ended = job.policyguard("run", "--job", "../job.yaml", sys.executable, *words)
    assert ended.code == 0, ended.err
    assert job.ran.read_text() == "--watch 3 -q --nosuch"


def commit(job: JobLab) -> None:
    git(job.code, "add", ".")
    git(job.code, "commit", "-qm", "more")


def started(job: JobLab, *options: str, command: tuple[str, ...] = ()) -> tuple[int, str]:
    words = command or (sys.executable, "train.py", str(job.ran))
    ended = job.policyguard("run", "-q", "--job", "../job.yaml", "--out", "../signed.json", *options, "--", *words)
    return ended.code, ended.err


def test_a_worker_verifies_with_an_export_of_its_own(job: JobLab, tmp_path: Path) -> None:
    """The start and the verification export to different folders, here even on different paths."""
    command = (sys.executable, str(job.code / "train.py"), str(job.ran))
    assert started(job, "--from-commit", command=command) == (3, "")
    elsewhere = tmp_path / "a-much-longer-name-for-temporary-files"
    elsewhere.mkdir(mode=0o700)
    words = ("verify", "../signed.json", "--job", "../job.yaml")
    variables = {"TMPDIR": str(elsewhere)}
    ended = job.policyguard(*words, "--from-commit", "--", *command, variables=variables)
    assert ended.code == 0, ended.err
    (job.code / "train.py").write_text("edited")
    assert job.policyguard(*words, "--from-commit", "--", *command).code == 0
    ended = job.policyguard(*words, "--", *command)
    assert (ended.code, ended.complaint[:15]) == (77, "policyguard: V7")
    commit(job)
    ended = job.policyguard(*words, "--from-commit", "--", *command)
    assert (ended.code, ended.complaint[:15]) == (77, "policyguard: V7")
    assert list(elsewhere.iterdir()) == []


def test_an_edited_work_tree_does_not_matter(job: JobLab) -> None:
    """From nine GPUs on uncommitted changes are denied; the exported commit has none."""
    (job.code / "new.py").write_text("")
    (job.code / "train.py").write_text("raise SystemExit('edited')")
    assert started(job, "--from-commit") == (3, "")
    assert job.ran.read_text() != ""


def test_a_worker_measures_as_the_launcher_was_obliged_to(job: JobLab) -> None:
    """Neither the submitter nor the worker asks for it; the decision says so."""
    path = job.lab.path("policies", "obliging.yaml")
    path.write_text(
        "apiVersion: policyguard/v1\nkind: Policy\nmetadata: {name: obliging, owner: platform}\nrules:\n"
        "  - id: from-the-commit\n    effect: allow\n    actions: [job:submit]\n    resources: {type: job}\n"
        "    when: resource.gpus == 8\n    obligations: [run.from_commit]\n"
    )
    assert started(job) == (3, "")
    words = ("verify", "../signed.json", "--job", "../job.yaml", "--")
    ended = job.policyguard(*words, sys.executable, "train.py", str(job.ran))
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("options", [("--output", "o=../out"), ("--data", "d=../out")])
def test_outputs_without_either_start_are_refused(job: JobLab, options: tuple[str, str]) -> None:
    (job.code.parent / "out").mkdir()
    code, said = started(job, *options)
    assert (code, job.ran.exists()) == (65, False)
    assert "confined or from its commit" in said
    assert [entry["decision"] for entry in job.lab.entries()] == ["deny"]


def test_relative_outputs_are_those_of_the_folder_where_the_job_was_submitted(job: JobLab) -> None:
    (job.code.parent / "out").mkdir()
    (job.code / "train.py").write_text("import sys\nopen(sys.argv[1], 'w').close()\n")
    commit(job)
    starts = [("--from-commit",)] + ([("--confine",), ("--confine", "--from-commit")] if abi_version()[0] > 0 else [])
    for number, start in enumerate(starts):
        command = (sys.executable, "train.py", f"../out/{number}")
        assert started(job, *start, "--output", "o=../out", command=command) == (0, "")
        assert (job.code.parent / "out" / str(number)).exists()
    assert os.listdir(job.code.parent / "out") != []


def test_a_configured_path_that_is_not_there_is_refused_before_the_decision(job: JobLab) -> None:
    """`confinement:` named a folder that one node lacks: ALLOW was logged, then exit 69."""
    if abi_version()[0] < 1:
        pytest.skip(f"needs Landlock: {abi_version()}")
    config = job.lab.path("policyguard.yaml")
    config.write_text(config.read_text() + "\nconfinement: {/nonexistent/cuda: r}\n")
    code, said = started(job, "--confine")
    assert (code, job.ran.exists()) == (69, False)
    assert "`/nonexistent/cuda`: cannot be opened for the job: no such file or directory" in said
    (entry,) = job.lab.entries()
    assert (entry["decision"], entry["reason_codes"]) == ("deny", ["start.refused"])
