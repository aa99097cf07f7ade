"""What a push certificate is worth: one accepted, and every step away from it refused with its reason."""

from __future__ import annotations

import hmac
from collections.abc import Callable

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.attest.signers import Signers, parse_allowed_signers
from policyguard.attest.sshsig import SshKey, sign
from policyguard.evidence.push.certificate import Signed, read_certificate
from policyguard.evidence.push.nonce import Nonces
from policyguard.evidence.push.updates import RefUpdate
from policyguard.model.policy import Person
from policyguard.values import NANOSECONDS_PER_S

ALICE, MALLORY = PrivateKey.generate(b"\1" * 32), PrivateKey.generate(b"\2" * 32)
PERSON = Person(id="alice", accounts=("user:alice",), keys=(SshKey(ALICE.public.raw).text,))
UPDATE = RefUpdate(old="a" * 40, new="b" * 40, ref="refs/heads/main")
NOW_S = 1_700_000_100
USED = "the push certificate was used before; a push repeated within one second has the same one"
NONCES = Nonces(seed=b"seed", paths=("/srv/other.git", "/srv/trainer.git"))


def nonce(path: str = "/srv/trainer.git", at_s: int = NOW_S - 100, seed: bytes = b"seed") -> str:
    """Return what `git receive-pack PATH` with this seed gives out at this second; checked against git in tests/e2e."""
    return f"{at_s}-" + hmac.new(f"{path}:{at_s}".encode(), seed, "sha1").hexdigest()


NONCE = nonce()
TEXT = (
    f"certificate version 0.1\npusher alice 1 +0000\npushee x\nnonce {NONCE}\n\n".encode()
    + f"{UPDATE.old} {UPDATE.new} {UPDATE.ref}\n".encode()
)
TOLD = {
    "GIT_PUSH_CERT": "c" * 40,
    "GIT_PUSH_CERT_STATUS": "G",
    "GIT_PUSH_CERT_SIGNER": "user:alice",
    "GIT_PUSH_CERT_NONCE": NONCE,
    "GIT_PUSH_CERT_NONCE_STATUS": "OK",
}


def read(
    *,
    text: bytes = TEXT,
    key: PrivateKey = ALICE,
    namespace: str = "git",
    update: RefUpdate = UPDATE,
    content: bytes | None = None,
    nonces: Nonces = NONCES,
    spend: Callable[[str], bool] | None = None,
    **told: str,
) -> Signed:
    blob = text + sign(text, namespace, key) if content is None else content
    now = NOW_S * NANOSECONDS_PER_S
    return read_certificate({**TOLD, **told}, (update,), lambda _: blob, Signers((PERSON,)), now, nonces, spend=spend)


def read_with(given: str, nonces: Nonces = NONCES) -> Signed:
    """Read a certificate that alice signed over this nonce, which git calls OK."""
    return read(text=TEXT.replace(NONCE.encode(), given.encode()), nonces=nonces, GIT_PUSH_CERT_NONCE=given)


def test_a_good_certificate_names_its_person() -> None:
    """The twin of every refusal below."""
    assert read() == Signed(status="good", signer=PERSON)


@pytest.mark.parametrize("signer", ["", " "])
def test_status_g_without_a_signer_is_not_a_signer(signer: str) -> None:
    """INVARIANT I1: git says G of any SSH key; only the empty signer tells that nobody allowed signed."""
    found = read(GIT_PUSH_CERT_SIGNER=signer)
    assert (found.status, found.signer) == ("bad", None)
    assert "no allowed signer" in found.reason


@pytest.mark.parametrize("status", ["B", "U", "X", "Y", "R", "E", "N", "", "g"])
def test_any_other_status_is_bad(status: str) -> None:
    """Expired, revoked and unverifiable signatures are bad ones."""
    found = read(GIT_PUSH_CERT_STATUS=status)
    assert found == Signed(
        status="bad", reason=f"git says `{status or 'nothing'}` of the push certificate, expected `G`"
    )


@pytest.mark.parametrize("status", ["SLOP", "BAD", "MISSING", "UNSOLICITED", ""])
def test_a_nonce_that_is_not_ok_is_a_replay(status: str) -> None:
    """Whatever else is right."""
    assert "nonce" in read(GIT_PUSH_CERT_NONCE_STATUS=status).reason


def test_the_nonce_is_the_one_in_the_certificate() -> None:
    """A certificate without one, or with another, is not the one that git asked for."""
    line = f"nonce {NONCE}\n".encode()
    assert read(GIT_PUSH_CERT_NONCE=nonce(at_s=NOW_S)).status == "bad"
    assert read(text=TEXT.replace(line, b""), GIT_PUSH_CERT_NONCE="").status == "bad"
    assert read(text=TEXT.replace(line, line + line)).status == "bad"


@pytest.mark.parametrize(
    "given",
    [
        nonce(seed=b"mine"),
        nonce("/srv/fork.git"),
        nonce().replace("1700000000-", "1700000001-"),
        nonce()[:-1],
        "1-abc",
        "0" + nonce(),
        nonce() + "\u00e9",
        f"{NOW_S}-",
    ],
)
def test_a_nonce_that_another_seed_made_is_refused(given: str) -> None:
    """INVARIANT I19: git's word OK does not help; a fork, or a pusher with a seed of his own, makes other nonces."""
    assert read_with(given).reason == "the nonce of the push certificate was not given out for this repository"


def test_every_name_of_the_repository_counts() -> None:
    """The twin: what transports call it, and nothing when the seed is not known."""
    assert read_with(nonce("/srv/other.git")).status == "good"
    unknown = read_with(nonce(), Nonces(seed=None, paths=NONCES.paths))
    assert "no receive.certNonceSeed in the configuration" in unknown.reason
    assert read_with(nonce(seed=b""), Nonces(seed=b"", paths=NONCES.paths)).status == "good"


@pytest.mark.parametrize(
    ("age_s", "status"), [(0, "good"), (3_600, "good"), (3_601, "bad"), (-60, "good"), (-61, "bad")]
)
def test_an_old_nonce_is_a_replay(age_s: int, status: str) -> None:
    """INVARIANT I19: an hour is long enough for a push; what comes from the future was not given out by this clock."""
    found = read_with(nonce(at_s=NOW_S - age_s))
    assert found.status == status
    assert (f"is {age_s} seconds old" in found.reason) == (status == "bad")


def test_what_was_signed_is_good_once() -> None:
    """INVARIANT I19: a second look at the same text is a replay; a bad certificate spends nothing."""
    spent: list[str] = []

    def spend(digest: str) -> bool:
        spent.append(digest)
        return len(spent) == len(set(spent))

    assert read(spend=spend, key=MALLORY).status == "bad"
    assert not spent
    assert read(spend=spend).status == "good"
    assert read(spend=spend) == Signed(status="bad", reason=USED)


def test_a_repository_that_uses_sha256_makes_longer_nonces() -> None:
    """HMAC with the repository's own hash; of a length that is neither there is none."""
    made = hmac.new(f"/srv/trainer.git:{NOW_S}".encode(), b"seed", "sha256").hexdigest()
    assert read_with(f"{NOW_S}-{made}").status == "good"
    assert read_with(f"{NOW_S}-{made[:50]}").status == "bad"


def test_other_updates_are_not_signed() -> None:
    """Another id, another ref, one more line."""
    assert read(update=RefUpdate(old="a" * 40, new="c" * 40, ref="refs/heads/main")).status == "bad"
    assert read(update=RefUpdate(old="a" * 40, new="b" * 40, ref="refs/heads/x")).status == "bad"
    for line in (b"0 1 refs/heads/y\n", b"refs/heads/y\n", b"0 refs/heads/y\n", b" \n"):
        assert read(text=TEXT + line).reason == "the push certificate is for other updates"


def test_the_signature_is_verified_here() -> None:
    """Another key, another namespace, a changed text, garbage: git's G does not help."""
    assert "in neither" in read(key=MALLORY).reason
    assert read(namespace="file").status == "bad"
    changed = TEXT.replace(b"pushee x", b"pushee y")
    forged = read(content=changed + sign(TEXT, "git", ALICE))
    assert forged == Signed(status="bad", reason="the signature does not fit the push certificate")
    assert read(content=TEXT + b"-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n").status == "bad"
    assert read(content=TEXT + b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n").status == "bad"
    assert read(content=TEXT).reason == "the push certificate cannot be read"


@pytest.mark.parametrize(
    ("window", "status"),
    [("20010101Z", "good"), ("20231114221501Z", "good"), ("20231114221500Z", "bad"), ("19990101Z", "bad")],
)
def test_the_key_must_hold_when_the_push_arrives(window: str, status: str) -> None:
    """The window of the key is that of the hook's clock, 2023-11-14T22:15:00Z here; the pusher's date is a claim."""
    line = f'user:alice valid-before="{window}" {SshKey(ALICE.public.raw).text}\n'
    if window == "20010101Z":
        line = line.replace("before", "after")
    signers = Signers((PERSON,), parse_allowed_signers(line.encode()))
    blob = TEXT + sign(TEXT, "git", ALICE)
    now = NOW_S * NANOSECONDS_PER_S
    assert read_certificate(TOLD, (UPDATE,), lambda _: blob, signers, now, NONCES).status == status


OTHER_ARMOURS = (b"-----BEGIN PGP SIGNATURE-----", b"-----BEGIN SIGNED MESSAGE-----")


@pytest.mark.parametrize("armour", OTHER_ARMOURS, ids=["PGP", "X.509"])
def test_another_kind_of_signature_is_not_verified_here(armour: bytes) -> None:
    """The first armour ends what is signed; an SSH signature hidden behind another one counts for nothing."""
    why = "the push certificate is signed in a way that is not verified here"
    for content in (TEXT + armour + b"\nx\n", TEXT + armour + b"\nx\n" + sign(TEXT, "git", ALICE)):
        assert read(content=content) == Signed(status="bad", reason=why)
    text = TEXT + sign(TEXT, "git", ALICE) + armour + b"\nx\n"
    assert read(content=text).status == "bad"


def test_what_is_no_certificate_is_a_bad_one() -> None:
    """No blob, an empty one, one without a signature, one that is a signature alone."""
    why = "the push certificate cannot be read"
    now = NOW_S * NANOSECONDS_PER_S
    for blob in (None, b"", TEXT, sign(TEXT, "git", ALICE)):
        blobs = {TOLD["GIT_PUSH_CERT"]: blob}
        found = read_certificate(TOLD, (UPDATE,), blobs.get, Signers((PERSON,)), now, NONCES)
        assert found == Signed(status="bad", reason=why)


def test_a_new_or_deleted_ref_has_no_id() -> None:
    """Zeros in the certificate are what the update says as nothing; a line of two words is no update."""
    text = TEXT.replace(b"a" * 40, b"0" * 40)
    assert read(text=text, update=RefUpdate(old=None, new="b" * 40, ref="refs/heads/main")).status == "good"
    assert read(text=text, update=RefUpdate(old="0" * 40, new="b" * 40, ref="refs/heads/main")).status == "bad"
    assert read(text=TEXT, update=RefUpdate(old=None, new="b" * 40, ref="refs/heads/main")).status == "bad"


def test_no_certificate_is_no_signature() -> None:
    """Variables without the certificate itself are what any pusher can set."""
    assert read(GIT_PUSH_CERT="") == Signed(status="none", reason="the push is not signed")
