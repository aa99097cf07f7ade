"""Revocation lists at the edges of what may be signed into one and of what is read from one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from policyguard.attest.dsse import BatchProof, sign
from policyguard.attest.revocation import (
    MAX_ENTRIES,
    MAX_REASON,
    MAX_REVOCATION_BYTES,
    REVOCATION_TYPE,
    check_form,
    fingerprint_of,
    open_list,
    revocation,
    revoked_by,
    sign_list,
)
from policyguard.attest.sshsig import SshKey
from policyguard.attest.statement import parse_statement
from policyguard.errors import VerificationError
from policyguard.values import MAX_INTEGER, canonical, format_instant
from tests.attest_lab import NOW, decision_of, key_of, payload_of

REVOKER, INES, STRANGER = key_of("revoker"), key_of("ines").public, key_of("stranger").public
FINGERPRINT = SshKey(INES.raw).fingerprint
ENTRY = {"id": "d-1", "kind": "decision", "reason": "", "revoked_at": format_instant(NOW)}


def payload(**changes: Any) -> bytes:
    data: dict[str, Any] = {"entries": [], "issued_at": format_instant(NOW), "sequence": 1, "version": 1}
    return canonical({**data, **changes})


def opened(content: bytes, kind: str = REVOCATION_TYPE) -> int:
    """The number of entries of a list with this content, signed by a revocation key."""
    return len(open_list(sign(content, kind, (REVOKER,)).to_bytes(), (REVOKER.public,)).entries)


NOT_REVOCABLE = {
    "an unknown kind": ("team", "vision", "left", "found the kind `team`"),
    "an account without its type": ("approver", "ines", "left", "an account such as"),
    "an account and a line end": ("approver", "user:ines\n", "left", "an account such as"),
    "an id with a space": ("decision", "d 1", "left", "a decision id"),
    "a digest in capitals": ("approval", "CD" * 32, "left", "64 hex digits"),
    "a short digest": ("policy", "cd" * 31, "left", "64 hex digits"),
    "a reason of two lines": ("decision", "d-1", "left\nV12: nothing is revoked", "reason: expected at most"),
    "a reason that is too long": ("decision", "d-1", "x" * (MAX_REASON + 1), "reason: expected at most"),
    "two keys": ("key", f"{INES.text}\n{STRANGER.text}", "left", "expected one key"),
    "no key": ("key", "# ed25519", "left", "expected one key"),
    "a key that is none": ("key", "ines", "left", "SHA256:"),
}


@pytest.mark.parametrize(("kind", "identifier", "why", "words"), NOT_REVOCABLE.values(), ids=NOT_REVOCABLE)
def test_what_revokes_nothing_is_not_signed_into_a_list(kind: str, identifier: str, why: str, words: str) -> None:
    """An entry that no list may have is refused when it is written and not only when a worker reads it."""
    with pytest.raises(ValueError, match=words):
        revocation(kind, identifier, reason=why, now=NOW)


def test_what_fits_its_kind_is_revoked() -> None:
    """The twin: the longest reason, none at all, a key in either form."""
    assert revocation("decision", "d-1", reason="x" * MAX_REASON, now=NOW).reason == "x" * MAX_REASON
    assert revocation("approver", "user:ines", reason="", now=NOW).since is None
    assert revocation("key", INES.text, reason="", now=NOW, since=NOW).id == FINGERPRINT == fingerprint_of(FINGERPRINT)


@pytest.mark.parametrize(
    ("kind", "identifier", "is_one"),
    [
        ("decision", "0" * 32, True),
        ("decision", "0" * 31, False),
        ("decision", "decisions/run.json", False),
        ("grant", "g-1", True),
        ("grant", "grants/g-1", False),
        ("grant", "g-1.json", False),
        ("approver", "user:a/b.json", True),
        ("approver", "user:carol", True),
        ("approver", "user:carol%20x", True),
        ("approver", "user:c*", False),
        ("approver", "user:carol%2e", False),
        ("approver", "user:carol/../x", False),
        ("approver", "user:carol\u200b", False),
        ("approver", "user:{a,b}", False),
        ("approver", "carol", False),
        ("policy", "0" * 31, True),
    ],
)
def test_the_name_of_a_file_revokes_no_decision_and_no_grant(kind: str, identifier: str, *, is_one: bool) -> None:
    """The message says what to name; the forms of the other kinds are checked with the entry."""
    if is_one:
        check_form(kind, identifier)
        return
    with pytest.raises(ValueError, match=f"({kind}: found|found {kind}) .*, expected"):
        check_form(kind, identifier)


def test_a_list_is_refused_from_one_entry_too_many_on() -> None:
    """When it is signed and when it is read; the twin is the longest list."""
    entry = revocation("decision", "d-1", reason="", now=NOW)
    signed = sign_list((entry,) * MAX_ENTRIES, 1, NOW, REVOKER)
    assert len(open_list(signed, (REVOKER.public,)).entries) == MAX_ENTRIES
    with pytest.raises(ValueError, match=f"found {MAX_ENTRIES + 1} entries"):
        sign_list((entry,) * (MAX_ENTRIES + 1), 1, NOW, REVOKER)
    with pytest.raises(VerificationError, match=f"V12: .*found {MAX_ENTRIES + 1} entries"):
        opened(payload(entries=[ENTRY] * (MAX_ENTRIES + 1)))


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "version zero": (lambda: opened(payload(version=0)), "version is 0"),
    "a sequence below the first": (lambda: opened(payload(sequence=0)), "sequence is 0"),
    "a sequence that no list reaches": (lambda: opened(payload(sequence=MAX_INTEGER + 1)), "sequence is"),
    "a list of no time": (lambda: opened(payload(issued_at="today")), "RFC 3339"),
    "an entry of no time": (lambda: opened(payload(entries=[{**ENTRY, "revoked_at": "today"}])), "RFC 3339"),
    "spaces": (lambda: opened(msgspec.json.format(payload())), "canonical form"),
    "a default that is written": (lambda: opened(payload(entries=[{**ENTRY, "since": None}])), "canonical form"),
    "bytes that are no text": (lambda: opened(payload().replace(b'"version"', b'"v\xff"')), "revocation list"),
    "another payload type": (lambda: opened(payload(), "application/vnd.in-toto+json"), "payload type"),
    "a list in a batch": (
        lambda: open_list(
            msgspec.structs.replace(
                sign(payload(), REVOCATION_TYPE, (REVOKER,)), batch=BatchProof(0, 1, ())
            ).to_bytes(),
            (REVOKER.public,),
        ),
        "payload type",
    ),
    "more bytes than a list may have": (
        lambda: open_list(b" " * (MAX_REVOCATION_BYTES + 1), (REVOKER.public,)),
        f"expected at most {MAX_REVOCATION_BYTES}",
    ),
    "no key that may revoke": (lambda: open_list(sign_list((), 1, NOW, REVOKER), ()), "0 trusted keys"),
}


@pytest.mark.parametrize(("read", "words"), BAD.values(), ids=BAD)
def test_a_list_of_another_make_is_refused_although_a_revocation_key_signed_it(
    read: Callable[[], object], words: str
) -> None:
    """Step V12: what is not understood, or has another spelling, revokes nothing and allows nothing."""
    with pytest.raises(VerificationError, match="V12: ") as refusal:
        read()
    assert words in refusal.value.message
    assert opened(payload(entries=[ENTRY], sequence=MAX_INTEGER)) == 1


def test_a_revocation_without_a_reason_is_reported_without_one() -> None:
    """No empty quotes after the time."""
    predicate = parse_statement(payload_of(decision_of())).predicate
    entry = revocation("decision", predicate.decision_id, reason="", now=NOW)
    content = open_list(sign_list((entry,), 1, NOW, REVOKER), (REVOKER.public,))
    assert list(revoked_by(content, predicate)) == [f"decision `d-1` was revoked at `{format_instant(NOW)}`"]
    assert not list(revoked_by(msgspec.structs.replace(content, entries=()), predicate))
