"""One push is one session: however many references it moves, its repository is opened once."""

from __future__ import annotations

import io
import os
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from policyguard.evidence.approvals import verify as approvals
from policyguard.evidence.push import objects as push_objects
from policyguard.git import refs
from policyguard.hooks.git.main import main
from tests.e2e.repo_lab import RESOURCE, Forge, make_forge

REFS = 50


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    """A forge whose references are all packed."""
    forge = make_forge(tmp_path)
    old = str(forge.value())
    (tmp_path / "approvals").mkdir()
    (tmp_path / "approvals" / "one.json").write_text("{}")
    for number in range(REFS):
        forge.git(forge.bare, "update-ref", f"refs/heads/topic-{number}", old)
    forge.git(forge.bare, "pack-refs", "--all")
    return forge


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the repository is opened, packed references and approvals are read, and programs are started."""
    count: Counter[str] = Counter()

    def count_calls(where: Any, name: str, label: Callable[..., str | None]) -> None:
        real = getattr(where, name)

        def counting(*arguments: Any, **options: Any) -> Any:
            key = label(*arguments)
            count.update([key] if key else [])
            return real(*arguments, **options)

        monkeypatch.setattr(where, name, counting)

    count_calls(push_objects, "bare_gitdir", lambda *_: "opened")
    count_calls(refs, "read_small", lambda path, _: "packed-refs" if path.endswith("packed-refs") else None)
    count_calls(approvals, "read_small", lambda *_: "approvals")
    count_calls(subprocess.Popen, "__init__", lambda *_, **__: "programs")
    return count


def hook(forge: Forge, monkeypatch: pytest.MonkeyPatch, kind: str, text: str, *words: str) -> int:
    """Run a hook in this process, as its script would."""
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    monkeypatch.setenv("REMOTE_USER", "alice")
    options = {
        "repo": forge.bare,
        "policies": forge.folder / "policies",
        "key": forge.folder / "guard.key",
        "log": forge.folder / "audit.db",
        "resource": RESOURCE,
        "pusher": "REMOTE_USER",
        "allowed-signers": forge.folder / "allowed_signers",
        "approvals": forge.folder / "approvals",
    }
    return main([kind, *[word for name, value in options.items() for word in (f"--{name}", str(value))], *words])


def lines(forge: Forge, new: str, count: int = REFS) -> str:
    """Write what git hands to a hook for a push that moves this many references."""
    old = forge.value()
    return "".join(f"{old} {new} refs/heads/topic-{number}\n" for number in range(count))


@pytest.mark.parametrize("kind", ["pre-receive", "reference-transaction"])
def test_a_push_of_fifty_references_opens_its_repository_once(
    forge: Forge, counted: Counter[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Packed references and approvals are read once, too, whichever hook asks."""
    forge.commit("train/optim/adam.py", "faster")
    new = forge.git(forge.work, "rev-parse", "HEAD")
    forge.git(forge.bare, "fetch", "-q", str(forge.work), "main")
    words = ("--", "prepared") if kind == "reference-transaction" else ()
    text = lines(forge, new)
    counted.clear()
    status = hook(forge, monkeypatch, kind, text, *words)
    assert status == 77, "unsigned, so denied, after everything was measured"
    assert counted["opened"] == 1
    assert counted["packed-refs"] == 1
    assert counted["approvals"] == 1


def test_a_further_reference_costs_two_walks(
    forge: Forge, counted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git starts for the ancestry and for the commits that enter, and for nothing else that grows with the push."""
    forge.commit("train/optim/adam.py", "faster")
    forge.git(forge.bare, "fetch", "-q", str(forge.work), "main")
    new = forge.git(forge.work, "rev-parse", "HEAD")
    programs = []
    for text in (lines(forge, new, 1), lines(forge, new, 11)):
        counted.clear()
        hook(forge, monkeypatch, "pre-receive", text)
        programs.append(counted["programs"])
    assert programs[1] - programs[0] == 2 * 10


def test_references_that_move_meanwhile_are_read_again(tmp_path: Path) -> None:
    """What is kept of the packed references counts only while git has not replaced their file."""
    forge = make_forge(tmp_path)
    old = str(forge.value())
    forge.git(forge.bare, "pack-refs", "--all")
    git, _ = push_objects.find_store(str(forge.bare), {}, {os.geteuid(), 0})
    known = refs.References(git)
    assert known.id_of(b"refs/heads/main") == old
    assert known.is_packed(b"refs/heads/main", old)
    forge.git(forge.bare, "update-ref", "refs/heads/other", old)
    forge.git(forge.bare, "pack-refs", "--all")
    assert known.id_of(b"refs/heads/other") == old
    forge.git(forge.bare, "update-ref", "-d", "refs/heads/main")
    assert known.id_of(b"refs/heads/main") is None
    assert not known.is_packed(b"refs/heads/main", old)
