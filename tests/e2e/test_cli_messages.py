"""What a new user gets wrong on the command line is one line: what was found, what is expected, what to do next."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from policyguard.confinement.landlock import abi_version
from policyguard.confinement.profile import NEWEST_ABI
from tests.attacks.git_lab import git
from tests.e2e.cli_lab import CliLab
from tests.unit.test_docs_run import ROOT, blocks

RUN = ("run", "--job", "job.yaml")

USAGE: dict[str, tuple[tuple[str, ...], str]] = {
    "a misspelled verb": (("verfy",), "found `verfy`, expected a verb, did you mean `verify`?"),
    "a verb like no other": (("xyzzy",), "found `xyzzy`, expected a verb"),
    "a misspelled subcommand": (("audit", "vrify"), "did you mean `verify`?"),
    "seconds with a unit": (
        (*RUN, "--watch", "60s", "--", "true"),
        "'--watch': found `60s`, expected a number of at least 0.05",
    ),
    "no seconds": ((*RUN, "--watch", "0", "--", "true"), "'--watch': found `0.0`, expected a number of at least 0.05"),
    "an entry in words": (("audit", "show", "abc"), "found `abc`, expected a whole number of at least 0"),
    "many GPUs": (
        ("grant", "user:ivan", "--gpus", "many", "--until", "1d"),
        "'--gpus': found `many`, expected a whole number of at least 1",
    ),
    "a subject without a type": ((*RUN, "--subject", "alice", "--", "true"), "'--subject': found `alice`, expected"),
    "an output without a folder": (
        (*RUN, "--output", "weights", "--", "true"),
        "--output: found `weights`, expected NAME=PATH",
    ),
    "a name to filter by": (
        ("audit", "show", "--subject", "alice"),
        "found `alice`, expected `type:id` such as `user:alice`; ids are literal",
    ),
    "a time in words": (
        ("explain", "--at", "tomorrow", "user:alice", "repo:read", "repo:team/vision/trainer"),
        "found `tomorrow`, expected a date such as `2027-01-05` or a time",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), USAGE.values(), ids=USAGE.keys())
def test_wrong_usage_says_what_is_expected(arguments: tuple[str, ...], message: str, lab: CliLab) -> None:
    """Exit code 64, one line, no word of the parser's own."""
    ended = lab.here(*arguments)
    assert (ended.code, ended.out) == (64, "")
    assert message in ended.complaint
    assert "range" not in ended.complaint


def test_help_is_a_verb_too(lab: CliLab) -> None:
    """`policyguard help` and `policyguard help audit` print what `--help` prints."""
    assert lab.here("help").out == lab.here("--help").out
    assert lab.here("help", "audit").out == lab.here("audit", "--help").out
    assert "hand a log over" in lab.here("keys", "--help").out


def test_a_day_is_its_first_moment(lab: CliLab) -> None:
    """`--at` accepts the dates that `--since` accepts."""
    request = ("user:alice", "repo:read", "repo:team/vision/trainer")
    day = lab.here("explain", "--at", "2027-01-05", *request)
    assert day.out == lab.here("explain", "--at", "2027-01-05T00:00Z", *request).out
    assert day.code == 0


def test_an_export_over_a_file_names_the_option(lab: CliLab) -> None:
    """`--force` is what replaces the file, and only that."""
    lab.here("decide", "requests/allowed.json")
    lab.path("out.jsonl").write_text("mine")
    ended = lab.here("audit", "export", "--output", "out.jsonl")
    assert ended.code == 78
    assert "help: `--force` replaces it" in ended.err
    assert lab.here("audit", "export", "--output", "out.jsonl", "--force").code == 0


def test_a_missing_checkpoint_is_reported_once(lab: CliLab) -> None:
    ended = lab.here("scan", "nope.pt")
    assert (ended.out.count("no such file"), "1 file, 0 bytes:" in ended.out) == (1, True)


def test_a_changed_entry_is_no_riddle(lab: CliLab) -> None:
    """`audit show` of an entry that was changed names the verb that finds out; the entry before it is shown."""
    for _ in range(2):
        lab.here("decide", "requests/allowed.json")
    with sqlite3.connect(lab.path("audit.db")) as connection:
        connection.execute("UPDATE entries SET leaf = X'7B22FF' WHERE idx = 1")
    ended = lab.here("audit", "show", "1")
    assert (ended.code, "codec" in ended.err, "policyguard audit verify" in ended.err) == (1, False, True)
    assert lab.here("audit", "show", "0").code == 0


def test_verify_says_up_to_where_the_end_is_judged(lab: CliLab, tmp_path: Path) -> None:
    """With an older checkpoint only up to its last entry: what was cut off behind it cannot be noticed."""
    lab.here("decide", "requests/allowed.json")
    lab.path("old.txt").write_text(lab.here("audit", "prove").out)
    for _ in range(2):
        lab.here("decide", "requests/allowed.json")
    assert "judged up to entry 2\n" in lab.here("audit", "verify").out
    missing = lab.here("audit", "verify", "--state-dir", str(tmp_path / "none"), "--checkpoint", "old.txt")
    assert (missing.code, "no head file for policyguard/" in missing.err) == (0, True)
    assert f"audit.db in {tmp_path / 'none'}" in missing.err
    assert "judged up to entry 0, the last one of the checkpoint" in missing.out
    assert lab.here("audit", "verify", "--json").data["judged_up_to"] == 2


@pytest.fixture
def job(lab: CliLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a job with a commit, which is the current folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    folder.joinpath("train.py").write_text("print('trained')\n")
    git(folder, "init", "--quiet", ".")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "a job")
    tmp_path.joinpath("job.yaml").write_text("resource: job:team/vision/run-17\nproperties: {gpus: 1}\n")
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("PYTHON")]:
        monkeypatch.delenv(name)
    return folder


def test_the_folder_configures_no_launcher(lab: CliLab) -> None:
    """After `init`, `run` in the lab says which configurations it reads, and that this one is none of them."""
    lab.path("job.yaml").write_text("resource: job:team/vision/run-17\n")
    ended = lab.process("run", "--job", "job.yaml", "--", "true", variables={})
    assert ended.code == 78
    assert "--config FILE" in ended.err
    assert "/etc/policyguard/policyguard.yaml" in ended.err
    assert "no policyguard.yaml of the current folder" in ended.err
    shown = lab.here("run", "--help").out
    assert "by default /etc/policyguard/policyguard.yaml" in " ".join(shown.split())


@pytest.mark.parametrize(("out", "code"), [("d.json", 64), ("../d.json", 0)])
def test_the_answer_is_not_written_into_the_work_tree(lab: CliLab, job: Path, out: str, code: int) -> None:
    """There it would be a change of the job that was just measured; nothing is decided then."""
    config = str(lab.path("policyguard.yaml"))
    options = ("--config", config, "--subject", "user:alice", "--job", "../job.yaml", "--out", out)
    ended = lab.here("run", *options, "--", "python3", "train.py")
    assert ended.code == code, ended.err
    assert ("in the job's repository, expected a path outside it" in ended.err) is (code == 64)
    assert lab.path("audit.db").exists() is (code == 0)


@pytest.mark.skipif(abi_version()[0] < 1, reason="this kernel has no Landlock")
def test_a_missing_output_is_to_be_created(lab: CliLab, job: Path, tmp_path: Path) -> None:
    config = str(lab.path("policyguard.yaml"))
    options = ("--config", config, "--subject", "user:alice", "--job", "../job.yaml", "--confine")
    ended = lab.here("run", *options, "--output", f"weights={tmp_path / 'none'}", "--", "python3", "train.py")
    assert (ended.code, ended.err.count("confinement:")) == (69, 1)
    assert "none`: found no such file or folder, expected one for the confined job: create it" in ended.err


def test_explain_says_how_facts_are_supposed(lab: CliLab) -> None:
    """A request in words lacks what `run` measures; with facts that are supposed there is no hint."""
    request = ("user:alice", "job:submit", "job:team/vision/run-1", "gpus=8")
    assert "`--fact PATH=VALUE@measured`, or `--facts FILE`" in lab.here("explain", *request).err
    assert lab.here("explain", *request, "--fact", "resource.code.dirty=false").err == ""
    misspelled = lab.here("explain", *request, "--role", "resercher@vision")
    assert "did you mean `researcher`?" in misspelled.err


@pytest.mark.skipif(abi_version()[0] < 7, reason="the kernel's Landlock is not newer than what a decision records")
def test_doctor_says_which_interface_a_decision_records(lab: CliLab) -> None:
    assert f"uses Landlock ABI {NEWEST_ABI} of the kernel's {abi_version()[0]}" in lab.here("doctor").out


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_job_of_a_page_runs_after_init(page: str, lab: CliLab) -> None:
    """The commands that a page shows make a job beside the lab, and start it."""
    lab.path(".gitconfig").write_text("[user]\nname = alice\nemail = alice@lab.example\n")
    (block,) = [text for text in blocks(ROOT / page, "console") if "policyguard run " in text]
    lines = [line.removeprefix("$ ") for line in block.splitlines()]
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from policyguard.cli.main import main; main()"
    script = f'set -e; policyguard() {{ "{sys.executable}" -B -P -c "{start}" "$@"; }}\n' + "\n".join(lines)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(lab.folder), "NO_COLOR": "1"}
    ended = subprocess.run(
        ["bash", "-c", script],
        cwd=lab.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout) == (0, "trained\n"), ended.stderr
