"""Ed25519 keys and their text forms: the only module that imports `cryptography`.

Parses and prints key *texts*; `keyfiles.py` opens the files. Randomness comes in as arguments. Key ids are computed as
securesystemslib computes them, so other DSSE tools find our keys; a key id is a hint, never a decision.
`cryptography` is imported at first use: a process that only reads a log does not pay for it.
"""

from __future__ import annotations

import binascii
import hashlib
from typing import Any, Literal

import msgspec

from policyguard.errors import ConfigurationError, SigningError
from policyguard.values import canonical

SEED_BYTES = 32
SIGNATURE_BYTES = 64
PUBLIC_BYTES = 32
SALT_BYTES = 16
NONCE_BYTES = 12

MAX_KEY_TEXT_BYTES = 4096
"""A key text is about 120 bytes, a wrapped one about 500; longer ones are refused before they are parsed."""

_PKCS8 = bytes.fromhex("302e020100300506032b657004220420")
"""RFC 8410 section 7: everything before the 32 seed bytes in the one DER encoding of an Ed25519 private key."""

_SPKI = bytes.fromhex("302a300506032b6570032100")
"""RFC 8410 section 4: everything before the 32 bytes of an Ed25519 public key."""

_PRIVATE, _PUBLIC, _WRAPPED = "PRIVATE KEY", "PUBLIC KEY", "POLICYGUARD WRAPPED KEY"

_DEFAULT_COST = (1, 65_536, 3)
"""Argon2id lanes, memory in KiB and passes of a new wrap: RFC 9106 section 4, second recommendation, in one lane."""

_PRIME = 2**255 - 19

_SMALL_ORDER = frozenset(
    {
        0,
        1,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        _PRIME - 1,
    }
)
"""The y coordinates of the eight points whose order divides the cofactor 8; y - p is reached by reduction.

Source: libsodium `crypto_core/ed25519/ref10/ed25519_ref10.c`, `ge25519_has_small_order`.
"""

_MAX_MEMORY_KIB = 1_048_576
_MAX_PASSES = 16


def unusable_point(raw: bytes) -> str | None:
    """Explain why 32 bytes cannot be a public key; None if they can.

    A point of small order verifies signatures that nobody made: with it one signature fits many messages. A y
    coordinate of p or more is a second encoding of another key (RFC 8032 section 5.1.3 refuses to decode it).
    """
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    # INVARIANT I10: a key that needs no private half to sign counts nowhere.
    if y % _PRIME in _SMALL_ORDER:
        return "is a point of small order, for which anybody can sign; expected the key of a key pair"
    # INVARIANT I5: a key has one encoding.
    if y >= _PRIME:
        return "is not in its one encoding, expected a y coordinate below 2^255 - 19"
    return None


class PublicKey:
    """An Ed25519 public key. Keys are equal if their 32 bytes are; `keyid` is securesystemslib's."""

    __slots__ = ("_key", "_keyid", "raw")

    raw: bytes

    def __init__(self, raw: bytes) -> None:
        if len(raw) != PUBLIC_BYTES:
            raise ConfigurationError(f"public key is {len(raw)} bytes, expected {PUBLIC_BYTES}")
        problem = unusable_point(raw)
        if problem is not None:
            raise ConfigurationError(f"public key {problem}")
        self.raw = bytes(raw)
        self._key: Any = None
        self._keyid: str | None = None

    @property
    def keyid(self) -> str:
        """SHA-256 over the canonical key, lower-case hex (securesystemslib `Signer._get_keyid`)."""
        if self._keyid is None:
            data = {"keytype": "ed25519", "keyval": {"public": self.raw.hex()}, "scheme": "ed25519"}
            self._keyid = hashlib.sha256(canonical(data)).hexdigest()
        return self._keyid

    @property
    def text(self) -> str:
        """The text form used in trust files: `ed25519:` and the base64 of the 32 bytes."""
        return "ed25519:" + encode_base64(self.raw).decode()

    @classmethod
    def from_text(cls, text: str) -> PublicKey:
        """Parse a key written as `ed25519:<base64>`.

        Raises:
            ConfigurationError: it is malformed or no usable key.
        """
        scheme, _, encoded = text.partition(":")
        raw = decode_base64(encoded)
        if scheme != "ed25519" or raw is None or len(raw) != PUBLIC_BYTES:
            raise ConfigurationError("found no public key, expected `ed25519:` and the base64 of 32 bytes")
        return cls(raw)

    @classmethod
    def from_pem(cls, data: bytes) -> PublicKey:
        """Parse a `PUBLIC KEY` PEM text (RFC 8410).

        Raises:
            ConfigurationError: not exactly one block with an Ed25519 public key.
        """
        der = _unarmour(data, _PUBLIC)
        if der is None or not der.startswith(_SPKI) or len(der) != len(_SPKI) + PUBLIC_BYTES:
            raise ConfigurationError("found no Ed25519 public key, expected one `PUBLIC KEY` PEM block")
        return cls(der[len(_SPKI) :])

    def to_pem(self) -> bytes:
        """Encode as the `PUBLIC KEY` PEM text that openssl reads; `from_pem(to_pem(k)) == k`."""
        return _armour(_SPKI + self.raw, _PUBLIC)

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Return True if `signature` is this key's over exactly these bytes."""
        from cryptography.exceptions import InvalidSignature

        if self._key is None:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

            self._key = Ed25519PublicKey.from_public_bytes(self.raw)
        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"PublicKey({self.text})"


class PrivateKey:
    """An Ed25519 private key. `repr` hides the seed; pickling and copying raise."""

    __slots__ = ("_seed", "keyid", "public", "sign")

    public: PublicKey
    keyid: str

    def __init__(self, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if len(seed) != SEED_BYTES:
            raise SigningError(f"private key is {len(seed)} bytes, expected {SEED_BYTES}")
        key = Ed25519PrivateKey.from_private_bytes(seed)
        self._seed = bytes(seed)
        self.public = PublicKey(key.public_key().public_bytes_raw())
        self.keyid = self.public.keyid
        self.sign = key.sign
        """Return the 64-byte signature over these bytes (RFC 8032)."""

    @classmethod
    def generate(cls, seed: bytes) -> PrivateKey:
        """Create a key from 32 random bytes, which the caller reads from the operating system."""
        return cls(seed)

    @classmethod
    def from_pem(cls, data: bytes) -> PrivateKey:
        """Parse an unencrypted `PRIVATE KEY` PEM text (PKCS #8, RFC 8410).

        Raises:
            SigningError: not exactly one block with an unencrypted Ed25519 private key.
        """
        der = _unarmour(data, _PRIVATE)
        if der is None or not der.startswith(_PKCS8) or len(der) != len(_PKCS8) + SEED_BYTES:
            raise SigningError("found no Ed25519 private key, expected one unencrypted `PRIVATE KEY` PEM block")
        return cls(der[len(_PKCS8) :])

    def derive(self, purpose: str) -> bytes:
        """Derive 32 secret bytes for one purpose: HKDF-SHA256 of the seed (RFC 5869).

        They say nothing of the seed, and nothing of what is derived for another purpose.
        """
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        return HKDF(SHA256(), length=32, salt=None, info=f"policyguard {purpose}".encode()).derive(self._seed)

    def to_pem(self) -> bytes:
        """Encode as an unencrypted `PRIVATE KEY` PEM text; store it with mode 0600."""
        return _armour(_PKCS8 + self._seed, _PRIVATE)

    def wrap(self, passphrase: bytes, *, salt: bytes, nonce: bytes) -> bytes:
        """Encrypt the key with a passphrase: Argon2id, then ChaCha20-Poly1305. Salt and nonce are fresh.

        Args:
            passphrase: not empty.
            salt: 16 fresh random bytes.
            nonce: 12 fresh random bytes.

        Raises:
            ValueError: salt or nonce has the wrong length.
            SigningError: the passphrase is empty.
        """
        if not passphrase:
            raise SigningError("passphrase is empty, expected at least one character")
        if len(salt) != SALT_BYTES or len(nonce) != NONCE_BYTES:
            raise ValueError(f"salt and nonce are {len(salt)} and {len(nonce)} bytes, expected 16 and 12")
        lanes, memory_kib, passes = _DEFAULT_COST
        header = _Wrapped(
            lanes=lanes,
            memory_kib=memory_kib,
            passes=passes,
            nonce=encode_base64(nonce).decode(),
            public=self.public.text,
            salt=encode_base64(salt).decode(),
        )
        sealed = _cipher(passphrase, header).encrypt(nonce, self._seed, header.associated())
        header = msgspec.structs.replace(header, ciphertext=encode_base64(sealed).decode())
        return _armour(msgspec.json.encode(header), _WRAPPED)

    @classmethod
    def unwrap(cls, data: bytes, passphrase: bytes) -> PrivateKey:
        """Decrypt a wrapped key text.

        A wrong passphrase and an altered file give the same error: the cipher authenticates both. Memory and passes
        are read from the file within limits, so a hostile file cannot ask for the whole machine.

        Raises:
            SigningError: the text is malformed, or the passphrase is wrong, or the file was altered.
        """
        from cryptography.exceptions import InvalidTag

        header, nonce, sealed = _read_wrapped(data)
        try:
            seed = _cipher(passphrase, header).decrypt(nonce, sealed, header.associated())
        except InvalidTag:
            raise SigningError("wrapped key does not open: wrong passphrase, or the file was altered") from None
        key = cls(seed)
        if key.public.text != header.public:
            raise SigningError("wrapped key names another public key than the one inside")
        return key

    def __repr__(self) -> str:
        return f"PrivateKey(public={self.public.text})"

    def __reduce__(self) -> Any:
        raise TypeError("a PrivateKey is neither pickled nor copied")


def is_wrapped(data: bytes) -> bool:
    """Return True if this key text is encrypted and needs a passphrase."""
    return data.startswith(f"-----BEGIN {_WRAPPED}-----\n".encode())


class _Wrapped(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON inside a wrapped key; everything but the ciphertext is authenticated as associated data."""

    cipher: Literal["chacha20-poly1305"] = "chacha20-poly1305"
    ciphertext: str = ""
    kdf: Literal["argon2id"] = "argon2id"
    lanes: int
    memory_kib: int
    nonce: str
    passes: int
    public: str
    salt: str

    def associated(self) -> bytes:
        return b"policyguard wrapped key v1\n" + msgspec.json.encode(msgspec.structs.replace(self, ciphertext=""))


def _read_wrapped(data: bytes) -> tuple[_Wrapped, bytes, bytes]:
    inner = _unarmour(data, _WRAPPED)
    try:
        header = msgspec.json.decode(inner or b"", type=_Wrapped)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise SigningError("found no wrapped key, expected one `POLICYGUARD WRAPPED KEY` block") from None
    nonce, salt, sealed = (decode_base64(text) for text in (header.nonce, header.salt, header.ciphertext))
    if (
        nonce is None
        or salt is None
        or sealed is None
        or (len(nonce), len(salt), len(sealed)) != (NONCE_BYTES, SALT_BYTES, SEED_BYTES + 16)
        or msgspec.json.encode(header) != inner
    ):
        raise SigningError("wrapped key is not in the canonical form")
    # INVARIANT I14: a key file cannot ask for more than 1 GiB of memory, 16 passes or 16 lanes.
    if not (
        8 * header.lanes <= header.memory_kib <= _MAX_MEMORY_KIB
        and 1 <= header.passes <= _MAX_PASSES
        and 1 <= header.lanes <= 16
    ):
        raise SigningError(
            f"wrapped key asks for {header.memory_kib} KiB, {header.passes} passes and {header.lanes} lanes, expected "
            f"at most {_MAX_MEMORY_KIB}, {_MAX_PASSES} and 16"
        )
    return header, nonce, sealed


def _cipher(passphrase: bytes, header: _Wrapped) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    salt = decode_base64(header.salt)
    if salt is None:
        raise SigningError("wrapped key has no salt")
    try:
        kdf = Argon2id(
            salt=salt, length=32, iterations=header.passes, lanes=header.lanes, memory_cost=header.memory_kib
        )
        return ChaCha20Poly1305(kdf.derive(passphrase))
    except UnsupportedAlgorithm:
        raise SigningError(
            "wrapped keys need Argon2id, which this OpenSSL does not have; expected OpenSSL 3.2 or newer"
        ) from None


def encode_base64(data: bytes) -> bytes:
    """Encode as base64: standard alphabet, padded, one line (RFC 4648 section 4)."""
    return binascii.b2a_base64(data, newline=False)


def decode_base64(text: bytes | str) -> bytes | None:
    """Decode base64; None unless it is the one canonical encoding of the bytes, all of it ASCII."""
    if isinstance(text, str):
        text = text.encode("ascii", "replace")
    try:
        data = binascii.a2b_base64(text)
    except (binascii.Error, ValueError):
        return None
    # INVARIANT I5: one value has one canonical form: decode, encode again, compare.
    return data if binascii.b2a_base64(data, newline=False) == text else None


def _armour(der: bytes, label: str) -> bytes:
    text = encode_base64(der)
    lines = b"\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label.encode(), lines, label.encode())


def _unarmour(data: bytes, label: str) -> bytes | None:
    if len(data) > MAX_KEY_TEXT_BYTES:
        return None
    lines = data.split(b"\n")
    der = decode_base64(b"".join(lines[1:-2]))
    return der if der is not None and _armour(der, label) == data else None
