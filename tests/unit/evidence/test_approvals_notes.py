"""Approvals in git notes, written by git itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from policyguard.attest.approval import APPROVAL_PAYLOAD_TYPE, NAMESPACE
from policyguard.attest.dsse import sign as sign_envelope
from policyguard.attest.sshsig import sign
from policyguard.evidence.approvals.from_git_notes import MAX_NOTE_BYTES, note_line
from tests.attacks.approvals_lab import KEYS, Lab, because, codes, make_lab
from tests.attacks.git_lab import git

NOTES = ("notes", "--ref", "policyguard-approvals")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path)


def line(lab: Lab, who: str, *, key: str | None = None) -> bytes:
    payload = lab.statement(who).payload
    return note_line(payload, sign(payload, NAMESPACE, KEYS[key or who]))


def note(lab: Lab, text: bytes, on: str = "HEAD") -> None:
    """Write the note as it is, without git's clean-up of messages."""
    blob = git(lab.root, "hash-object", "-w", "--stdin", stdin=text)
    git(lab.root, *NOTES, "add", "-f", "-C", blob, on)


@pytest.mark.parametrize("on", ["HEAD", "HEAD^{tree}"])
def test_notes_on_the_commit_and_on_its_tree_count(lab: Lab, on: str) -> None:
    """One line in each form, in loose and in packed references."""
    envelope = sign_envelope(lab.statement("dan").payload, APPROVAL_PAYLOAD_TYPE, [KEYS["dan"]]).to_bytes()
    note(lab, line(lab, "carol") + b"\n\n" + envelope + b"\n", on)
    assert lab.decide().allowed
    git(lab.root, "pack-refs", "--all")
    assert lab.decide().allowed


def test_a_note_on_another_commit_is_not_read(lab: Lab) -> None:
    """The twin: the same approvals, moved by one commit."""
    note(lab, line(lab, "carol") + b"\n" + line(lab, "dan"))
    git(lab.root, "commit", "-q", "--allow-empty", "-m", "later")
    assert lab.decide().unmet_approvals[0].needed == 2


def test_notes_among_many_are_found(lab: Lab) -> None:
    """git spreads a large notes tree over folders; the fan-out is followed."""
    first = git(lab.root, "rev-parse", "HEAD")
    text = line(lab, "carol") + b"\n" + line(lab, "dan")
    note(lab, text)
    inner = git(lab.root, "rev-parse", "refs/notes/policyguard-approvals^{tree}")
    blob = git(lab.root, "ls-tree", inner).split()[2]
    leaf = git(lab.root, "mktree", stdin=f"100644 blob {blob}\t{first[4:]}\n".encode())
    middle = git(lab.root, "mktree", stdin=f"040000 tree {leaf}\t{first[2:4]}\n".encode())
    outer = git(lab.root, "mktree", stdin=f"040000 tree {middle}\t{first[:2]}\n".encode())
    commit = git(lab.root, "commit-tree", "-m", "notes", outer)
    git(lab.root, "update-ref", "refs/notes/policyguard-approvals", commit)
    assert git(lab.root, *NOTES, "show", first).encode() == text
    assert lab.decide().allowed


BAD: dict[str, tuple[bytes, str]] = {
    "text": (b"approved by carol\n", "approval.malformed"),
    "no UTF-8": (b"\xff\xfe\n", "approval.malformed"),
    "another JSON": (b'{"payload": 3}\n', "approval.malformed"),
    "a payload that is no base64": (b'{"payload":"!!","signature":""}\n', "approval.malformed"),
    "a signature that is none": (b'{"payload":"e30=","signature":"x"}\n', "approval.malformed"),
    "too many lines": (b"x\n" * 300, "approval.too_many"),
    "too many bytes": (b"x" * (MAX_NOTE_BYTES + 1), "approval.unreadable"),
}


@pytest.mark.parametrize(("text", "code"), BAD.values(), ids=BAD)
def test_a_hostile_note_denies_and_is_named(lab: Lab, text: bytes, code: str) -> None:
    """Each with its own reason; nothing is raised, and the folder's approvals are read all the same."""
    note(lab, text)
    assert codes(lab.decide()) >= {code}
    lab.put("carol")
    lab.put("dan")
    assert lab.decide().allowed


def test_a_forged_note_is_refused(lab: Lab) -> None:
    """Whoever can write notes cannot sign as carol."""
    note(lab, line(lab, "carol", key="mallory") + b"\n" + line(lab, "dan"))
    assert codes(lab.decide()) == {"approval.unknown_signer"}


def test_a_notes_reference_that_leads_nowhere_is_named(lab: Lab) -> None:
    """A damaged reference, one that is no id, one that is a blob."""
    blob = git(lab.root, "hash-object", "-w", "--stdin", stdin=b"")
    path = lab.root / ".git" / "refs" / "notes" / "policyguard-approvals"
    path.parent.mkdir(parents=True, exist_ok=True)
    for text in ("nonsense", "0" * 40, blob):
        path.write_text(text + "\n")
        assert codes(lab.decide()) == {"approval.unreadable"}, because(lab.decide())


def test_without_notes_nothing_is_reported(lab: Lab) -> None:
    """No notes reference is the usual case."""
    assert replace(lab).decide().unmet_approvals[0].because == ()
