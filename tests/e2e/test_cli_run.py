"""`policyguard run` as researchers and attackers use it: what is denied never starts, and the denial is on record."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from policyguard.evidence.injection import INJECTION_VARIABLES
from tests.attacks.git_lab import git
from tests.e2e.cli_lab import ROOT, CliLab, Ended, operator_words

START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from policyguard.cli.main import main; main()"
JOB = "subject: user:alice\nresource: job:team/vision/run-17\nproperties: {gpus: 8}\nfiles: [train.py]\n"
TRAIN = "import os, sys\nopen(sys.argv[1], 'w').write(os.environ.get('POLICYGUARD_DECISION', ''))\nsys.exit(3)\n"


@dataclass(frozen=True)
class JobLab:
    """A lab with a committed job, which writes its decision to `ran` and leaves with 3."""

    lab: CliLab
    code: Path
    ran: Path

    def run(
        self,
        *words: str,
        job: str = "../job.yaml",
        before: Callable[[], None] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Ended:
        """Start the job under policyguard, in a process with a small environment and no PYTHONPATH."""
        command = words or (sys.executable, "train.py", str(self.ran))
        return self.policyguard(
            "run", "--job", job, "--out", "../signed.json", "--", *command, before=before, variables=variables
        )

    def policyguard(
        self, *words: str, before: Callable[[], None] | None = None, variables: Mapping[str, str] | None = None
    ) -> Ended:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.lab.folder),
            **(variables or {}),
        }
        done = subprocess.run(
            [
                *(sys.executable, "-B", "-P", "-c", START, str(ROOT)),
                *operator_words(words, self.lab.path("policyguard.yaml")),
            ],
            cwd=self.code,
            env=environment,
            input="",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            preexec_fn=before,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def denied(self, ended: Ended, *reasons: str, code: int = 77) -> None:
        """Assert that nothing ran, and that a signed denial with these reasons is the only entry of the log."""
        assert (ended.code, self.ran.exists()) == (code, False), ended.err
        assert "Traceback" not in ended.err
        [entry] = self.lab.entries()
        assert entry["decision"] == "deny"
        assert set(reasons) <= set(entry["reason_codes"])


@pytest.fixture
def job(lab: CliLab) -> JobLab:
    code = lab.path("code")
    code.mkdir()
    code.joinpath("train.py").write_text(TRAIN)
    lab.path("job.yaml").write_text(JOB)
    lab.path("medium.yaml").write_text(JOB.replace("gpus: 8", "gpus: 16"))
    git(code, "init", "-q", "-b", "main")
    git(code, "add", ".")
    git(code, "commit", "-qm", "a job")
    return JobLab(lab, code, lab.path("ran"))


def test_an_allowed_job_runs_with_its_decision(job: JobLab) -> None:
    """The job gets its signed decision, its exit status comes back, and a worker verifies what it was given."""
    ended = job.run()
    assert ended.code == 3, ended.err
    assert ended.err.startswith("ALLOW  user:alice  job:submit")
    assert json.loads(job.ran.read_text()) == json.loads(job.lab.path("signed.json").read_text())
    words = ("verify", "../signed.json", "--job", "../job.yaml", "--", sys.executable, "train.py")
    assert job.policyguard(*words, str(job.ran)).code == 0
    assert job.policyguard(*words, "elsewhere").complaint.startswith("policyguard: V7: ")


def test_quiet_says_nothing_of_an_allowed_job(job: JobLab) -> None:
    """With -q only the job speaks; a denial is explained all the same."""
    words = ("run", "-q", "--job", "../job.yaml", "--", sys.executable, "train.py", str(job.ran))
    assert job.policyguard(*words).err == ""
    assert job.policyguard(*words, variables={"PYTHONPATH": "/tmp"}).err.startswith("DENY")


def test_the_uncommitted_change_is_named(job: JobLab) -> None:
    """Scenario 7: a medium job from changed code is denied, and the file is in the explanation."""
    job.code.joinpath("train.py").write_text(TRAIN + "# changed\n")
    ended = job.run(job="../medium.yaml")
    job.denied(ended, "code.uncommitted")
    assert "train.py" in ended.err


def test_a_small_job_from_changed_code_is_warned(job: JobLab) -> None:
    """Scenario 7, tier 1: it runs, the warning is in the decision, and the bytes that it ran from are bound (I2)."""
    job.code.joinpath("train.py").write_text(TRAIN + "# changed\n")
    ended = job.run()
    assert ended.code == 3, ended.err
    assert "warn.uncommitted" in ended.err
    words = ("verify", "../signed.json", "--job", "../job.yaml", "--", sys.executable, "train.py", str(job.ran))
    assert job.policyguard(*words).code == 0
    job.code.joinpath("train.py").write_text(TRAIN + "# changes\n")
    assert job.policyguard(*words).complaint.startswith("policyguard: V7: ")


def test_a_small_job_whose_changes_cannot_be_read_is_denied(job: JobLab) -> None:
    """Scenario 7: what nobody can bind by its content is denied in every tier; here a link that leads out."""
    job.code.joinpath("data").symlink_to("/etc")
    job.denied(job.run(), "code.uncommitted")


def test_a_file_that_does_not_exist_is_denied(job: JobLab) -> None:
    """A job file that names what is not there is a signed denial that says which; I2 keeps the job from starting."""
    job.lab.path("missing.yaml").write_text(JOB.replace("train.py", "none.py"))
    ended = job.run(job="../missing.yaml")
    job.denied(ended, "engine.malformed", code=65)
    assert "`none.py`" in ended.err.splitlines()[-1]
    assert job.lab.path("signed.json").exists()


def test_a_command_that_does_not_exist_starts_nothing(job: JobLab) -> None:
    """One line, no traceback, exit code 65: what the caller asks about is missing."""
    ended = job.run("no-such-program", "--now")
    assert ended.code == 65
    assert "no-such-program" in ended.err
    assert "Traceback" not in ended.err


def test_a_repository_of_somebody_else_is_denied(job: JobLab) -> None:
    """Git trusts no repository of another user, and neither do we: the facts are missing, the job is denied."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give files away")
    for path in (job.code, *job.code.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    ended = job.run()
    job.denied(ended)
    assert "resource.code" in ended.err


def test_a_folder_without_a_repository_is_denied(job: JobLab) -> None:
    """What is not committed anywhere cannot be clean."""
    job.code.joinpath(".git").rename(job.lab.path("gone"))
    job.denied(job.run())


HOSTILE_GIT = {
    "GIT_DIR": "/nonexistent",
    "GIT_WORK_TREE": "/",
    "GIT_INDEX_FILE": "/dev/null",
    "GIT_OBJECT_DIRECTORY": "/",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "core.fsmonitor",
    "GIT_CONFIG_VALUE_0": "touch {marker}; false",
    "GIT_EXTERNAL_DIFF": "touch {marker}",
    "GIT_SSH_COMMAND": "touch {marker}",
    "GIT_PAGER": "touch {marker}",
    "GIT_CONFIG_PARAMETERS": "'core.fsmonitor=touch {marker}'",
    "GIT_EXEC_PATH": "/nonexistent",
}


def test_hostile_git_variables_change_nothing(job: JobLab) -> None:
    """With every GIT_* pointing elsewhere the same commit is seen, a change is still named, and nothing is executed."""
    marker = job.lab.path("marker")
    hostile = {name: value.replace("{marker}", str(marker)) for name, value in HOSTILE_GIT.items()}
    clean = job.run(variables=hostile)
    assert clean.code == 3, clean.err
    assert not marker.exists()
    job.ran.unlink(missing_ok=True)
    job.code.joinpath("train.py").write_text(TRAIN + "# changed\n")
    ended = job.run(job="../medium.yaml", variables=hostile)
    assert (ended.code, job.ran.exists(), marker.exists()) == (77, False, False)
    assert job.lab.entries()[-1]["decision"] == "deny"


@pytest.mark.parametrize("door", ["LD_PRELOAD", "PYTHONPATH", "PYTHONSTARTUP", "PYTHON_EXEC"])
def test_injection_variables_in_the_environment_are_denied(door: str, job: JobLab) -> None:
    """A variable that runs other code before the job's own is a denial that names it."""
    assert door in INJECTION_VARIABLES
    ended = job.run(variables={door: "/nonexistent"})
    job.denied(ended, "env.code_injection")
    assert door in ended.err


def test_a_full_disk_starts_no_job(job: JobLab) -> None:
    """A log that cannot grow means no decision, and no decision means no job."""

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    ended = job.run(before=no_room)
    assert (ended.code, job.ran.exists()) == (69, False)
    assert ended.complaint.startswith("policyguard: log ")
    assert not job.lab.path("signed.json").exists()


def test_a_log_that_is_a_folder_starts_no_job(job: JobLab) -> None:
    """The same for a log that is none."""
    job.lab.path("audit.db").mkdir()
    ended = job.run()
    assert (ended.code, job.ran.exists()) == (69, False)
    assert "is not a regular file" in ended.complaint


def test_an_answer_that_cannot_be_written_starts_no_job(job: JobLab) -> None:
    """Where --out leads nowhere the job does not start, and nothing is decided."""
    ended = job.policyguard("run", "--job", "../job.yaml", "--out", "none/s", "--", sys.executable, "train.py", "x")
    assert (ended.code, job.lab.entries()) == (78, [])


def test_a_key_that_others_may_read_starts_no_job(job: JobLab) -> None:
    """A key of mode 0644 signs nothing."""
    job.lab.path("guard.key").chmod(0o644)
    ended = job.run()
    assert (ended.code, job.ran.exists(), job.lab.path("audit.db").exists()) == (78, False, False)


def test_expired_trust_starts_no_job(job: JobLab) -> None:
    """A launcher whose trust has run out refuses its own decision at the start."""
    trust = job.lab.path("trust.yaml")
    trust.write_text(trust.read_text().replace("name: guard", "name: guard\n    expires: '2020-01-01T00:00:00Z'"))
    ended = job.run()
    assert (ended.code, job.ran.exists()) == (77, False)
    assert "V4: " in ended.err


def test_a_decision_starts_one_job(job: JobLab) -> None:
    """With --replay-store the worker refuses what a launcher has used up already."""
    words = ("--job", "../job.yaml", "--replay-store", "../used.db")
    command = ("--", sys.executable, "train.py", str(job.ran))
    assert job.policyguard("run", *words, "--out", "../signed.json", *command).code == 3
    ended = job.policyguard("verify", "../signed.json", *words, *command)
    assert (ended.code, ended.complaint[:17]) == (77, "policyguard: V11:")


def test_file_names_cannot_speak_to_the_terminal(job: JobLab) -> None:
    """A file whose name is an escape sequence is named in the denial, as text."""
    job.code.joinpath("\x1b]0;owned\x07.py").write_text("")
    ended = job.run(job="../medium.yaml")
    job.denied(ended, "code.uncommitted")
    assert not set(ended.err) & set("\x1b\x07")
