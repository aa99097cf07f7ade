"""`policyguard approve`, as a command line: what it writes, what it refuses, what it lists."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from policyguard.assembly.jobs import review_files
from policyguard.attest.approval import parse_approval
from policyguard.attest.dsse import parse
from policyguard.attest.keys import PrivateKey
from policyguard.cli.group import run
from policyguard.cli.verbs.init_ import create_files
from policyguard.config.file import find_config
from policyguard.keyfiles import write_private_key
from tests.attacks.git_lab import git

CAROL = PrivateKey(b"\2" * 32)
JOB = "subject: user:alice\nresource: job:team/vision/run-19\nproperties: {gpus: 256}\n"
APPROVE = ("approve", "--job", "../job.yaml", "--as", "user:carol", "--reason", "reviewed")
COMMAND = ("--", "python3", "train.py")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example lab with carol's key in `Persons`, and the job's repository as the current folder."""
    create_files(tmp_path / "home")
    persons = tmp_path / "home" / "policies" / "persons.yaml"
    persons.write_text(
        persons.read_text().replace(
            "emails: [carol@lab.example]", f'emails: [carol@lab.example], keys: ["{CAROL.public.text}"]'
        )
    )
    with (tmp_path / "home" / "policyguard.yaml").open("a") as file:
        file.write("approvals: approvals\n")
    write_private_key(tmp_path / "carol.key", CAROL)
    write_private_key(tmp_path / "mallory.key", PrivateKey(b"\3" * 32))
    job = tmp_path / "job"
    job.mkdir()
    (tmp_path / "job.yaml").write_text(JOB)
    (job / "train.py").write_text("#\n")
    git(job, "init", "-q", "-b", "main")
    git(job, "add", ".")
    git(job, "commit", "-qm", "a job", GIT_AUTHOR_EMAIL="alice@lab.example", GIT_COMMITTER_EMAIL="alice@lab.example")
    monkeypatch.chdir(job)
    monkeypatch.setenv("POLICYGUARD_CONFIG", str(tmp_path / "home" / "policyguard.yaml"))
    return tmp_path / "home"


def written(home: Path) -> list[Path]:
    return sorted((home / "approvals").glob("*"))


def test_a_job_is_approved_with_our_key(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One new file, an envelope; the statement names tree, command and request."""
    assert run([*APPROVE, "--key", "../carol.key", "--json", *COMMAND]) == 0
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    (path,) = written(home)
    statement = parse_approval(parse(path.read_bytes().rstrip(b"\n")).payload)
    assert told["subjects"] == statement.named
    assert set(statement.named) == {"command", "request", "tree"}
    assert statement.named["tree"] == git(Path.cwd(), "rev-parse", "HEAD^{tree}")
    assert statement.predicate.approver == "user:carol"
    # Nothing else: no warning that the approval would not count here.
    assert set(told) == {"approval", "action", "resource", "approver", "expires", "subjects", "limits"}
    assert printed.err == ""


def test_the_payload_is_the_statement_and_nothing_else(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--payload` writes what is to be signed and says how; a second time it overwrites nothing."""
    assert run([*APPROVE, "--payload", "../payload.json", *COMMAND]) == 0
    assert "ssh-keygen -Y sign -n policyguard-approval@v1 -f KEY ../payload.json" in capsys.readouterr().out
    parse_approval(Path("../payload.json").read_bytes())
    before = Path("../payload.json").read_bytes()
    assert run([*APPROVE, "--payload", "../payload.json", *COMMAND]) == 78
    assert "exists already" in capsys.readouterr().err
    assert Path("../payload.json").read_bytes() == before
    assert written(home) == []


@pytest.mark.parametrize(
    ("key", "name", "said"),
    [("mallory", "carol", "approval.unknown_signer"), ("carol", "dan", "names `user:dan`, but the key is carol's")],
)
def test_a_key_that_is_not_the_named_persons_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], key: str, name: str, said: str
) -> None:
    """It is said whose key it is, and nothing is written."""
    assert run([*APPROVE, "--as", f"user:{name}", "--key", f"../{key}.key", *COMMAND]) == 65
    assert said in capsys.readouterr().err
    assert written(home) == []


@pytest.mark.parametrize(
    "words",
    [
        ("--payload", "dan.json"),
        ("--payload", "../job/dan.json", "--note"),
        ("--folder", "approvals", "--key", "../carol.key"),
        ("--log", "audit.db", "--key", "../carol.key"),
    ],
)
def test_nothing_is_written_into_the_repository_of_the_job(
    home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """The tree would not be clean any more, and the job denied to everybody."""
    assert run([*APPROVE, *words, *COMMAND]) == 78
    error = capsys.readouterr().err
    assert "the folder or repository of the job" in error
    assert "--payload a path outside" in error or "--config FILE, or give --folder" in error
    assert git(Path.cwd(), "status", "--porcelain") == ""
    assert written(home) == []


def test_without_a_configuration_approvals_do_not_go_into_the_job(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default, a folder here, is for requests and artifacts; in a subfolder of the repository it is refused too."""
    monkeypatch.delenv("POLICYGUARD_CONFIG")
    Path("scripts").mkdir()
    monkeypatch.chdir("scripts")
    words = ("approve", "--job", "../../job.yaml", "--as", "user:carol", "--reason", "r", "--key", "../../carol.key")
    assert run([*words, *COMMAND]) == 78
    assert "the folder or repository of the job" in capsys.readouterr().err
    assert not Path("approvals").exists()


def test_the_list_says_what_counts(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1 where one does not count, with its reason code; with a job, whether it counts for that job."""
    assert run([*APPROVE, "--key", "../carol.key", *COMMAND]) == 0
    assert run(["approve", "--list"]) == 0
    assert run(["approve", "--list", "--job", "../job.yaml", *COMMAND]) == 0
    out = capsys.readouterr().out
    assert "signed  " in out
    assert "counts  " in out
    assert run(["approve", "--list", "--job", "../job.yaml", "--", "python3", "other.py"]) == 1
    assert "approval.other_command" in capsys.readouterr().out
    (home / "approvals" / "broken.json").write_bytes(b"\xff")
    assert run(["approve", "--list", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)["approvals"]
    assert sorted(row["standing"] for row in rows) == ["approval.malformed", "signed"]


def test_a_compiled_snapshot_tells_whose_keys_count(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The snapshot is one that a key of trust.yaml signed; Persons are those inside."""
    assert run(["compile", str(home / "policies"), "-o", str(home / "snapshot")]) == 0
    capsys.readouterr()
    assert run([*APPROVE, "--key", "../carol.key", "--policies", str(home / "snapshot"), *COMMAND]) == 0
    printed = capsys.readouterr()
    assert (printed.err, "warning" in printed.out) == ("", False)
    assert run(["approve", "--list", "--policies", str(home / "snapshot")]) == 0


def test_signed_commits_are_required_or_not_mentioned(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One spelling; anything else is refused."""
    config = home / "policyguard.yaml"
    before = config.read_text()
    config.write_text(before + "signedCommits: required\n")
    assert review_files(find_config(Path(), str(config))).signed_only
    config.write_text(before + "signedCommits: maybe\n")
    assert run(["approve", "--list"]) == 78
    assert "expected `required`" in capsys.readouterr().err


def test_a_request_and_artifacts_are_approved(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--request` binds the request's digest; `--tree`, `--checkpoint` and `--policy` name digests."""
    request = str(home / "requests" / "allowed.json")
    signing = ("--as", "user:carol", "--reason", "r", "--key", "../carol.key", "--json")
    assert run(["approve", "--request", request, *signing]) == 0
    assert set(json.loads(capsys.readouterr().out)["subjects"]) == {"request"}
    artifacts = ("--policy", "a" * 64, "--action", "policy:publish", "--resource", "policy:lab/jobs")
    assert run(["approve", *artifacts, *signing]) == 0
    assert json.loads(capsys.readouterr().out)["subjects"] == {"policy": "a" * 64}
    push = (
        "--tree",
        "b" * 40,
        "--action",
        "repo:push",
        "--resource",
        "repo:team/vision/trainer",
        "--target",
        "refs/heads/main",
        "1" * 40,
        "b" * 40,
    )
    assert run(["approve", *push, *signing]) == 0
    assert len(written(home)) == 3


MISTAKES: dict[str, tuple[tuple[str, ...], int, str]] = {
    "nothing to approve": (("approve", "--reason", "r"), 64, "one of --job, --request"),
    "two things": ((*APPROVE, "--tree", "a" * 40, *COMMAND), 64, "one of --job"),
    "no command": (APPROVE, 64, "needs the command"),
    "no reason": (("approve", "--job", "../job.yaml", "--as", "user:c", *COMMAND), 64, "--reason"),
    "no key": ((*APPROVE, *COMMAND), 64, "--key FILE"),
    "two keys": ((*APPROVE, "--key", "x", "--ssh-key", "y", *COMMAND), 64, "--key FILE"),
    "a year": ((*APPROVE, "--expires", "365d", "--key", "../carol.key", *COMMAND), 65, "never count"),
    "no time": ((*APPROVE, "--expires", "0s", "--key", "../carol.key", *COMMAND), 65, "never count"),
    "a duration that is none": ((*APPROVE, "--expires", "soon", "--key", "../carol.key", *COMMAND), 65, "`soon`"),
    "a limit without value": ((*APPROVE, "--limit", "gpus", *COMMAND), 64, "NAME=VALUE"),
    "an artifact without action": (("approve", "--tree", "a" * 40, "--reason", "r"), 64, "--action"),
    "a short tree": (
        ("approve", "--tree", "abc", "--action", "repo:push", "--resource", "repo:x", "--reason", "r", "--as", "u:c"),
        65,
        "never count",
    ),
    "a job file that is not there": (
        ("approve", "--job", "../none.yaml", "--as", "user:c", "--reason", "r", *COMMAND),
        65,
        "none.yaml",
    ),
}


@pytest.mark.parametrize(("words", "code", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, message: str
) -> None:
    """Nothing is written, and it is said what was expected."""
    assert run(words) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert written(home) == []


def test_changes_that_are_not_committed_are_not_approved(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reviewer approves a tree, so that what they look at must be one."""
    Path("train.py").write_text("changed\n")
    assert run([*APPROVE, "--key", "../carol.key", *COMMAND]) == 78
    assert "not committed" in capsys.readouterr().err
    assert written(home) == []


def test_a_job_without_a_requester_is_not_approved(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The account of the reviewer's own process must not slip in as the requester."""
    Path("../job.yaml").write_text(JOB.replace("subject: user:alice\n", ""))
    assert run([*APPROVE, "--key", "../carol.key", *COMMAND]) == 65
    assert "expected `subject:`" in capsys.readouterr().err


def test_a_job_file_that_run_takes_can_be_approved(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`run` needs no `subject:`, and neither does `approve` with `--subject`; the two must not differ."""
    options = ("--key", "../carol.key", "--json")
    (home.parent / "job.yaml").write_text(JOB)
    assert run([*APPROVE, *options, *COMMAND]) == 0
    named = json.loads(capsys.readouterr().out)["subjects"]
    assert run([*APPROVE, "--subject", "user:bob", *options, *COMMAND]) == 65
    assert "found `user:alice`, expected `user:bob` as --subject says" in capsys.readouterr().err
    (home.parent / "job.yaml").write_text(JOB.partition("\n")[2])
    assert run([*APPROVE, "--subject", "user:alice", *options, *COMMAND]) == 0
    assert json.loads(capsys.readouterr().out)["subjects"] == named
    assert run([*APPROVE, *options, *COMMAND]) == 65
    assert "expected `subject:` in the job file, or --subject" in capsys.readouterr().err
    assert run(["approve", "--request", "x", "--subject", "user:alice", "--reason", "r"]) == 64


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_ssh_keygen_that_cannot_sign_leaves_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A public key alone, and no agent."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "../id"], check=True)
    Path("../id").unlink()
    assert run([*APPROVE, "--ssh-key", "../id.pub", *COMMAND]) == 78
    assert "did not sign" in capsys.readouterr().err
    assert written(home) == []


def test_an_approval_may_be_a_note(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--note` appends a line to the note on the tree; a second one stands beside the first."""
    for name, value in (
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_AUTHOR_NAME", "c"),
        ("GIT_COMMITTER_NAME", "c"),
        ("GIT_AUTHOR_EMAIL", "c@lab"),
        ("GIT_COMMITTER_EMAIL", "c@lab"),
    ):
        monkeypatch.setenv(name, value)
    for reason in ("one", "two"):
        assert run([*APPROVE, "--reason", reason, "--note", "--key", "../carol.key", "--json", *COMMAND]) == 0
    tree = git(Path.cwd(), "rev-parse", "HEAD^{tree}")
    assert json.loads(capsys.readouterr().out.splitlines()[1])["note"].endswith(tree)
    lines = git(Path.cwd(), "notes", "--ref", "policyguard-approvals", "show", tree).split("\n")
    found = [parse_approval(parse(line.encode()).payload).predicate.reason for line in lines if line]
    assert found == ["one", "two"]
    assert written(home) == []
    request = str(home / "requests" / "allowed.json")
    assert (
        run(["approve", "--request", request, "--as", "user:carol", "--reason", "r", "--note", "--key", "../carol.key"])
        == 64
    )
