"""Who had a hand in a commit, whatever its author would like: every way in adds a contributor, none takes one away."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from policyguard.attest.signers import Signers, parse_allowed_signers
from policyguard.attest.sshsig import SshKey, sign
from policyguard.errors import EvidenceError
from policyguard.evidence.approvals.collectors import ReviewedRepositoryCollector
from policyguard.evidence.contributors import (
    Commit,
    commits_since,
    contributions_of,
    contributions_since,
)
from policyguard.evidence.identity import account_name
from policyguard.git.directory import find_gitdir
from policyguard.git.objects import ObjectReader, open_objects
from tests.attacks.approvals_lab import KEYS, NOW, SNAPSHOT, Lab, because, codes, make_lab
from tests.attacks.git_lab import git

DATE = {"GIT_AUTHOR_DATE": "1890000000 +0000", "GIT_COMMITTER_DATE": "1890000000 +0000"}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path)


def change(lab: Lab, message: str = "more", **variables: str) -> str:
    """Commit a change and return its id."""
    path = lab.root / "train.py"
    path.write_text(path.read_text() + "#\n")
    git(lab.root, "commit", "-qam", message, stdin=b"", **{**DATE, **variables})
    return git(lab.root, "rev-parse", "HEAD")


def contributors(lab: Lab, accepted: tuple[str, ...] = (), *, signed_only: bool = False) -> set[str]:
    owners = {lab.root.stat().st_uid}
    head = git(lab.root, "rev-parse", "HEAD")
    with open_objects(find_gitdir(str(lab.root), owners), head, time.monotonic() + 10) as reader:
        return set(
            contributions_since(reader, head, Signers(SNAPSHOT.people), accepted, signed_only=signed_only).accounts
        )


def raw_commit(lab: Lab, headers: bytes, message: bytes = b"more\n") -> str:
    """Write a commit object of our own making, on top of HEAD, and move the branch to it."""
    tree = git(lab.root, "rev-parse", "HEAD^{tree}").encode()
    parent = git(lab.root, "rev-parse", "HEAD").encode()
    content = b"tree " + tree + b"\nparent " + parent + b"\n" + headers + b"\n" + message
    oid = git(lab.root, "hash-object", "-t", "commit", "-w", "--stdin", "--literally", stdin=content)
    git(lab.root, "update-ref", "refs/heads/main", oid)
    return oid


ALICE = b"alice <a@lab> 1890000000 +0000"
PLAIN = b"author " + ALICE + b"\ncommitter " + ALICE + b"\n"


def signed(lab: Lab, key: str, *, tamper: bool = False) -> None:
    """Commit with an SSH signature by this key, made in process as git asks ssh-keygen for it."""
    tree = git(lab.root, "rev-parse", "HEAD^{tree}").encode()
    parent = git(lab.root, "rev-parse", "HEAD").encode()
    text = b"tree " + tree + b"\nparent " + parent + b"\n" + PLAIN + b"\nmore\n"
    armour = sign(text + b"x" if tamper else text, "git", KEYS[key]).rstrip(b"\n").replace(b"\n", b"\n ")
    raw_commit(lab, PLAIN + b"gpgsig " + armour + b"\n")


WAYS: dict[str, tuple[Callable[[Lab], object], str]] = {
    "author": (lambda lab: change(lab, GIT_AUTHOR_EMAIL="carol@lab"), "user:carol"),
    "author in another case": (lambda lab: change(lab, GIT_AUTHOR_EMAIL="Carol@LAB"), "user:carol"),
    "committer": (lambda lab: change(lab, GIT_COMMITTER_EMAIL="carol@lab"), "user:carol"),
    "co-author": (lambda lab: change(lab, "more\n\nCo-authored-by: C <carol@lab>"), "user:carol"),
    "co-author in capitals": (lambda lab: change(lab, "more\n\nCO-AUTHORED-BY: C <carol@lab>"), "user:carol"),
    "co-author in the middle": (lambda lab: change(lab, "Co-authored-by: C <carol@lab>\n\nmore"), "user:carol"),
    "co-developer": (lambda lab: change(lab, "more\n\nCo-developed-by: C <carol@lab>"), "user:carol"),
    "signer": (lambda lab: signed(lab, "carol"), "user:carol"),
    "unknown author": (lambda lab: change(lab, GIT_AUTHOR_EMAIL="x@y"), "unknown:x@y"),
    "second author line": (lambda lab: raw_commit(lab, b"author C <carol@lab> 1 +0000\n" + PLAIN), "user:carol"),
}


@pytest.mark.parametrize(("way", "account"), WAYS.values(), ids=WAYS)
def test_every_hand_is_a_contributor(lab: Lab, way: Callable[[Lab], object], account: str) -> None:
    """I8: the union, beside alice who wrote the first commit."""
    before = contributors(lab)
    way(lab)
    assert (before, contributors(lab)) == ({"user:alice"}, {"user:alice", account})


UNREADABLE: dict[str, Callable[[Lab], object]] = {
    "a signature by an unknown key": lambda lab: signed(lab, "mallory"),
    "a signature that does not fit": lambda lab: signed(lab, "carol", tamper=True),
    "an OpenPGP signature": lambda lab: raw_commit(lab, PLAIN + b"gpgsig -----BEGIN PGP SIGNATURE-----\n x\n"),
    "no author": lambda lab: raw_commit(lab, b"committer " + ALICE + b"\n"),
    "two addresses in one author": lambda lab: raw_commit(
        lab, b"author A <a@lab> C <carol@lab> 1 +0000\ncommitter " + ALICE + b"\n"
    ),
    "an author that is no UTF-8": lambda lab: raw_commit(
        lab, b"author A <\xff\xfe@lab> 1 +0000\ncommitter " + ALICE + b"\n"
    ),
    "a co-author without an address": lambda lab: change(lab, "more\n\nCo-authored-by: somebody"),
    "more co-authors than anybody reads": lambda lab: change(lab, "Co-authored-by: A <a@lab>\n" * 1001),
}


@pytest.mark.parametrize("way", UNREADABLE.values(), ids=UNREADABLE)
def test_who_cannot_be_read_is_a_conflict(lab: Lab, way: Callable[[Lab], object]) -> None:
    """I8: an unknown hand might be anybody's, so that both leads count for nothing."""
    way(lab)
    unknown = {account for account in contributors(lab) if account.startswith("unknown:")}
    assert len(unknown) == 1
    for who in ("carol", "dan"):
        lab.put(who)
    decision = lab.decide()
    assert not decision.allowed
    assert any("belongs to no known person" in line for line in because(decision))


def test_a_known_signer_is_no_conflict(lab: Lab) -> None:
    """The twin: alice signs her own commit, and both leads may approve."""
    signed(lab, "alice")
    for who in ("carol", "dan"):
        lab.put(who)
    assert lab.decide().allowed


def test_an_accepted_commit_ends_the_range(lab: Lab) -> None:
    """Who wrote what was reviewed before is free again; by commit id and by tree id."""
    change(lab, GIT_AUTHOR_EMAIL="carol@lab")
    accepted, tree = git(lab.root, "rev-parse", "HEAD"), git(lab.root, "rev-parse", "HEAD^{tree}")
    change(lab)
    assert contributors(lab) == {"user:alice", "user:carol"}
    assert contributors(lab, (accepted,)) == contributors(lab, (tree,)) == {"user:alice"}
    assert contributors(lab, (git(lab.root, "rev-parse", "HEAD"),)) == set()


def test_a_branch_around_an_accepted_commit_brings_only_itself(lab: Lab) -> None:
    """As `git rev-list HEAD --not ACCEPTED`: what the accepted commit holds is not counted again."""
    change(lab, GIT_AUTHOR_EMAIL="carol@lab")
    git(lab.root, "branch", "side")
    accepted = change(lab, GIT_AUTHOR_EMAIL="dan@lab")
    git(lab.root, "checkout", "-q", "side")
    (lab.root / "side.py").write_text("#\n")
    git(lab.root, "add", ".")
    git(lab.root, "commit", "-qm", "side", GIT_AUTHOR_EMAIL="erin@lab", GIT_COMMITTER_EMAIL="erin@lab")
    git(lab.root, "checkout", "-q", "main")
    git(lab.root, "merge", "-q", "--no-ff", "-m", "merge", "side")
    assert contributors(lab, (accepted,)) == {"user:alice", "user:erin"}
    head = git(lab.root, "rev-parse", "HEAD")
    listed = git(lab.root, "rev-list", head, "--not", accepted).split()
    with open_objects(find_gitdir(str(lab.root), {lab.root.stat().st_uid}), head, time.monotonic() + 10) as reader:
        assert {commit.oid for commit in commits_since(reader, head, frozenset({accepted}))} == set(listed)


def test_a_revert_to_an_accepted_tree_launders_no_history(lab: Lab) -> None:
    """Carol's change is reverted to the accepted tree, then merged back in: she is still among those who wrote it."""
    accepted = git(lab.root, "rev-parse", "HEAD^{tree}")
    wrong = change(lab, GIT_AUTHOR_EMAIL="carol@lab")
    git(lab.root, "revert", "--no-edit", wrong)
    reverted = git(lab.root, "rev-parse", "HEAD")
    assert git(lab.root, "rev-parse", "HEAD^{tree}") == accepted
    tree = git(lab.root, "rev-parse", f"{wrong}^{{tree}}")
    merge = git(lab.root, "commit-tree", "-p", reverted, "-p", wrong, "-m", "merge", tree)
    git(lab.root, "reset", "-q", "--hard", merge)
    assert contributors(lab, (accepted,)) == {"user:alice", "user:carol"}
    assert contributors(lab, (reverted,)) == {"user:alice"}


def test_unsigned_commits_are_a_conflict_where_signatures_are_demanded(lab: Lab) -> None:
    """An author is a claim; with `signed_only` it has to be signed."""
    change(lab)
    signed(lab, "alice")
    first = git(lab.root, "rev-parse", "HEAD~2")
    assert len({a for a in contributors(lab, (first,), signed_only=True) if a.startswith("unknown:unsigned-")}) == 1
    assert contributors(lab, (git(lab.root, "rev-parse", "HEAD~1"),), signed_only=True) == {"user:alice"}


def test_shallow_history_has_no_contributors(lab: Lab, tmp_path: Path) -> None:
    """Where old commits are missing nobody is independent, and it is said why."""
    change(lab, GIT_AUTHOR_EMAIL="carol@lab")
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{lab.root}", str(tmp_path / "shallow"))
    shallow = replace(lab, root=tmp_path / "shallow")
    shallow = replace(shallow, inputs=type(lab.inputs)(argv=lab.inputs.argv, directory=str(shallow.root)))
    for who in ("carol", "dan"):
        shallow.put(who)
    decision = shallow.decide()
    assert not decision.allowed
    assert "approval.contributors_unknown" in codes(decision)


def test_replace_refs_and_grafts_hide_nobody(lab: Lab) -> None:
    """A replacement that shows a commit without carol is not seen."""
    wrong = change(lab, GIT_AUTHOR_EMAIL="carol@lab")
    git(lab.root, "commit", "-q", "--amend", "--no-edit", "--reset-author")
    right = git(lab.root, "rev-parse", "HEAD")
    git(lab.root, "reset", "-q", "--hard", wrong)
    git(lab.root, "replace", wrong, right)
    (lab.root / ".git" / "info" / "grafts").write_text(f"{wrong}\n")
    assert contributors(lab) == {"user:alice", "user:carol"}


def test_the_account_that_runs_the_launcher_is_no_approver(lab: Lab) -> None:
    """I8: carol asks in alice's name and approves herself."""
    for who in ("carol", "dan"):
        lab.put(who)
    assert lab.decide().allowed
    uid = os.getuid()
    known = account_name(uid)
    people = tuple(
        structs.replace(person, accounts=(*person.accounts, f"user:{known}")) if person.id == "carol" else person
        for person in SNAPSHOT.people
    )
    collector = ReviewedRepositoryCollector(people, lab.files, uid=uid)
    found = collector.collect(lab.request, lab.inputs, NOW)
    assert f"user:{known}" in (found.contributors or ())


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_a_commit_signed_by_git_itself_names_its_signer(lab: Lab, tmp_path: Path) -> None:
    """git calls ssh-keygen; the signature is verified in process, its key an SSH line in `Persons`."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "id")], check=True)
    line = (tmp_path / "id.pub").read_text()
    path = lab.root / "train.py"
    path.write_text("#\n")
    options = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={tmp_path / 'id'}")
    git(lab.root, *options, "commit", "-qam", "signed", "-S", stdin=b"", **DATE)
    head = git(lab.root, "rev-parse", "HEAD")
    carol = structs.replace(next(p for p in SNAPSHOT.people if p.id == "carol"), keys=(line,))
    people = (*(p for p in SNAPSHOT.people if p.id != "carol"), carol)
    with open_objects(find_gitdir(str(lab.root), {lab.root.stat().st_uid}), head, time.monotonic() + 10) as reader:
        content = reader.read(head, "commit")
        assert b"gpgsig -----BEGIN SSH SIGNATURE-----" in content
        assert contributions_since(reader, head, Signers(people)).accounts == ("user:alice", "user:carol")
        assert b"gpgsig" not in Commit(head, content).signed


def test_where_signatures_are_required_an_unsigned_commit_stops_approval(lab: Lab) -> None:
    """Both leads approve; alice's first commit is accepted, her second one is signed, or is not."""
    first = git(lab.root, "rev-parse", "HEAD")
    strict = lab.pin("reviewed_commits", f"{first}\n")
    strict = replace(strict, files=structs.replace(strict.files, signed_only=True))
    signed(lab, "alice")
    for who in ("carol", "dan"):
        strict.put(who)
    assert strict.decide().allowed
    change(lab)
    for who in ("carol", "dan"):
        strict.put(who)
    assert lab.decide().allowed
    decision = strict.decide()
    assert not decision.allowed
    assert any("unknown:unsigned-" in line for line in because(decision))


@pytest.mark.parametrize("name", [b"", b"a" * 39, b"A" * 40, b"../../etc/passwd", b"a" * 41, b"\xff" * 40])
def test_what_a_commit_names_is_an_object_id(name: bytes) -> None:
    """A tree or a parent of another form is said, and never looked for."""
    good = b"a" * 40
    assert Commit("c" * 40, b"tree " + good + b"\nparent " + good + b"\n\n").parents == ["a" * 40]
    for content, part in (
        (b"tree " + name + b"\nparent " + good + b"\n\n", "tree"),
        (b"tree " + good + b"\nparent " + name + b"\n\n", "parents"),
    ):
        with pytest.raises(EvidenceError, match="expected an object id"):
            getattr(Commit("c" * 40, content), part)


class History(ObjectReader):
    """Commits that exist as bytes only: oid to (tree, parents)."""

    def __init__(self, commits: Mapping[str, tuple[str, tuple[str, ...]]]) -> None:
        self.commits = commits

    def read(self, oid: str, kind: str) -> bytes:
        assert kind == "commit"
        tree, parents = self.commits[oid]
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents), "author x", "committer x"]
        return ("\n".join(lines) + "\n\nm\n").encode()


def oid(name: str) -> str:
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()


def history(**parents: str) -> History:
    """Commits named by letters, each with a tree of its own: `history(c="ab", a="", b="")`."""
    return History({oid(n): (oid(f"tree {n}"), tuple(map(oid, own))) for n, own in parents.items()})


def since(reader: History, head: str, *accepted: str) -> set[str]:
    found = {commit.oid for commit in commits_since(reader, oid(head), frozenset(map(oid, accepted)))}
    return {name for name in "abcdeh" if oid(name) in found}


def test_an_accepted_tree_does_not_vouch_for_the_history_below_it() -> None:
    """I8: led around by another branch, what lies below an accepted tree counts; below an accepted commit it does
    not, nor does an accepted commit that the head does not hold take anything away."""
    reader = history(a="", b="a", c="a", h="bc", d="h", e="d")
    assert since(reader, "h") == {"a", "b", "c", "h"}
    assert since(reader, "h", "tree b") == {"a", "c", "h"}
    assert since(reader, "h", "b") == {"c", "h"}
    assert since(reader, "h", "tree b", "e") == {"a", "c", "h"}
    assert since(reader, "h", "h") == since(reader, "h", "tree h") == set()


def test_a_history_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator learns that nothing was accepted lately; at the limit it is read."""

    class Endless(History):
        def read(self, oid: str, kind: str) -> bytes:
            number = int(oid, 16)
            parent = f"parent {number - 1:040x}\n" if number > 1 else ""
            return f"tree {number + 2**80:040x}\n{parent}\nm\n".encode()

    monkeypatch.setattr("policyguard.evidence.contributors.MAX_COMMITS", 1_000)
    reader = Endless({})
    assert len(list(commits_since(reader, f"{1_000:040x}", frozenset()))) == 1_000
    with pytest.raises(EvidenceError, match="more than 1000 commits since an accepted one"):
        list(commits_since(reader, f"{1_001:040x}", frozenset()))


@pytest.mark.parametrize(
    ("window", "account"),
    [("valid-after", "unknown:signature-"), ("valid-before", "user:carol")],
    ids=["a key that was not yet hers", "a key that was hers"],
)
def test_a_commit_is_signed_at_the_time_that_it_names(lab: Lab, window: str, account: str) -> None:
    """A key whose window closed since still says who signed; one from before its window does not."""
    signed(lab, "carol")
    key = SshKey(KEYS["carol"].public.raw).text
    lines = parse_allowed_signers(f'carol@lab {window}="20291123000000Z" {key}'.encode())
    head = git(lab.root, "rev-parse", "HEAD")
    with open_objects(find_gitdir(str(lab.root), {lab.root.stat().st_uid}), head, time.monotonic() + 10) as reader:
        found = contributions_of(Commit(head, reader.read(head, "commit")), Signers(SNAPSHOT.people, lines)).accounts
    assert any(each.startswith(account) for each in found)
    assert len(set(found)) == 2
