"""Git hooks read the revocation list of trust: revoked keys, approvers, approvals and policies move no reference."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey
from policyguard.attest.revocation import Revocation, revocation, sign_list
from policyguard.attest.sshsig import fingerprint_of_line
from policyguard.audit.entries import DECISION_ENTRY
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.evidence.approvals.verify import SubmittedApproval, folder_approvals
from policyguard.guard import log_origin
from policyguard.policy_store.load import load_snapshot
from policyguard.values import sha256_digest
from tests.e2e.repo_lab import Forge, make_forge
from tests.e2e.test_repo_hook import approve

GUARD, REVOKER = PrivateKey.generate(b"\7" * 32), PrivateKey(b"\x66" * 32)
DAY_NS = 86_400 * 10**9


def put_list(forge: Forge, *entries: Revocation, sequence: int = 1, age_ns: int = 0) -> bytes:
    data = sign_list(entries, sequence, time.time_ns() - age_ns, REVOKER)
    (forge.folder / "list.json").write_bytes(data)
    return data


def entry(kind: str, identifier: str) -> Revocation:
    return revocation(kind, identifier, reason="stolen", now=time.time_ns())


def install(forge: Forge, *options: str) -> None:
    log = NoteKey(log_origin(GUARD.public), GUARD.public)
    trust = {
        "apiVersion": "policyguard/v1",
        "kind": "Trust",
        "keys": [{"key": GUARD.public.text}],
        "logs": [log.text],
        "audiences": ["local"],
        "policies": {"minEpoch": 0},
        "revocation": {"source": "list.json", "keys": [REVOKER.public.text], "maxAge": "1d"},
    }
    (forge.folder / "trust.json").write_text(json.dumps(trust))
    (forge.folder / "policyguard.yaml").write_text("trust: trust.json\n")
    installed = forge.install(*options)
    assert installed.accepted, installed.text


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    """A forge whose hook was installed with a trust file that names a revocation list; nothing is revoked yet."""
    made = make_forge(tmp_path)
    put_list(made)
    install(made, "--approvals", "approvals")
    return made


def fingerprint(forge: Forge, name: str) -> str:
    return fingerprint_of_line((forge.folder / f"{name}.pub").read_text())


def test_a_push_signed_with_a_revoked_key_is_refused(forge: Forge) -> None:
    """The certificate counts no further from the next push on; the twin is the revoked key of somebody else."""
    put_list(forge, entry("key", fingerprint(forge, "bob")), sequence=2)
    assert forge.push("main:topic").accepted
    forge.commit("more.md")
    put_list(forge, entry("key", fingerprint(forge, "alice")), sequence=3)
    pushed = forge.push("main:topic")
    assert not pushed.accepted
    assert "is revoked" in pushed.text


def _approval(forge: Forge) -> str:
    """The digest of Dan's approval."""
    (submitted,) = [one for one in folder_approvals(str(forge.folder / "approvals")) if "user-dan" in one.source]
    assert isinstance(submitted, SubmittedApproval)
    return sha256_digest(submitted.content)


REVOKED: dict[str, tuple[Callable[[Forge], Revocation], str]] = {
    "the approver's key": (lambda forge: entry("key", fingerprint(forge, "dan")), "approval.revoked_key"),
    "the approver": (lambda _: entry("approver", "user:dan"), "approval.revoked_approver"),
    "the approval": (lambda forge: entry("approval", _approval(forge)), "approval.revoked_approval"),
}


@pytest.mark.parametrize(("make", "code"), REVOKED.values(), ids=REVOKED)
def test_a_revoked_approval_opens_no_branch(forge: Forge, make: Callable[[Forge], Revocation], code: str) -> None:
    """Denied by the quorum, with the reason, signed and logged; the twin is the list without the entry."""
    start, commit = str(forge.value()), forge.commit("notes.md")
    for lead in ("carol", "dan"):
        approve(forge, lead, "refs/heads/main", start, commit)
    put_list(forge, make(forge), sequence=2)
    refused = forge.push("main")
    assert not refused.accepted
    assert code in refused.text
    assert "needs-approval" in refused.text
    put_list(forge, sequence=3)
    pushed = forge.push("main")
    assert pushed.accepted, pushed.text


@pytest.mark.parametrize("case", ["missing", "stale", "of another key", "the guard's key", "the policies"])
def test_a_list_that_is_not_believed_or_revokes_the_guard_refuses_every_push(forge: Forge, case: str) -> None:
    """One line says V12 and why; a signed denial is in the log. The twin is the list as it was."""
    before = put_list(forge)
    if case == "missing":
        (forge.folder / "list.json").unlink()
    elif case == "stale":
        put_list(forge, age_ns=2 * DAY_NS)
    elif case == "of another key":
        (forge.folder / "list.json").write_bytes(sign_list((), 2, time.time_ns(), GUARD))
    elif case == "the guard's key":
        put_list(forge, entry("key", GUARD.public.text))
    else:
        put_list(forge, entry("policy", load_snapshot(forge.folder / "policies", (GUARD.public,)).policy_digest))
    pushed = forge.push("main:other")
    assert not pushed.accepted
    assert "V12: " in pushed.text
    assert "Traceback" not in pushed.text
    assert forge.value("refs/heads/other") is None
    (forge.folder / "list.json").write_bytes(before)
    pushed = forge.push("main:other")
    assert pushed.accepted, pushed.text


def test_an_older_list_put_back_is_refused(forge: Forge) -> None:
    """The log remembers the highest sequence: a list from before the theft, well signed and fresh, does not count."""
    old = put_list(forge, sequence=4)
    put_list(forge, entry("key", fingerprint(forge, "bob")), sequence=5)
    assert forge.push("main:topic").accepted
    forge.commit("more.md")
    (forge.folder / "list.json").write_bytes(old)
    pushed = forge.push("main:topic")
    assert not pushed.accepted
    assert "has the sequence 4, expected at least 5" in pushed.text
    put_list(forge, entry("key", fingerprint(forge, "bob")), sequence=6)
    assert forge.push("main:topic").accepted


def test_a_decision_of_the_push_itself_is_verified_with_the_list(tmp_path: Path) -> None:
    """With the transaction hook each reference moves under the stored decision; the list applies there too."""
    forge = make_forge(tmp_path, "pre-receive", "reference-transaction")
    put_list(forge)
    install(forge, "--kind", "pre-receive", "--kind", "reference-transaction")
    pushed = forge.push("main:topic")
    assert pushed.accepted, pushed.text
    (forge.folder / "list.json").unlink()
    forge.commit("more.md")
    assert not forge.push("main:topic").accepted
    with SqliteStore.open(forge.folder / "audit.db", read_only=True) as store:
        assert DECISION_ENTRY.matches(list(store.read(0, 100))[-1].leaf)
