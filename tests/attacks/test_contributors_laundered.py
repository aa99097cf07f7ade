"""Work under another name: squashed, with a new author, or committed as a colleague; it frees no approver."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from policyguard.attest.keys import PrivateKey
from policyguard.attest.signers import Signers
from policyguard.attest.sshsig import sign
from policyguard.evidence.contributors import Contributions, contributions_since
from policyguard.git.directory import find_gitdir
from policyguard.git.objects import open_objects
from policyguard.model.policy import Person
from tests.attacks.approvals_lab import KEYS, SNAPSHOT, Lab, because, make_lab
from tests.attacks.git_lab import git

DATE = {"GIT_AUTHOR_DATE": "1890000000 +0000", "GIT_COMMITTER_DATE": "1890000000 +0000"}
MACHINE = PrivateKey(b"\x63" * 32)


def named(mail: str) -> dict[str, str]:
    return {**DATE, "GIT_AUTHOR_EMAIL": mail, "GIT_COMMITTER_EMAIL": mail}


def change(lab: Lab, mail: str, message: str = "more") -> None:
    path = lab.root / "train.py"
    path.write_text(path.read_text() + "#\n")
    git(lab.root, "commit", "-qam", message, stdin=b"", **named(mail))


def sign_head(lab: Lab, key: PrivateKey) -> None:
    """Sign HEAD as `git commit --amend -S` does, with everything else as it is."""
    content = (git(lab.root, "cat-file", "commit", "HEAD") + "\n").encode()
    head, _, message = content.partition(b"\n\n")
    armour = sign(content, "git", key).rstrip(b"\n").replace(b"\n", b"\n ")
    signed = head + b"\ngpgsig " + armour + b"\n\n" + message
    git(lab.root, "update-ref", "HEAD", git(lab.root, "hash-object", "-t", "commit", "-w", "--stdin", stdin=signed))


def measured(lab: Lab, people: tuple[Person, ...] = SNAPSHOT.people) -> Contributions:
    head = git(lab.root, "rev-parse", "HEAD")
    with open_objects(find_gitdir(str(lab.root), {lab.root.stat().st_uid}), head, time.monotonic() + 10) as reader:
        return contributions_since(reader, head, Signers(people))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A lab that wants signed commits; its first commit was reviewed."""
    lab = make_lab(tmp_path)
    lab = lab.pin("reviewed_commits", git(lab.root, "rev-parse", "HEAD") + "\n")
    return replace(lab, files=structs.replace(lab.files, signed_only=True))


def approved(lab: Lab) -> Lab:
    for who in ("carol", "dan"):
        lab.put(who)
    return lab


def squash(lab: Lab) -> None:
    """Carol's signed commits become one commit of alice."""
    git(lab.root, "checkout", "-qb", "topic")
    for _ in range(2):
        change(lab, "carol@lab")
        sign_head(lab, KEYS["carol"])
    git(lab.root, "checkout", "-q", "main")
    git(lab.root, "merge", "-q", "--squash", "topic")
    git(lab.root, "commit", "-qm", "squashed", stdin=b"", **named("a@lab"))


def reset_author(lab: Lab) -> None:
    change(lab, "carol@lab")
    git(lab.root, "commit", "-q", "--amend", "--no-edit", "--reset-author", stdin=b"", **named("a@lab"))


def as_a_colleague(lab: Lab) -> None:
    change(lab, "a@lab")


@pytest.mark.parametrize("launder", [squash, reset_author, as_a_colleague])
def test_work_under_another_name_frees_no_approver(lab: Lab, launder: object) -> None:
    """Whoever wrote it: a commit without a signature is a conflict, named with its id and both ways out."""
    assert callable(launder)
    launder(lab)
    decision = approved(lab).decide()
    head = git(lab.root, "rev-parse", "HEAD")
    assert not decision.allowed
    (line,) = [line for line in because(decision) if line.startswith("approval.unknown_contributor")]
    assert f"commit {head[:12]}" in line
    assert "`a@lab`" in line
    assert "sign the commit" in line
    assert "add the address or the key to `Persons`" in line
    assert line in decision.explain()


@pytest.mark.parametrize("launder", [squash, reset_author, as_a_colleague])
def test_the_signer_is_a_contributor(lab: Lab, launder: object) -> None:
    """One step away: alice signs, and others approve; with carol's own key carol is a contributor."""
    assert callable(launder)
    launder(lab)
    sign_head(lab, KEYS["alice"])
    assert approved(lab).decide().allowed
    change(lab, "a@lab")
    sign_head(lab, KEYS["carol"])
    decision = approved(lab).decide()
    assert not decision.allowed
    assert "sod.approver_is_contributor" in decision.reason_codes


def test_an_unknown_author_is_named_and_both_ways_out_lead_out(tmp_path: Path) -> None:
    """Without any demand of signatures: the conflict goes when a known person signs, or when the address is known."""
    lab = make_lab(tmp_path)
    change(lab, "stranger@elsewhere")
    decision = approved(lab).decide()
    head = git(lab.root, "rev-parse", "HEAD")
    assert not decision.allowed
    lines = [line for line in because(decision) if line.startswith("approval.unknown_contributor")]
    assert lines
    assert all(head[:12] in line and "`stranger@elsewhere`" in line for line in lines)
    known = tuple(
        structs.replace(person, emails=(*person.emails, "stranger@elsewhere")) if person.id == "erin" else person
        for person in SNAPSHOT.people
    )
    assert measured(lab, known).accounts == ("user:alice", "user:erin")
    sign_head(lab, KEYS["alice"])
    assert approved(lab).decide().allowed


def test_a_machine_that_rebases_frees_nobody(tmp_path: Path) -> None:
    """Its signature says that it made the commit, and not whose work that is."""
    lab = make_lab(tmp_path)
    change(lab, "stranger@elsewhere")
    sign_head(lab, MACHINE)
    machine = Person(id="forge", accounts=("service:forge",), keys=(MACHINE.public.text,))
    contributions = measured(lab, (*SNAPSHOT.people, machine))
    assert "unknown:stranger@elsewhere" in contributions.accounts
    assert "service:forge" in contributions.accounts
    assert contributions.conflicts


def test_names_in_a_signed_commit_only_add_contributors(tmp_path: Path) -> None:
    """A co-author who is known counts, signed or not; one whom nobody knows does not undo the signature."""
    lab = make_lab(tmp_path)
    change(lab, "a@lab", "more\n\nCo-authored-by: C <carol@lab>\nCo-authored-by: X <x@elsewhere>")
    assert set(measured(lab).accounts) == {"user:alice", "user:carol", "unknown:x@elsewhere"}
    sign_head(lab, KEYS["erin"])
    assert set(measured(lab).accounts) == {"user:alice", "user:carol", "user:erin"}


def test_a_forged_signature_does_not_vouch(tmp_path: Path) -> None:
    """Alice's signature of another commit, or of nobody known, leaves both the signature and the author in doubt."""
    lab = make_lab(tmp_path)
    change(lab, "stranger@elsewhere")
    sign_head(lab, KEYS["mallory"])
    unknown = {account.partition("-")[0] for account in measured(lab).accounts if account.startswith("unknown:")}
    assert unknown == {"unknown:signature", "unknown:stranger@elsewhere"}
    assert measured(lab).unsigned


def test_many_unknown_names_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)
    for number in range(8):
        change(lab, f"x{number}@elsewhere")
    conflicts = measured(lab).conflicts
    assert len(conflicts) == 6
    assert "more identities" in conflicts[-1]
