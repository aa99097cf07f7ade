"""`policyguard repo audit`: real pushes, then edits of the repository's files that no hook sees."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey
from policyguard.attest.trust import Trust, TrustedKey
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.group import run
from policyguard.git.directory import bare_gitdir
from policyguard.hooks.git.audit import Audited, Subject, audit
from policyguard.hooks.git.baseline import parse_baseline
from policyguard.keyfiles import read_private_key, write_private_key
from policyguard.values import NANOSECONDS_PER_S
from tests.e2e.repo_lab import RESOURCE, Forge, make_forge

HOOKS = ("pre-receive", "reference-transaction")
Audit = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    """A forge with a baseline from its first day, on which alice then pushed `topic` twice and `wip/alice/a` once."""
    return pushed_to(tmp_path)


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Forge:
    """Such a forge, to copy."""
    return pushed_to(tmp_path_factory.mktemp("forge"))


@pytest.fixture
def copy(pattern: Forge, tmp_path: Path) -> Forge:
    """A copy of it, to spoil: its hooks are for the original, so nobody pushes to it and no doctor looks at it."""
    shutil.copytree(pattern.folder, tmp_path / "copy")
    return Forge(tmp_path / "copy")


def pushed_to(folder: Path) -> Forge:
    forge = make_forge(folder, *HOOKS)
    assert forge.policyguard("repo", "baseline", "trainer.git", "--log", "audit.db", "--out", "first.json").accepted
    forge.git(forge.work, "checkout", "-qb", "topic")
    for name in ("one.md", "two.md"):
        forge.commit(name)
        assert forge.push("topic").accepted
    forge.git(forge.work, "branch", "wip/alice/a", "main")
    assert forge.push("wip/alice/a").accepted
    return forge


@pytest.fixture
def audited(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Audit:
    """Run the verb on a forge, in this process, and return its exit code and its JSON."""

    def run_audit(
        forge: Forge, *words: str, key: str = "guard.key", since: tuple[str, ...] = ("--since", "first.json")
    ) -> Any:
        monkeypatch.chdir(forge.folder)
        capsys.readouterr()
        code = run(["repo", "audit", "trainer.git", "--log", "audit.db", "--key", key, "--json", *since, *words])
        printed = capsys.readouterr()
        assert not printed.err, printed.err
        return code, json.loads(printed.out)

    return run_audit


def later(forge: Forge, *, after_s: int = 3_600, since: str | None = "first.json") -> Audited:
    """Audit as if so many seconds had passed: accepted moves can no longer be under way."""
    public = read_private_key(forge.folder / "guard.key").public
    baseline = None if since is None else parse_baseline((forge.folder / since).read_bytes(), since)
    with SqliteStore.open(forge.folder / "audit.db", read_only=True) as store:
        trust = Trust(
            keys=(TrustedKey(key=public),),
            logs=(NoteKey(store.origin, public),),
            audiences=frozenset({"x"}),
            min_epoch=0,
        )
        return audit(
            bare_gitdir(os.path.realpath(forge.bare), {os.geteuid(), 0}),
            store,
            trust,
            Subject(resource=RESOURCE, since=baseline),
            now=time.time_ns() + after_s * NANOSECONDS_PER_S,
        )


def fact(forge: Forge, entry: int, path: str) -> str:
    """Return the text of a fact as a decision of the log states it."""
    return str(json.loads(bytes(forge.decisions()[entry].facts[path].value)))  # type: ignore[arg-type]


def said(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["code"], each["ref"]) for each in answer["findings"]]


def test_a_repository_that_only_hooks_moved_is_clean(forge: Forge, audited: Audit) -> None:
    """Created, moved, rewritten, deleted, refused, all or none, packed: whatever went through git is explained."""
    forge.git(forge.work, "checkout", "-q", "wip/alice/a")
    forge.commit("draft.md")
    assert forge.push("wip/alice/a").accepted
    forge.git(forge.work, "commit", "-q", "--amend", "-m", "another past")
    assert forge.push("--force", "wip/alice/a").accepted
    assert not forge.push("wip/alice/a:main").accepted
    forge.git(forge.work, "branch", "other", "topic")
    assert not forge.push("other", "wip/alice/a:main").accepted
    forge.git(forge.bare, "pack-refs", "--all")
    assert forge.push(":wip/alice/a").accepted
    code, answer = audited(forge)
    assert (code, answer["findings"]) == (0, [])
    assert (answer["clean"], answer["references"], answer["decisions"], answer["entries"]) == (True, 2, 9, 9)
    assert later(forge).findings == ()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


EDITS: dict[str, tuple[Callable[[Path, str], object], tuple[str, str]]] = {
    "a reference that was put elsewhere": (
        lambda bare, _: (bare / "refs/heads/topic").write_text((bare / "refs/heads/main").read_text()),
        ("moved", "refs/heads/topic"),
    ),
    "a reference that was removed": (
        lambda bare, _: (bare / "refs/heads/topic").unlink(),
        ("vanished", "refs/heads/topic"),
    ),
    "a reference that was added": (
        lambda bare, first: (bare / "refs/heads/evil").write_text(first + "\n"),
        ("uncovered", "refs/heads/evil"),
    ),
    "a packed reference that was added": (
        lambda bare, first: (bare / "packed-refs").write_text(f"{first} refs/heads/evil\n"),
        ("uncovered", "refs/heads/evil"),
    ),
    "main, on which there was no decision": (
        lambda bare, _: (bare / "refs/heads/main").write_text((bare / "refs/heads/topic").read_text()),
        ("moved", "refs/heads/main"),
    ),
    "a reference that became another's name": (
        lambda bare, _: (bare / "refs/heads/topic").write_text("ref: refs/heads/main\n"),
        ("moved", "refs/heads/topic"),
    ),
    "a reference that is a FIFO": (
        lambda bare, _: fifo(bare / "refs/heads/topic"),
        ("moved", "refs/heads/topic"),
    ),
    "another main branch": (
        lambda bare, _: (bare / "HEAD").write_text("ref: refs/heads/topic\n"),
        ("head", "HEAD"),
    ),
    "another configuration": (
        lambda bare, _: (bare / "config").write_text((bare / "config").read_text() + "[x]\n\ty = 1\n"),
        ("config", "config"),
    ),
    "a hook that was put beside ours": (
        lambda bare, _: (bare / "hooks" / "update").write_text("#!/bin/sh\n"),
        ("hook", "hooks/update"),
    ),
    "a hook that was switched off": (
        lambda bare, _: (bare / "hooks" / "pre-receive").chmod(0o644),
        ("hook", "hooks/pre-receive"),
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_behind_git_is_found(name: str, copy: Forge, audited: Audit) -> None:
    """INVARIANT I19: the first finding names it, the exit code is 1; before the edit there is none."""
    assert audited(copy, "--no-doctor")[0] == 0
    edit, expected = EDITS[name]
    edit(copy.bare, fact(copy, 0, "resource.new"))
    code, answer = audited(copy, "--no-doctor")
    assert code == 1
    assert said(answer) == [expected]


def test_a_move_that_was_taken_back_is_found(copy: Forge) -> None:
    """Put back to what it was before the newest decision: under way for some minutes, then a finding."""
    (copy.bare / "refs/heads/topic").write_text(fact(copy, 1, "resource.old") + "\n")
    assert later(copy, after_s=0).findings == ()
    (finding,) = later(copy).findings
    assert (finding.code, finding.ref, finding.entry) == ("taken-back", "refs/heads/topic", 1)


def test_a_tag_is_more_than_its_commit(copy: Forge, audited: Audit) -> None:
    """Another tag object of the same commit, with another message, is another value."""
    tags = []
    for name in ("one", "two"):
        copy.git(copy.work, "tag", "-a", "-m", name, name, "topic")
        tags.append(copy.git(copy.work, "rev-parse", f"refs/tags/{name}"))
    tag = copy.bare / "refs" / "tags" / "v1"
    tag.write_text(tags[0] + "\n")
    assert copy.policyguard("repo", "baseline", "trainer.git", "--log", "audit.db", "--out", "tagged.json").accepted
    since = ("--since", "tagged.json")
    assert audited(copy, "--no-doctor", since=since)[0] == 0
    tag.write_text(tags[1] + "\n")
    code, answer = audited(copy, "--no-doctor", "--ref", "refs/tags/**", since=since)
    assert (code, said(answer)) == (1, [("moved", "refs/tags/v1")])
    assert audited(copy, "--no-doctor", "--ref", "refs/heads/main", since=since)[0] == 0


def test_without_a_baseline_what_no_decision_covers_is_reported(copy: Forge, audited: Audit) -> None:
    """Main was there before the hooks; a baseline from today covers it, and everything else that stands now."""
    assert said(audited(copy, "--no-doctor", since=())[1]) == [("uncovered", "refs/heads/main")]
    assert copy.policyguard("repo", "baseline", "trainer.git", "--log", "audit.db", "--out", "today.json").accepted
    assert audited(copy, "--no-doctor", since=("--since", "today.json")) == (
        0,
        {"clean": True, "resource": RESOURCE, "references": 3, "decisions": 0, "entries": 3, "findings": []},
    )
    again = copy.policyguard("repo", "baseline", "trainer.git", "--log", "audit.db", "--out", "today.json")
    assert again.status == 78
    assert "exists already" in again.text


def test_decisions_of_another_key_explain_nothing(copy: Forge, audited: Audit) -> None:
    """The log is somebody's who is not trusted: that is the one finding."""
    write_private_key(copy.folder / "other.key", PrivateKey.generate(b"\1" * 32))
    code, answer = audited(copy, "--no-doctor", key="other.key")
    assert (code, said(answer)) == (1, [("log", "")])


def test_a_log_that_was_cut_off_is_found(forge: Forge, audited: Audit) -> None:
    """A baseline carries the log's checkpoint of its day; a shorter log does not hold it."""
    assert forge.policyguard("repo", "baseline", "trainer.git", "--log", "audit.db", "--out", "today.json").accepted
    for name in (*forge.folder.glob("audit.db*"), *forge.folder.glob("*.head*")):
        name.unlink()
    assert forge.push("topic:wip/alice/b").accepted
    code, answer = audited(forge, "--no-doctor", since=("--since", "today.json"))
    assert (code, said(answer)) == (1, [("log", "")])
    assert "cut off" in answer["findings"][0]["text"]


def test_the_doctors_complaints_are_findings(forge: Forge, audited: Audit) -> None:
    """A healthy repository has none; one without a deciding hook is open."""
    assert audited(forge) == audited(forge, "--no-doctor")
    (forge.bare / "hooks" / "pre-receive").unlink()
    code, answer = audited(forge)
    assert code == 1
    assert ("hook", "pre-receive") in said(answer)


def test_findings_are_lines_for_people(copy: Forge) -> None:
    """One line each, control characters escaped; without --trust and --key it is not started at all."""
    (copy.bare / "refs/heads/topic").write_text("\x1b[2Jevil\n")
    words = ("repo", "audit", "trainer.git", "--log", "audit.db", "--since", "first.json", "--no-doctor")
    told = copy.policyguard(*words, "--key", "guard.key")
    assert told.status == 1
    assert told.text.startswith("moved            refs/heads/topic: is at \\x1b[2Jevil, entry 1 and what was accepted")
    assert copy.policyguard(*words).status == 78


BASELINES = {
    "no JSON": (b"{", 78, "expected what `repo baseline` writes"),
    "another format": (b'"format": "policyguard repo baseline v2"', 78, "expected `policyguard repo baseline v1`"),
    "of another repository": (b'"resource": "repo:team/vision/other"', 78, "expected one of"),
}


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_that_is_none_is_refused(name: str, copy: Forge, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and no audit."""
    put, code, text = BASELINES[name]
    file = copy.folder / "first.json"
    field = put.split(b":")[0]
    lines = [put + b"," if line.strip().startswith(field) else line for line in file.read_bytes().split(b"\n")]
    file.write_bytes(put if put == b"{" else b"\n".join(lines))
    words = ["repo", "audit", str(copy.bare), "--log", str(copy.folder / "audit.db")]
    words += ["--key", str(copy.folder / "guard.key"), "--resource", RESOURCE, "--since", str(file)]
    assert run(words) == code
    assert text in capsys.readouterr().err
