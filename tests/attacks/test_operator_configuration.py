"""Attacks on the configuration: nobody but the operator says what is measured, with whose keys, and which program runs.

Each attack has a twin one step away that is allowed.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from policyguard import ConfigurationError, Guard
from policyguard.cli.verbs.init_ import create_files
from policyguard.config.operator import operator_config
from policyguard.fs import ownership
from policyguard.fs.ownership import check_owned, check_owned_tree, check_resolved, read_owned
from tests.attacks.git_lab import git
from tests.e2e.cli_lab import ROOT, Ended

STRANGER = 12345
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")


@dataclass(frozen=True)
class Lab:
    """`op` belongs to the operator, `job` is the folder and repository of the submitter."""

    op: Path
    job: Path

    @property
    def config(self) -> Path:
        return self.op / "policyguard.yaml"

    @property
    def options(self) -> tuple[str, ...]:
        names = ("policies", "guard.key", "audit.db", "trust.yaml")
        paths = zip(("--policies", "--key", "--log", "--trust"), (str(self.op / name) for name in names), strict=True)
        return tuple(word for pair in paths for word in pair)

    def policyguard(self, *words: str, stdin: bytes | str = b"", **variables: str) -> Ended:
        start = "import sys; sys.path.insert(0, sys.argv.pop(1)); from policyguard.cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-P", "-c", start, str(ROOT), *words],
            cwd=self.job,
            env={"PATH": os.environ["PATH"], "NO_COLOR": "1", **variables},
            input=stdin if isinstance(stdin, bytes) else stdin.encode(),
            capture_output=True,
            check=False,
        )
        assert b"Traceback" not in done.stderr
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    def run(self, *words: str, **variables: str) -> Ended:
        job = self.job.parent / "job.yaml"
        job.write_text("subject: user:alice\nresource: job:team/vision/run-17\nproperties: {gpus: 8}\n")
        command = ("--subject", "user:alice", "--job", str(job), "--", sys.executable, "train.py")
        return self.policyguard("run", *words, *command, **variables)

    def refused(self, ended: Ended, *texts: str) -> None:
        """Assert exit code 78, one line that says these texts, nothing logged and nothing started by the guard."""
        assert ended.code == 78, ended
        message = ended.complaint if ended.err else ended.out
        for text in texts:
            assert text in message
        assert not (self.op / "audit.db").exists()
        assert not (self.job.parent / "marker").exists()


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    create_files(tmp_path / "op")
    job = tmp_path / "job"
    job.mkdir()
    (job / "train.py").write_text("print('trained')\n")
    git(job, "init", "-q", "-b", "main")
    git(job, "add", ".")
    git(job, "commit", "-qm", "a job")
    return Lab(tmp_path / "op", job)


@pytest.fixture
def evil(lab: Lab) -> str:
    """A configuration whose quota command leaves a marker, as the submitter would write it."""
    program = lab.job.parent / "evil.sh"
    program.write_text(f"#!/bin/sh\ntouch {lab.job.parent / 'marker'}\n")
    program.chmod(0o755)
    return lab.config.read_text() + f"quota: {{command: [{program}]}}\n"


def test_the_operators_configuration_starts_a_job(lab: Lab) -> None:
    """The twin of everything below: named by `--config`, outside of the job's folder."""
    ended = lab.run("--config", str(lab.config))
    assert ended.code == 0, ended.err
    assert "trained" in ended.out


@pytest.mark.parametrize("where", ["the current folder", "a variable"])
def test_a_configuration_in_the_jobs_folder_is_not_read(lab: Lab, evil: str, where: str) -> None:
    """c1: with every option given, the submitter's file configured the evidence, and ran a program."""
    (lab.job / "policyguard.yaml").write_text(evil)
    variables = {"POLICYGUARD_CONFIG": str(lab.job / "policyguard.yaml")} if where == "a variable" else {}
    ended = lab.run(*lab.options, **variables)
    assert not (lab.job.parent / "marker").exists()
    assert "id.subject_not_allowed" in ended.err  # The options alone list nobody under `speakFor:`.
    (lab.op / "audit.db").unlink()
    lab.refused(lab.run(**variables), "--policies is missing")
    request = (lab.op / "requests" / "allowed.json").read_bytes()
    lab.refused(lab.policyguard("hook", stdin=request, **variables), "--policies is missing")
    words = ("verify", "none.json", "--job", str(lab.job.parent / "job.yaml"), "--", "true")
    lab.refused(lab.policyguard(*words, **variables), "--trust is missing")


@pytest.mark.parametrize("where", ["policyguard.yaml", "deep/er/policyguard.yaml"])
def test_a_configuration_in_the_jobs_repository_is_refused(lab: Lab, evil: str, where: str) -> None:
    """Named by `--config` all the same, also from a folder below the top of the repository."""
    path = lab.job / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(evil)
    (lab.job / "below").mkdir()
    lab.refused(lab.run("--config", where), "the folder or repository of the job")
    below = Lab(lab.op, lab.job / "below")
    ended = below.policyguard("run", "--config", str(path), "--job", "../../job.yaml", "--", "true")
    lab.refused(ended, "the folder or repository of the job")


def test_a_link_to_a_file_in_the_jobs_folder_is_refused(lab: Lab, evil: str) -> None:
    """Links are resolved first; a link in the job's folder to the operator's file is fine."""
    (lab.job / "own.yaml").write_text(evil)
    (lab.job.parent / "link.yaml").symlink_to(lab.job / "own.yaml")
    lab.refused(lab.run("--config", str(lab.job.parent / "link.yaml")), "the folder or repository of the job")
    (lab.job / "link.yaml").symlink_to(lab.config)
    git(lab.job, "add", ".")
    git(lab.job, "commit", "-qm", "a link")
    ended = lab.run("--config", "link.yaml")
    # It is read, and its policies decide: they deny a repository with a link that leads out of it.
    assert (ended.code, "code.outside_commit" in ended.err) == (77, True)


NAMED = {
    "policies": "policies: {job}/x\n",
    "key": "key: {job}/x\n",
    "trust": "trust: {job}/x\n",
    "log": "log: {job}/x\n",
    "allowedSigners": "allowedSigners: {job}/x\n",
    "revokedKeys": "revokedKeys: {job}/x\n",
    "gpgKeyring": "gpgKeyring: {job}/x\n",
    "reviewedCommits": "reviewedCommits: {job}/x\n",
    "quota": "quota: {{file: {job}/x}}\n",
    "quota command": "quota: {{command: [{job}/x]}}\n",
    "quota argument": "quota: {{command: [/bin/sh, {job}/x]}}\n",
    "quota argument of an option": "quota: {{command: [/bin/sh, --rcfile={job}/x]}}\n",
    "environment": "environment: {{baseline: {job}/x, keys: [guard.key.pub]}}\n",
    "interpreter": "environment: {{baseline: trust.yaml, keys: [guard.key.pub], interpreter: {job}/x}}\n",
    "environment cache": "environment: {{baseline: trust.yaml, keys: [guard.key.pub], cache: {job}/x}}\n",
    "checkpoint cache": "checkpoints: {{cache: {job}/x}}\n",
    "watch": "watch: {{libraries: [{job}/x]}}\n",
}


@pytest.mark.parametrize("name", NAMED)
def test_nothing_that_it_names_is_in_the_jobs_folder(lab: Lab, name: str) -> None:
    """Each setting, with a path that the submitter can write to; nothing of it is read or run."""
    shutil.copy(lab.op / "trust.yaml", lab.job / "x")
    line = NAMED[name].format(job=lab.job)
    field = line.partition(":")[0] + ":"
    rest = [old for old in lab.config.read_text().splitlines(keepends=True) if not old.startswith(field)]
    lab.config.write_text("".join(rest) + line)
    lab.refused(lab.run("--config", str(lab.config)), "the folder or repository of the job", str(lab.job / "x"))


HIDDEN = {
    "a text for a shell": 'sh, -c, "job/q.sh --json"',
    "a cluster of options": 'bash, -ec, "job/q.sh"',
    "a shell of another kind": 'zsh, -c, "job/q.sh"',
    "a text for Python": "python3, -c, \"import os; os.system('job/q.sh')\"",
    "a text for perl": "perl, -e, \"system 'job/q.sh'\"",
    "a text for env": 'env, -S, "job/q.sh a"',
    "another folder": "env, -Cjob, ./q.sh",
    "a wrapper": 'timeout, "9", sh, -c, job/q.sh',
    "a text for awk": "awk, 'BEGIN {system(\"job/q.sh\")}'",
}


@pytest.mark.parametrize("command", HIDDEN.values(), ids=HIDDEN)
def test_a_command_that_hides_what_it_runs_is_refused(lab: Lab, command: str) -> None:
    """A program in a text was not checked, and may be in the folder of a job."""
    with lab.config.open("a") as file:
        file.write(f"quota: {{command: [{command}]}}\n")
    with pytest.raises(ConfigurationError, match="quota: found the command") as caught:
        operator_config(lab.config)
    assert "script that only the operator can change" in str(caught.value.help)


@pytest.mark.parametrize("word", ["-K{file}", "-vK{file}", "@{file}", "--config={file}"])
def test_a_file_in_an_option_of_one_word_is_checked(lab: Lab, word: str) -> None:
    """`curl -Kjob/q.conf`; its twin names a file of the operator."""
    (lab.op / "job").symlink_to(lab.job)
    config = lab.config.read_text()
    lab.config.write_text(config + f'quota: {{command: [curl, "{word.format(file="job/train.py")}"]}}\n')
    with pytest.raises(ConfigurationError, match="the folder or repository of the job"):
        operator_config(lab.config, job_folder=str(lab.job))
    lab.config.write_text(config + f'quota: {{command: [curl, "{word.format(file="trust.yaml")}"]}}\n')
    assert operator_config(lab.config, job_folder=str(lab.job)).measurement.quota is not None


@pytest.mark.parametrize("command", ["sh, q.sh, --json", "python3, q.sh", "./q.sh", "cat, trust.yaml"])
def test_a_script_of_the_operator_may_be_a_command(lab: Lab, command: str) -> None:
    """The twin: a file that is checked."""
    (lab.op / "q.sh").write_text("#!/bin/sh\n")
    (lab.op / "q.sh").chmod(0o755)
    with lab.config.open("a") as file:
        file.write(f"quota: {{command: [{command}]}}\n")
    assert operator_config(lab.config).measurement.quota is not None


@pytest.mark.parametrize("name", ["approvals", "grants"])
def test_folders_of_signed_entries_may_be_anybodys(lab: Lab, name: str) -> None:
    """The twin: every entry in them is signed by a key from elsewhere."""
    (lab.job / "x").mkdir()
    lines = {"approvals": "approvals: {job}/x\n", "grants": "grants: {{folder: {job}/x, keys: [guard.key.pub]}}\n"}
    with lab.config.open("a") as file:
        file.write(lines[name].format(job=lab.job))
    assert lab.run("--config", str(lab.config)).code == 0


@pytest.mark.parametrize("option", ["policies", "key", "log", "trust"])
def test_an_option_names_nothing_in_the_jobs_folder(lab: Lab, option: str) -> None:
    """`--trust ./trust.yaml` is no better than a line in a configuration."""
    name = {"policies": "policies", "key": "guard.key", "log": "log.db", "trust": "trust.yaml"}[option]
    if option == "policies":
        shutil.copytree(lab.op / name, lab.job / name)
    elif option != "log":
        shutil.copy(lab.op / name, lab.job / name)
    words = ("--config", str(lab.config), f"--{option}", name)
    lab.refused(lab.run(*words), f"--{option}: ", "the folder or repository of the job")
    if option != "log":
        assert lab.run("--config", str(lab.config), f"--{option}", str(lab.op / name)).code == 0


# ---- who can change it


def let_group_write(path: Path) -> None:
    path.chmod(stat.S_IMODE(path.stat().st_mode) | stat.S_IWGRP)


def let_others_write(path: Path) -> None:
    path.chmod(stat.S_IMODE(path.stat().st_mode) | stat.S_IWOTH)


def give_away(path: Path) -> None:
    os.chown(path, STRANGER, -1)


def give_to_nobody(path: Path) -> None:
    os.chown(path, 65534, -1)


def let_by_acl(path: Path) -> None:
    """Let one more user write; the mode says group-writable then, so the group bit alone is no proof."""
    entries = [(0x01, 7, 0xFFFFFFFF), (0x02, 6, STRANGER), (0x04, 5, 0xFFFFFFFF)]
    entries += [(0x10, 7, 0xFFFFFFFF), (0x20, 5, 0xFFFFFFFF)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("this file system has no POSIX ACLs")


CHANGES: dict[str, Callable[[Path], None]] = {
    "writable by the group": let_group_write,
    "writable by others": let_others_write,
    "of another owner": give_away,
    "of an unknown owner, shown as nobody": give_to_nobody,
    "writable by one more user": let_by_acl,
}
TARGETS = ("policyguard.yaml", ".", "policies", "policies/jobs.yaml", "guard.key", "trust.yaml", "requests/../audit.db")


@root_only
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("change", CHANGES)
def test_what_another_account_can_change_is_refused(lab: Lab, change: str, target: str) -> None:
    """The file, a folder above it, and each file that it names; the message says who, and what to run."""
    path = lab.op / target
    if target.endswith("audit.db"):
        assert lab.run("--config", str(lab.config)).code == 0
    CHANGES[change](path)
    with pytest.raises(ConfigurationError, match="expected"):
        Guard.from_config(lab.config)
    if change != "writable by the group":
        return  # The verbs call the same check.
    for words in (("--config", str(lab.config)), lab.options):
        if words == lab.options and target == "policyguard.yaml":
            continue
        ended = lab.run(*words)
        assert ended.code == 78, ended.err
        assert str(path.resolve()) in ended.err
        assert "expected" in ended.complaint
        assert "  help: run `" in ended.err
        assert "chown" in ended.err or "chmod go-w" in ended.err or "setfacl -b" in ended.err
    request = (lab.op / "requests" / "allowed.json").read_bytes()
    assert lab.policyguard("hook", "--config", str(lab.config), stdin=request).code == 78


@pytest.mark.parametrize(
    "target", ["policyguard.yaml", "guard.key", "trust.yaml", "policies/repositories.yaml", "audit.db"]
)
def test_a_file_that_is_hard_linked_into_the_jobs_folder_is_refused(lab: Lab, target: str) -> None:
    """It lies in the folder of the job as well; under its one name, or as a program, it is accepted."""
    assert lab.run("--config", str(lab.config)).code == 0
    path, second = lab.op / target, lab.job.parent / "second"
    os.link(path, second)
    for words in (("--config", str(lab.config)), lab.options):
        if words == lab.options and target == "policyguard.yaml":
            continue
        ended = lab.run(*words)
        assert ended.code == 78, ended
        assert f"{path}: found 2 hard links, expected a file with one name" in ended.err
        assert f"  help: run `cp -p {path} {path}.new && mv {path}.new {path}`" in ended.err
    with pytest.raises(ConfigurationError, match="found 2 hard links"):
        Guard.from_config(lab.config)
    second.unlink()
    assert lab.run("--config", str(lab.config)).code == 0


def test_a_program_may_have_hard_links(tmp_path: Path) -> None:
    """Packages of perl and git, and package managers that link from a cache, install programs so."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    os.link(program, tmp_path / "second")
    with pytest.raises(ConfigurationError, match="found 2 hard links"):
        check_owned(program)
    program.chmod(0o755)
    check_owned(program)
    os.symlink("program", tmp_path / "third")
    check_owned(tmp_path / "third")


@root_only
def test_a_program_that_the_submitter_can_change_does_not_run(lab: Lab) -> None:
    """The quota command, outside of the job's folder; it runs once only the operator can change it."""
    program = lab.op / "quota.sh"
    figures = '{"observed_at": "2026-01-01T00:00:00Z", "teams": {}}'
    program.write_text(f"#!/bin/sh\ntouch {lab.job.parent / 'marker'}\necho '{figures}'\n")
    program.chmod(0o755)
    with lab.config.open("a") as file:
        file.write("quota: {command: [./quota.sh]}\n")
    give_away(program)
    lab.refused(lab.run("--config", str(lab.config)), "quota: ", str(program))
    os.chown(program, 0, -1)
    assert lab.run("--config", str(lab.config)).code == 0
    assert (lab.job.parent / "marker").exists()


def test_the_callers_path_chooses_no_program(lab: Lab) -> None:
    """A bare name in the operator's configuration is searched in the system's folders."""
    marker = lab.job.parent / "marker"
    program = lab.job / "cat"
    program.write_text(f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    git(lab.job, "add", ".")
    git(lab.job, "commit", "-qm", "a program")
    with lab.config.open("a") as file:
        file.write("quota: {command: [cat, trust.yaml]}\n")
    assert lab.run("--config", str(lab.config), PATH=f"{lab.job}:{os.environ['PATH']}").code == 0
    assert not marker.exists()


@root_only
def test_decide_reads_only_a_configuration_of_this_account(lab: Lab) -> None:
    """In the current folder: the account's own file is read, somebody else's is refused."""
    request = str(lab.op / "requests" / "allowed.json")
    here = Lab(lab.op, lab.op)
    assert here.policyguard("decide", request).code == 0
    give_away(lab.config)
    for words in (("decide", request), ("approve", "--list"), ("audit", "verify")):
        ended = here.policyguard(*words)
        assert (ended.code, f"owner uid {STRANGER}" in ended.err, "--config" in ended.err) == (78, True, True)
    assert here.policyguard("lint", "policies").code == 0


def test_a_host_decides_no_job_in_the_folder_of_its_configuration(lab: Lab) -> None:
    """`Guard.from_config` passes the same check, once it knows where the job is."""
    job = lab.job.parent / "job.yaml"
    job.write_text("subject: user:alice\nresource: job:team/vision/run-17\nproperties: {gpus: 8}\n")
    argv = [sys.executable, "train.py"]
    environment = {"PATH": os.defpath}
    with Guard.from_config(lab.config) as guard:
        with pytest.raises(ConfigurationError, match="the folder or repository of the job"):
            guard.decide_job(job, argv, directory=lab.op, environment=environment, subject="user:alice")
        signed = guard.decide_job(job, argv, directory=lab.job, environment=environment, subject="user:alice")
    assert signed.decision.allowed


# ---- the check itself


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir(mode=0o755)
    (tmp_path / "a" / "file").write_text("x")
    return tmp_path / "a"


def test_a_sticky_folder_of_root_is_accepted_and_no_other(folder: Path) -> None:
    """As `/tmp` is. Without the sticky bit others could rename what is in it."""
    if os.geteuid() != 0:
        pytest.skip("needs a folder of root")
    folder.chmod(0o1777)
    check_owned(folder / "file")
    folder.chmod(0o777)
    with pytest.raises(ConfigurationError, match="mode 0777"):
        check_owned(folder / "file")
    folder.chmod(0o1777)
    os.chown(folder, STRANGER, -1)
    with pytest.raises(ConfigurationError, match=f"owner uid {STRANGER}"):
        check_owned(folder / "file")


@root_only
def test_each_folder_on_the_way_of_a_link_counts(folder: Path) -> None:
    """A link that the configuration names can be turned elsewhere by the owner of its folder."""
    theirs = folder.parent / "theirs"
    theirs.mkdir()
    (theirs / "link").symlink_to(folder / "file")
    os.chown(theirs, STRANGER, -1)
    with pytest.raises(ConfigurationError, match=f"theirs: found owner uid {STRANGER}"):
        check_owned(theirs / "link")
    assert check_resolved(theirs / "link") == str(folder / "file")
    assert read_owned(theirs / "link", 10) == (b"x", str(folder / "file"))


def test_a_missing_file_is_accepted_only_where_nobody_else_can_create_it(folder: Path) -> None:
    """A log or a cache that does not exist yet."""
    check_owned(folder / "new")
    if os.geteuid() == 0:
        folder.chmod(0o1777)
        with pytest.raises(ConfigurationError, match="any account can create it"):
            check_owned(folder / "new")


def test_circles_and_long_files_are_one_line(folder: Path) -> None:
    """A circle of links ends, in a path and in a folder; a file has a maximum size."""
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    with pytest.raises(ConfigurationError, match="circle"):
        check_owned(folder / "one")
    (folder / "one").unlink()
    (folder / "two").unlink()
    (folder / "loop").symlink_to(".")
    check_owned_tree(folder)
    with pytest.raises(ConfigurationError, match="larger than 0 bytes"):
        read_owned(folder / "file", 0)


def test_nobody_is_never_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a user namespace an unknown owner is shown as uid 65534, also to a guard that runs as nobody."""
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert [ownership.is_trusted_owner(uid) for uid in (0, 65534, 1000)] == [True, False, False]
