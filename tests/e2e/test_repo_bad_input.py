"""What `policyguard repo` says when the range, the repository or its files are not usable: one line, the right code."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.cli.group import run
from policyguard.keyfiles import write_private_key
from tests.attacks.git_lab import git
from tests.e2e.repo_lab import RESOURCE, snapshot

ZEROS = "0" * 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with compiled policies, their key, and a repository of three commits on main."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "policies").write_bytes(snapshot())
    write_private_key(folder / "guard.key", PrivateKey.generate(b"\7" * 32))
    repo = folder / "repo"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    for name in ("a", "b", "c"):
        (repo / name).write_text(name)
        git(repo, "add", "-A")
        git(repo, "commit", "-qm", name)
    return folder


@pytest.fixture
def repo(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current folder's `repo`."""
    shutil.copytree(made, tmp_path / "lab", symlinks=True)
    monkeypatch.chdir(tmp_path / "lab")
    return tmp_path / "lab" / "repo"


def check(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], list[str]]:
    """Run `repo check` in this process and return its code and what it printed, without the lines of help."""
    capsys.readouterr()
    common = ["repo", "check", "--policies", "policies", "--key", "guard.key", "--resource", RESOURCE]
    code = run([*common, "--as", "user:alice", "--assume-signed", "--ref", "refs/heads/topic", *words])
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "mistake in policyguard" not in printed.err
    return code, printed.out.splitlines(), [each for each in printed.err.splitlines() if not each.startswith("  help")]


WORDS = {
    "a branch that is not there": ("nope..main", 69, "`nope`: names no branch, tag or full object id here"),
    "a spelling that only git knows": ("HEAD~1..main", 69, "`HEAD~1`: names no branch"),
    "a short id": ("abc123..main", 69, "`abc123`: names no branch"),
    "three dots": ("main...main", 64, "expected `OLD..NEW`"),
    "no dots": ("main", 64, "expected `OLD..NEW`"),
    "an option": ("--upload-pack=x..main", 64, "no such option"),
    "control characters": ("\x1b[2J..main", 69, "`\\x1b[2J`: names no branch"),
    "a line break": ("a\nb..main", 69, "`a\\nb`: names no branch"),
    "bytes that are no UTF-8": ("\udcff..main", 69, "`\\xff`: names no branch"),
    "a path out of refs": ("refs/../../config..main", 69, "names no branch"),
    "nothing at all on both sides": (f"{ZEROS}..{ZEROS}", 69, "expected two object ids"),
    "ids of two hashes": (f"{'a' * 64}..main", 69, "expected two object ids of one hash"),
}


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.usefixtures("repo")
def test_a_range_that_names_nothing_is_reported(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on standard error and nothing else; twins: a branch, a tag, HEAD, a full id, and zeros for nothing."""
    words, code, text = WORDS[name]
    found, out, err = check(capsys, "--repo", "repo", words)
    assert (found, out, len(err)) == (code, [], 1)
    assert text in err[0]
    assert check(capsys, "--repo", "repo", f"{ZEROS}..HEAD")[0] == 0
    assert check(capsys, "--repo", "repo", "main..main")[0] == 0


Spoil = Callable[[Path], object]


def written(name: str, content: str | bytes) -> Spoil:
    """Put a file into `.git`."""

    def spoil(repo: Path) -> None:
        path = repo / ".git" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return spoil


def fifo(name: str) -> Spoil:
    def spoil(repo: Path) -> None:
        (repo / ".git" / name).unlink(missing_ok=True)
        os.mkfifo(repo / ".git" / name)

    return spoil


def junk(pattern: str, *before: str) -> Spoil:
    """Put other bytes into every object file of a pattern."""

    def spoil(repo: Path) -> None:
        if before:
            git(repo, *before)
        for path in (repo / ".git" / "objects").glob(pattern):
            path.chmod(0o644)
            path.write_bytes(b"junk")

    return spoil


def pointed(repo: Path) -> None:
    (repo / ".git").rename(repo / "elsewhere")
    (repo / ".git").write_text("gitdir: /nonexistent\n")


def linked(repo: Path) -> None:
    (repo / ".git").rename(repo / "elsewhere")
    (repo / ".git").symlink_to("elsewhere")


def owned(repo: Path) -> None:
    os.lchown(repo / ".git", 12345, -1)


UNUSABLE: dict[str, tuple[Spoil, int, str]] = {
    "no repository": (lambda repo: shutil.rmtree(repo / ".git"), 69, "found no git repository here or above"),
    "a gitdir that leads nowhere": (pointed, 69, "found nothing here, expected a part of a git repository"),
    "a .git that is a link": (linked, 69, "found a symbolic link, expected a folder or a file"),
    "a .git of somebody else": (owned, 69, "belongs to uid 12345, expected uid"),
    "a HEAD that is a FIFO": (fifo("HEAD"), 69, "HEAD`: found a FIFO, expected a regular file"),
    "a HEAD of nonsense": (written("HEAD", "nonsense\n"), 69, "expected an object id or a reference"),
    "a HEAD with a NUL": (written("HEAD", b"\0"), 69, "found a NUL byte"),
    "a HEAD on an empty branch": (written("HEAD", "ref: refs/heads/x\n"), 69, "a repository without commits"),
    "a HEAD that leads round": (written("HEAD", "ref: refs/heads/../../HEAD\n"), 69, "found the reference name"),
    "a branch that is a FIFO": (fifo("refs/heads/main"), 69, "main`: found a FIFO"),
    "a configuration that is a FIFO": (fifo("config"), 69, "config`: found a FIFO"),
    "references in two storages": (written("reftable/tables.list", ""), 69, "there is a reftable"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_repository_that_cannot_be_used_is_reported(
    name: str, repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No branch can be looked up: one line on standard error, of the check, the baseline and the doctor alike."""
    if name == "a .git of somebody else" and os.geteuid() != 0:
        pytest.skip("needs root to give a folder away")
    spoil, code, text = UNUSABLE[name]
    spoil(repo)
    found, out, err = check(capsys, "--repo", "repo", "main..HEAD")
    assert (found, out, len(err)) == (code, [], 1)
    assert text in err[0]
    for words in (["baseline", "--out", "b", "--log", "l", "--resource", RESOURCE], ["doctor"]):
        run(["repo", *words, "repo"])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        assert "mistake in policyguard" not in printed.err


UNJUDGED: dict[str, tuple[Spoil, str]] = {
    "a shallow history": (written("shallow", "a" * 40 + "\n"), "(shallow)"),
    "a grafted history": (written("info/grafts", "a" * 40 + "\n"), "(grafts)"),
    "a replaced history": (lambda repo: git(repo, "replace", "HEAD", "HEAD~1"), "(replace_refs)"),
    "a partial clone": (written("config", '[remote "o"]\n\tpromisor = true\n'), "(partial)"),
    "a shallow file that is a FIFO": (fifo("shallow"), "found a FIFO"),
    "packs of other bytes": (junk("pack/*.pack", "gc", "-q"), "missing from the repository"),
    "indexes of other bytes": (junk("pack/*.idx", "gc", "-q"), "missing from the repository"),
    "objects of other bytes": (junk("??/*"), "missing from the repository"),
}


@pytest.mark.parametrize("name", UNJUDGED)
def test_a_history_that_cannot_be_judged_is_refused(name: str, repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the hook would: 77, one line with the reason, no explanation of what rules made of nothing."""
    spoil, text = UNJUDGED[name]
    first, last = git(repo, "rev-parse", "HEAD~2", "HEAD").split()
    assert check(capsys, "--repo", "repo", f"{first}..{last}")[0] == 0
    spoil(repo)
    code, out, err = check(capsys, "--repo", "repo", f"{first}..{last}")
    assert (code, len(out), err) == (77, 1, [])
    assert out[0].startswith("refs/heads/topic  cannot be decided, so it is refused: ")
    assert text in out[0]


def hostile(repo: Path) -> None:
    program = repo / "program"
    program.write_text(f"#!/bin/sh\ntouch {repo / 'ran'}\n")
    program.chmod(0o755)
    (repo / "more").write_text(f"[core]\n\tfsmonitor = {program}\n\tsshCommand = {program}\n")
    for name, value in (
        ("include.path", str(repo / "more")),
        ("core.fsmonitor", str(program)),
        ("core.hooksPath", str(repo)),
        ("diff.x.textconv", str(program)),
        ("diff.external", str(program)),
        ("filter.x.clean", str(program)),
        ("gpg.program", str(program)),
        ("gpg.ssh.program", str(program)),
        ("core.pager", str(program)),
        ("core.alternateRefsCommand", str(program)),
        ("uploadpack.packObjectsHook", str(program)),
    ):
        git(repo, "config", name, value)
    written("info/attributes", "* diff=x filter=x\n")(repo)


def named(repo: Path) -> None:
    for name in (b"a\nb", b"\xff\x1b[2J", b"tab\t", "\u202eevil".encode()):
        with open(os.path.join(os.fsencode(repo), name), "w") as file:
            file.write("x")
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "names\x1b[2J")


def borrowing(repo: Path) -> None:
    shutil.copytree(repo / ".git" / "objects", repo / "theirs")
    shutil.rmtree(repo / ".git" / "objects")
    written("objects/info/alternates", f"{repo / 'theirs'}\n")(repo)


HARMLESS: dict[str, Spoil] = {
    "hostile configuration and attributes": hostile,
    "file names of any bytes": named,
    "objects that are borrowed": borrowing,
    "a configuration that git cannot read": written("config", "[[["),
    "a FIFO that nobody reads": fifo("COMMIT_EDITMSG"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_not_matter_changes_nothing(name: str, repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """BytecodeReport by its objects, which hash to their ids; no program of the repository's runs."""
    first = git(repo, "rev-parse", "HEAD~2")
    HARMLESS[name](repo)
    code, out, _ = check(capsys, "--repo", "repo", f"{first}..main")
    assert code == 0, out
    assert not (repo / "ran").exists()
