"""Keys: one form of each text form, key ids as securesystemslib's, wrapped keys that refuse what is not theirs."""

from __future__ import annotations

import copy
import pickle
import subprocess
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from securesystemslib.signer._crypto_signer import CryptoSigner

from policyguard.attest import keys
from policyguard.attest.keys import PrivateKey, PublicKey
from policyguard.errors import ConfigurationError, SigningError

KEY = PrivateKey.generate(bytes(range(32)))
RFC8032 = {
    "seed": "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
    "public": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "signature": "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
    "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
}


@pytest.fixture(autouse=True)
def cheap_argon2(monkeypatch: pytest.MonkeyPatch) -> None:
    """New wraps cost 8 KiB here; the parameters stand in the file, so unwrapping is the real code."""
    monkeypatch.setattr(keys, "_DEFAULT_COST", (1, 8, 1))


def test_rfc8032_vector() -> None:
    """RFC 8032 section 7.1, test 1."""
    key = PrivateKey.generate(bytes.fromhex(RFC8032["seed"]))
    assert RFC8032["public"] == key.public.raw.hex()
    assert RFC8032["signature"] == key.sign(b"").hex()
    assert key.public.verify(key.sign(b""), b"")
    assert not key.public.verify(key.sign(b""), b"x")
    assert not key.public.verify(key.sign(b"")[:-1], b"")


def test_keyid_is_that_of_securesystemslib() -> None:
    """Our key id equals the one securesystemslib computes for the same key."""
    theirs = CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32)))).public_key
    assert theirs.keyid == KEY.keyid == KEY.public.keyid


def test_pem_is_what_cryptography_writes_and_reads() -> None:
    """Our PEM texts are byte for byte those of `cryptography`, and openssl's as far as it is there."""
    theirs = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    private = theirs.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = theirs.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert private == KEY.to_pem()
    assert public == KEY.public.to_pem()
    assert PrivateKey.from_pem(private).public == PublicKey.from_pem(public) == KEY.public


def test_openssl_reads_our_key(tmp_path: Path) -> None:
    """`openssl pkey` prints the public key of our private key file."""
    (tmp_path / "key").write_bytes(KEY.to_pem())
    try:
        done = subprocess.run(
            ["openssl", "pkey", "-in", str(tmp_path / "key"), "-pubout"], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("no openssl on this machine")
    assert KEY.public.to_pem() == done.stdout


def test_public_text_round_trip() -> None:
    assert PublicKey.from_text(KEY.public.text) == KEY.public


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ed25519:",
        KEY.public.text[8:],
        KEY.public.text[:-1],
        KEY.public.text + "=",
        "rsa" + KEY.public.text[7:],
        KEY.public.text + "\n",
        KEY.public.text[:-2] + "p=",
        "ed25519:" + "\u00e9" * 44,
    ],
    ids=[
        "empty",
        "no key",
        "no scheme",
        "padding cut",
        "padding added",
        "another scheme",
        "line end",
        "loose bits set",
        "not ASCII",
    ],
)
def test_public_text_has_one_encoding(text: str) -> None:
    """Anything but the canonical text is refused. Invariant I5."""
    with pytest.raises(ConfigurationError, match="found no public key, expected `ed25519:`"):
        PublicKey.from_text(text)


PEM = KEY.to_pem()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PEM[:-1],
        PEM + b"\n",
        b"\n" + PEM,
        PEM.replace(b"\n", b"\r\n"),
        PEM.replace(b"PRIVATE", b"EC PRIVATE"),
        KEY.public.to_pem(),
        PEM * 100,
        PEM + PEM,
    ],
    ids=[
        "empty",
        "last line end missing",
        "empty line after",
        "empty line before",
        "CR LF",
        "another label",
        "a public key",
        "larger than a key",
        "two keys",
    ],
)
def test_private_pem_has_one_encoding(data: bytes) -> None:
    """Anything but one canonical block is refused with one clear line. Invariant I5."""
    with pytest.raises(SigningError, match="found no Ed25519 private key, expected one unencrypted"):
        PrivateKey.from_pem(data)


def wrapped() -> bytes:
    return KEY.wrap(b"correct horse", salt=b"s" * 16, nonce=b"n" * 12)


def test_wrapped_key_opens_with_its_passphrase_only() -> None:
    """Argon2id and ChaCha20-Poly1305: the passphrase opens it, another does not."""
    assert keys.is_wrapped(wrapped())
    assert not keys.is_wrapped(PEM)
    assert PrivateKey.unwrap(wrapped(), b"correct horse").public == KEY.public
    with pytest.raises(SigningError, match="does not open: wrong passphrase, or the file was altered"):
        PrivateKey.unwrap(wrapped(), b"correct horsf")


def rewrap(**changes: object) -> bytes:
    """The wrapped key with members of its header changed."""
    header, *_ = keys._read_wrapped(wrapped())
    return keys._armour(msgspec.json.encode(msgspec.structs.replace(header, **changes)), "POLICYGUARD WRAPPED KEY")


def test_wrapped_key_header_is_authenticated() -> None:
    """Whoever edits the parameters, the public key or the salt gets no key."""
    for changes in (
        {"passes": 2},
        {"memory_kib": 16},
        {"public": PrivateKey.generate(b"x" * 32).public.text},
        {"salt": keys.encode_base64(b"t" * 16).decode()},
    ):
        with pytest.raises(SigningError, match="does not open"):
            PrivateKey.unwrap(rewrap(**changes), b"correct horse")


@pytest.mark.parametrize("changes", [{"memory_kib": 2**40}, {"passes": 10**6}, {"lanes": 0}, {"lanes": 10**4}])
def test_wrapped_key_cannot_ask_for_the_machine(changes: dict[str, object]) -> None:
    """Invariant I14: memory, passes and lanes are bounded before any of them is spent."""
    with pytest.raises(SigningError, match=r"wrapped key asks for .* expected at most 1048576, 16 and 16"):
        PrivateKey.unwrap(rewrap(**changes), b"correct horse")


@pytest.mark.parametrize("changes", [{"nonce": "AAAA"}, {"salt": ""}, {"ciphertext": "!"}, {"public": "x"}])
def test_malformed_wrapped_key_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(SigningError, match=r"wrapped key (is not in the canonical form|does not open)"):
        PrivateKey.unwrap(rewrap(**changes), b"correct horse")


def test_default_cost_is_that_of_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new key is wrapped with 64 MiB and three passes."""
    monkeypatch.undo()
    header, *_ = keys._read_wrapped(wrapped())
    assert (header.lanes, header.memory_kib, header.passes) == (1, 65_536, 3)


def test_empty_passphrase_wraps_nothing() -> None:
    with pytest.raises(SigningError, match="passphrase is empty"):
        KEY.wrap(b"", salt=b"s" * 16, nonce=b"n" * 12)


def test_seed_does_not_leak() -> None:
    """A private key shows its public half only, and is neither pickled nor copied."""
    assert repr(KEY) == f"PrivateKey(public={KEY.public.text})"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            attempt(KEY)


def test_short_seed_is_refused() -> None:
    with pytest.raises(SigningError, match="private key is 31 bytes, expected 32"):
        PrivateKey.generate(b"x" * 31)


@pytest.mark.parametrize("length", [31, 33])
def test_a_public_key_is_32_bytes(length: int) -> None:
    with pytest.raises(ConfigurationError, match=f"public key is {length} bytes, expected 32"):
        PublicKey(b"\x07" * length)


def test_a_public_key_equals_no_other_kind_of_value() -> None:
    assert KEY.public != KEY.public.text
    assert KEY.public != KEY.public.raw
    assert PublicKey(KEY.public.raw) == KEY.public


def test_a_key_of_another_algorithm_is_no_key_of_ours() -> None:
    """An X25519 key is as long as an Ed25519 key and differs in its algorithm only (RFC 8410)."""
    theirs = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    private = theirs.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = theirs.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(SigningError, match="found no Ed25519 private key"):
        PrivateKey.from_pem(private)
    with pytest.raises(ConfigurationError, match="found no Ed25519 public key"):
        PublicKey.from_pem(public)


@pytest.mark.parametrize("change", [b"", b"\0"], ids=["short", "long"])
def test_a_pem_block_holds_one_key_of_32_bytes(change: bytes) -> None:
    """The right algorithm with a byte too few or too many is refused as a PEM text that holds no key."""
    raw = KEY.public.raw + change if change else KEY.public.raw[:-1]
    with pytest.raises(ConfigurationError, match="found no Ed25519 public key"):
        PublicKey.from_pem(keys._armour(keys._SPKI + raw, "PUBLIC KEY"))
    with pytest.raises(SigningError, match="found no Ed25519 private key"):
        PrivateKey.from_pem(keys._armour(keys._PKCS8 + raw, "PRIVATE KEY"))


@pytest.mark.parametrize(("salt", "nonce"), [(b"s" * 15, b"n" * 12), (b"s" * 16, b"n" * 11)])
def test_a_short_salt_or_nonce_wraps_nothing(salt: bytes, nonce: bytes) -> None:
    with pytest.raises(ValueError, match="expected 16 and 12"):
        KEY.wrap(b"correct horse", salt=salt, nonce=nonce)


@pytest.mark.parametrize("member", ["nonce", "salt", "ciphertext"])
def test_a_wrapped_key_whose_member_is_no_base64_is_refused(member: str) -> None:
    with pytest.raises(SigningError, match="is not in the canonical form"):
        PrivateKey.unwrap(rewrap(**{member: "!"}), b"correct horse")


def test_a_wrapped_key_has_one_encoding() -> None:
    """I5: the same members with a space between them are refused."""
    inner = keys._unarmour(wrapped(), "POLICYGUARD WRAPPED KEY")
    assert inner is not None
    spaced = keys._armour(inner.replace(b",", b", ", 1), "POLICYGUARD WRAPPED KEY")
    with pytest.raises(SigningError, match="is not in the canonical form"):
        PrivateKey.unwrap(spaced, b"correct horse")


def test_a_wrapped_key_may_ask_for_the_maximum() -> None:
    """I14: 1 GiB, 16 passes and 16 lanes are read; the twin of each step beyond."""
    most = {"memory_kib": 1_048_576, "passes": 16, "lanes": 16}
    assert keys._read_wrapped(rewrap(**most))[0].passes == 16
    for name, value in most.items():
        with pytest.raises(SigningError, match="wrapped key asks for"):
            keys._read_wrapped(rewrap(**{**most, name: value + 1}))
    assert keys._read_wrapped(rewrap(memory_kib=8, passes=1, lanes=1))[0].lanes == 1
    with pytest.raises(SigningError, match="wrapped key asks for"):
        keys._read_wrapped(rewrap(memory_kib=7))


def test_a_wrapped_key_names_the_key_inside() -> None:
    """Its author knows the passphrase and names another public key: refused, so that the name can be relied on."""
    header, nonce, _ = keys._read_wrapped(wrapped())
    header = msgspec.structs.replace(header, public=PrivateKey.generate(b"x" * 32).public.text)
    sealed = keys._cipher(b"correct horse", header).encrypt(nonce, bytes(range(32)), header.associated())
    header = msgspec.structs.replace(header, ciphertext=keys.encode_base64(sealed).decode())
    with pytest.raises(SigningError, match="names another public key"):
        PrivateKey.unwrap(keys._armour(msgspec.json.encode(header), "POLICYGUARD WRAPPED KEY"), b"correct horse")
