"""Public keys for which anybody can sign are refused at every entry point, in every encoding.

Vectors: the 14 encodings of the eight points of small order, as libsodium's `ge25519_has_small_order` lists them
(`crypto_core/ed25519/ref10/ed25519_ref10.c`, sign bit masked), computed again from RFC 8032's curve below.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from policyguard.attest.keys import PrivateKey, PublicKey
from policyguard.attest.note import NoteKey
from policyguard.attest.signers import Signers, parse_allowed_signers, parse_revoked
from policyguard.attest.sshsig import SshKey, SshSignature, SshSignatureError, parse_key, parse_key_blob
from policyguard.attest.trust import parse_trust
from policyguard.errors import ConfigurationError
from policyguard.model.policy import Person
from tests.attest_lab import SIGNER, Lab, trust_data

P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P
ORDER = 2**252 + 27742317777372353535851937790883648493

ENCODINGS = {
    "order 4": "0000000000000000000000000000000000000000000000000000000000000000",
    "order 4, other sign": "0000000000000000000000000000000000000000000000000000000000000080",
    "identity": "0100000000000000000000000000000000000000000000000000000000000000",
    "identity, sign set": "0100000000000000000000000000000000000000000000000000000000000080",
    "order 8, first": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "order 8, first, other sign": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "order 8, second": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "order 8, second, other sign": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "order 2": "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "order 2, sign set": "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "order 4 as p": "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "order 4 as p, other sign": "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "identity as p + 1": "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "identity as p + 1, sign set": "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}
SECOND_SPELLINGS = [(y | sign << 255).to_bytes(32, "little") for y in range(P + 2, 2**255) for sign in (0, 1)]
CAROL = PrivateKey(b"\1" * 32).public

EntryPoint = Callable[[bytes], object]


def ssh_line(raw: bytes) -> str:
    """The public key line of these bytes, written without the checks of `SshKey`'s readers."""
    return SshKey(raw).text


def trust_with(raw: bytes) -> object:
    data = trust_data(Lab().trust())
    return parse_trust(data | {"keys": [{"key": f"ed25519:{base64.b64encode(raw).decode()}"}]})


def log_line(raw: bytes) -> str:
    key = PublicKey.__new__(PublicKey)
    key.raw = raw
    return NoteKey("lab.example/decisions", key).text


ENTRY_POINTS: dict[str, EntryPoint] = {
    "a key in code": PublicKey,
    "ed25519: text, as in trust, baselines, grants and producers": lambda raw: PublicKey.from_text(
        f"ed25519:{base64.b64encode(raw).decode()}"
    ),
    "a PEM file": lambda raw: PublicKey.from_pem(
        b"-----BEGIN PUBLIC KEY-----\n%b\n-----END PUBLIC KEY-----\n"
        % base64.b64encode(bytes.fromhex("302a300506032b6570032100") + raw)
    ),
    "a trust file": trust_with,
    "a log key": lambda raw: NoteKey.from_text(log_line(raw)),
    "an SSH public key line": lambda raw: parse_key(ssh_line(raw)),
    "the key inside an SSH signature": lambda raw: parse_key_blob(SshKey(raw).blob),
    "a security key": lambda raw: parse_key_blob(SshKey(raw, "ssh:").blob),
    "allowed signers": lambda raw: parse_allowed_signers(f"carol@lab {ssh_line(raw)}".encode()),
    "a signature that was parsed earlier": lambda raw: SshSignature(SshKey(raw), "n", "sha512", b"\0" * 64).covers(
        b"", "n"
    ),
}


def persons_with(raw: bytes, scheme: str) -> object:
    text = ssh_line(raw) if scheme == "ssh" else f"ed25519:{base64.b64encode(raw).decode()}"
    return Signers([Person(id="carol", accounts=("user:carol",), keys=(text,))])


def test_the_list_is_complete() -> None:
    """The 14 encodings are exactly those of the eight points that L times any point can be."""
    assert {encoding.hex() for encoding in small_order_encodings()} == set(ENCODINGS.values())


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("entry", ENTRY_POINTS.values(), ids=ENTRY_POINTS)
def test_a_key_of_small_order_is_refused(entry: EntryPoint, encoding: str) -> None:
    """With such a key one signature fits many messages, and nobody needs a private key."""
    with pytest.raises((ConfigurationError, SshSignatureError), match="small order"):
        entry(bytes.fromhex(encoding))


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("scheme", ["ssh", "ed25519"])
def test_a_person_cannot_have_a_key_of_small_order(scheme: str, encoding: str) -> None:
    """The policies' own list of keys says which key it is, and nobody is approved by it."""
    with pytest.raises(ConfigurationError, match=r"`Persons`: the key .*small order"):
        persons_with(bytes.fromhex(encoding), scheme)
    assert persons_with(CAROL.raw, scheme)


@pytest.mark.parametrize("entry", ENTRY_POINTS.values(), ids=ENTRY_POINTS)
def test_a_second_encoding_of_a_key_is_refused(entry: EntryPoint) -> None:
    """RFC 8032 section 5.1.3: a y coordinate of p or more does not decode."""
    for raw in SECOND_SPELLINGS:
        with pytest.raises((ConfigurationError, SshSignatureError), match="one encoding"):
            entry(raw)


@pytest.mark.parametrize("entry", ENTRY_POINTS.values(), ids=ENTRY_POINTS)
def test_the_key_of_a_key_pair_is_accepted(entry: EntryPoint) -> None:
    """The twin: an ordinary key, at the same entry points."""
    entry(SIGNER.public.raw)


def test_a_key_of_small_order_can_be_revoked() -> None:
    """A list of revoked keys may name one, in the form of a public key line."""
    weak = SshKey(bytes.fromhex(ENCODINGS["identity"]))
    assert parse_revoked(weak.text.encode()) == {weak.fingerprint}


def small_order_encodings() -> set[bytes]:
    points: set[tuple[int, int]] = set()
    for y in range(2, 60):
        x = root((y * y - 1) * pow(D * y * y + 1, P - 2, P) % P)
        if x is not None:
            torsion = times(ORDER, (x, y))
            points |= {times(k, torsion) for k in range(8)}
    assert len(points) == 8
    return {
        (y | sign << 255).to_bytes(32, "little")
        for x, reduced in points
        for y in (reduced, reduced + P)
        if y < 2**255
        for sign in ((x & 1,) if x else (0, 1))
    }


def root(square: int) -> int | None:
    x: int = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return x if (x * x - square) % P == 0 else None


def times(factor: int, point: tuple[int, int]) -> tuple[int, int]:
    total = (0, 1)
    while factor:
        if factor & 1:
            total = plus(total, point)
        point, factor = plus(point, point), factor >> 1
    return total


def plus(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, P - 2, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - product, P - 2, P) % P,
    )
