"""What a push certificate is worth: one accepted, and every step away from it refused with its reason."""

from __future__ import annotations

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.attest.signers import Signers, parse_allowed_signers
from policyguard.attest.sshsig import SshKey, sign
from policyguard.evidence.push import RefUpdate
from policyguard.evidence.push_certificate import Signed, read_certificate
from policyguard.model.policy import Person

ALICE, MALLORY = PrivateKey.generate(b"\1" * 32), PrivateKey.generate(b"\2" * 32)
PERSON = Person(id="alice", accounts=("user:alice",), keys=(SshKey(ALICE.public.raw).text,))
UPDATE = RefUpdate(old="a" * 40, new="b" * 40, ref="refs/heads/main")
TEXT = (
    b"certificate version 0.1\npusher alice 1 +0000\npushee x\nnonce 1-abc\n\n"
    + f"{UPDATE.old} {UPDATE.new} {UPDATE.ref}\n".encode()
)
TOLD = {
    "GIT_PUSH_CERT": "c" * 40, "GIT_PUSH_CERT_STATUS": "G", "GIT_PUSH_CERT_SIGNER": "user:alice",
    "GIT_PUSH_CERT_NONCE": "1-abc", "GIT_PUSH_CERT_NONCE_STATUS": "OK",
}  # fmt: skip


def read(
    *, text: bytes = TEXT, key: PrivateKey = ALICE, namespace: str = "git", update: RefUpdate = UPDATE,
    content: bytes | None = None, **told: str,
) -> Signed:  # fmt: skip
    blob = text + sign(text, namespace, key) if content is None else content
    return read_certificate({**TOLD, **told}, (update,), lambda _: blob, Signers((PERSON,)), 10**18)


def test_a_good_certificate_names_its_person() -> None:
    """The twin of every refusal below."""
    assert read() == Signed(status="good", signer=PERSON)


@pytest.mark.parametrize("signer", ["", " "])
def test_status_g_without_a_signer_is_not_a_signer(signer: str) -> None:
    """INVARIANT I145: git says G of any SSH key; only the empty signer tells that nobody allowed signed."""
    found = read(GIT_PUSH_CERT_SIGNER=signer)
    assert (found.status, found.signer) == ("bad", None)
    assert "no allowed signer" in found.why


@pytest.mark.parametrize("status", ["B", "U", "X", "Y", "R", "E", "N", "", "g"])
def test_any_other_status_is_bad(status: str) -> None:
    """Expired, revoked and unverifiable signatures are bad ones."""
    found = read(GIT_PUSH_CERT_STATUS=status)
    assert found == Signed(status="bad", why=f"git says `{status or 'nothing'}` of the push certificate, expected `G`")


@pytest.mark.parametrize("status", ["SLOP", "BAD", "MISSING", "UNSOLICITED", ""])
def test_a_nonce_that_is_not_ok_is_a_replay(status: str) -> None:
    """Whatever else is right."""
    assert "nonce" in read(GIT_PUSH_CERT_NONCE_STATUS=status).why


def test_the_nonce_is_the_one_in_the_certificate() -> None:
    """A certificate without one, or with another, is not the one that git asked for."""
    assert read(GIT_PUSH_CERT_NONCE="2-abc").status == "bad"
    assert read(text=TEXT.replace(b"nonce 1-abc\n", b""), GIT_PUSH_CERT_NONCE="").status == "bad"
    assert read(text=TEXT.replace(b"nonce 1-abc\n", b"nonce 1-abc\nnonce 1-abc\n")).status == "bad"


def test_other_updates_are_not_signed() -> None:
    """Another id, another ref, one more line."""
    assert read(update=RefUpdate(old="a" * 40, new="c" * 40, ref="refs/heads/main")).status == "bad"
    assert read(update=RefUpdate(old="a" * 40, new="b" * 40, ref="refs/heads/x")).status == "bad"
    for line in (b"0 1 refs/heads/y\n", b"refs/heads/y\n", b"0 refs/heads/y\n", b" \n"):
        assert read(text=TEXT + line).why == "the push certificate is for other updates"


def test_the_signature_is_verified_here() -> None:
    """Another key, another namespace, a changed text, garbage: git's G does not help."""
    assert "in neither" in read(key=MALLORY).why
    assert read(namespace="file").status == "bad"
    changed = TEXT.replace(b"pushee x", b"pushee y")
    forged = read(content=changed + sign(TEXT, "git", ALICE))
    assert forged == Signed(status="bad", why="the signature does not fit the push certificate")
    assert read(content=TEXT + b"-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n").status == "bad"
    assert read(content=TEXT + b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n").status == "bad"
    assert read(content=TEXT).why == "the push certificate cannot be read"


@pytest.mark.parametrize(
    ("window", "status"),
    [("20010101Z", "good"), ("20010909014641Z", "good"), ("20010909014640Z", "bad"), ("19990101Z", "bad")],
)
def test_the_key_must_hold_when_the_push_arrives(window: str, status: str) -> None:
    """The window of the key is that of the hook's clock, 2001-09-09T01:46:40Z here; the pusher's date is a claim."""
    line = f'user:alice valid-before="{window}" {SshKey(ALICE.public.raw).text}\n'
    if window == "20010101Z":
        line = line.replace("before", "after")
    signers = Signers((PERSON,), parse_allowed_signers(line.encode()))
    blob = TEXT + sign(TEXT, "git", ALICE)
    assert read_certificate(TOLD, (UPDATE,), lambda _: blob, signers, 10**18).status == status


OTHER_ARMOURS = (b"-----BEGIN PGP SIGNATURE-----", b"-----BEGIN SIGNED MESSAGE-----")


@pytest.mark.parametrize("armour", OTHER_ARMOURS, ids=["PGP", "X.509"])
def test_another_kind_of_signature_is_not_verified_here(armour: bytes) -> None:
    """The first armour ends what is signed; an SSH signature hidden behind another one counts for nothing."""
    why = "the push certificate is signed in a way that is not verified here"
    for content in (TEXT + armour + b"\nx\n", TEXT + armour + b"\nx\n" + sign(TEXT, "git", ALICE)):
        assert read(content=content) == Signed(status="bad", why=why)
    text = TEXT + sign(TEXT, "git", ALICE) + armour + b"\nx\n"
    assert read(content=text).status == "bad"


def test_what_is_no_certificate_is_a_bad_one() -> None:
    """No blob, an empty one, one without a signature, one that is a signature alone."""
    why = "the push certificate cannot be read"
    for blob in (None, b"", TEXT, sign(TEXT, "git", ALICE)):
        found = read_certificate(TOLD, (UPDATE,), lambda _, blob=blob: blob, Signers((PERSON,)), 10**18)  # type: ignore[misc]
        assert found == Signed(status="bad", why=why)


def test_a_new_or_deleted_ref_has_no_id() -> None:
    """Zeros in the certificate are what the update says as nothing; a line of two words is no update."""
    text = TEXT.replace(b"a" * 40, b"0" * 40)
    assert read(text=text, update=RefUpdate(old=None, new="b" * 40, ref="refs/heads/main")).status == "good"
    assert read(text=text, update=RefUpdate(old="0" * 40, new="b" * 40, ref="refs/heads/main")).status == "bad"
    assert read(text=TEXT, update=RefUpdate(old=None, new="b" * 40, ref="refs/heads/main")).status == "bad"


def test_no_certificate_is_no_signature() -> None:
    """Variables without the certificate itself are what any pusher can set."""
    assert read(GIT_PUSH_CERT="") == Signed(status="none", why="the push is not signed")
