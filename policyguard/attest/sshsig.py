"""SSH signatures as `ssh-keygen -Y sign` writes them, and SSH public keys; verified in this process.

    armour    = "-----BEGIN SSH SIGNATURE-----" LF *( base64 LF ) "-----END SSH SIGNATURE-----" [ LF ]
    blob      = "SSHSIG" uint32(1) string(public key) string(namespace) string("") string(hash) string(signature)
    signed    = "SSHSIG" string(namespace) string("") string(hash) string(H(message))

Ed25519 keys and Ed25519 security keys (`sk-ssh-ed25519@openssh.com`) are verified, every other kind is refused by name.
A signature says which key made it and for which namespace, not whose key that is: `signers.py` knows. Opens nothing.

Source: openssh-portable PROTOCOL.sshsig, PROTOCOL.u2f; RFC 4251 section 5, RFC 8709.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from policyguard.attest.keys import (
    PUBLIC_BYTES,
    SIGNATURE_BYTES,
    PrivateKey,
    PublicKey,
    decode_base64,
    encode_base64,
    unusable_point,
)
from policyguard.text import quoted

MAX_ARMOUR_BYTES = 8192
"""An Ed25519 signature is about 300 bytes; longer texts are refused before they are parsed."""

ED25519, SK_ED25519 = "ssh-ed25519", "sk-ssh-ed25519@openssh.com"
HASHES = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}

_MAGIC = b"SSHSIG"
_BEGIN, _END = b"-----BEGIN SSH SIGNATURE-----", b"-----END SSH SIGNATURE-----"
_MAX_LINE = 76
_USER_PRESENT = 0x01
_KIND = re.compile(r"[a-z0-9][a-z0-9@._-]{2,63}", re.ASCII)


class SshSignatureError(ValueError):
    """The text is not an SSH signature or key that can be verified; `code` ends the reason code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SshKey(msgspec.Struct, frozen=True):
    """A public key in SSH's encoding.

    `application` is set for security keys, and is part of the key's identity.
    """

    raw: bytes
    application: str | None = None

    @property
    def kind(self) -> str:
        return ED25519 if self.application is None else SK_ED25519

    @property
    def blob(self) -> bytes:
        """The bytes that `id_ed25519.pub` holds in base64; `parse_key_blob(key.blob) == key`."""
        application = b"" if self.application is None else _string(self.application.encode())
        return _string(self.kind.encode()) + _string(self.raw) + application

    @property
    def text(self) -> str:
        """The public key as one line of a `.pub` file, without a comment."""
        return f"{self.kind} {encode_base64(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """The fingerprint as `ssh-keygen -l` prints it: `SHA256:` and unpadded base64."""
        return _fingerprint(self.blob)


class SshSignature(msgspec.Struct, frozen=True):
    """A parsed signature that is not verified yet."""

    key: SshKey
    namespace: str
    hash_name: str
    signature: bytes
    flags: int = 0
    counter: int = 0

    def covers(self, message: bytes, namespace: str) -> bool:
        """Return True if this key signed exactly this message for this namespace.

        A security key must have seen its user: signatures made without a touch do not count.
        """
        # INVARIANT I10: a signature made for one namespace, such as git's, counts for no other.
        if self.namespace != namespace:
            return False
        signed = signed_bytes(message, namespace, self.hash_name)
        if self.key.application is not None:
            if not self.flags & _USER_PRESENT:
                return False
            application = hashlib.sha256(self.key.application.encode()).digest()
            device_data = bytes([self.flags]) + self.counter.to_bytes(4, "big")
            signed = application + device_data + hashlib.sha256(signed).digest()
        return PublicKey(self.key.raw).verify(self.signature, signed)


def signed_bytes(message: bytes, namespace: str, hash_name: str) -> bytes:
    """Build the bytes that an SSH signature covers: namespace, hash algorithm and message digest.

    Args:
        message: the signed message.
        namespace: what the signature is for.
        hash_name: `sha256` or `sha512`.
    """
    digest = HASHES[hash_name](message).digest()
    fields = (namespace.encode(), b"", hash_name.encode(), digest)
    return _MAGIC + b"".join(map(_string, fields))


def sign(message: bytes, namespace: str, key: PrivateKey, hash_name: str = "sha512") -> bytes:
    """Sign a message in a namespace; `ssh-keygen -Y verify` accepts the result.

    Args:
        message: the message.
        namespace: what the signature is for.
        key: the private key.
        hash_name: `sha256` or `sha512`.
    """
    made = _string(ED25519.encode()) + _string(key.sign(signed_bytes(message, namespace, hash_name)))
    fields = (SshKey(key.public.raw).blob, namespace.encode(), b"", hash_name.encode(), made)
    text = encode_base64(_MAGIC + (1).to_bytes(4, "big") + b"".join(map(_string, fields)))
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return b"\n".join([_BEGIN, *lines, _END, b""])


def parse_signature(armour: bytes) -> SshSignature:
    """Parse an armoured SSH signature.

    Raises:
        SshSignatureError: it is malformed or of a kind that is not verified here.
    """
    blob = _Blob(_dearmoured(armour))
    if blob.take(6) != _MAGIC:
        raise SshSignatureError("malformed", "found no SSH signature, expected `SSHSIG`")
    version = blob.uint32()
    if version != 1:
        raise SshSignatureError("malformed", f"SSH signature has version {version}, expected 1")
    key = parse_key_blob(blob.string())
    namespace = blob.text("namespace")
    reserved, hash_name = blob.string(), blob.text("hash algorithm")
    if reserved or not namespace:
        raise SshSignatureError("malformed", "SSH signature has no namespace, or something in its reserved field")
    if hash_name not in HASHES:
        raise SshSignatureError(
            "malformed", f"SSH signature uses the hash {quoted(hash_name)}, expected sha256 or sha512"
        )
    inner = _Blob(blob.string())
    blob.end("SSH signature")
    return _with_signature(key, namespace, hash_name, inner)


def parse_key(text: str) -> SshKey:
    """Parse a public key line, `ssh-ed25519 BASE64 [comment]`.

    Raises:
        SshSignatureError: not a key line, or its two key types differ.
    """
    kind, _, rest = text.strip().partition(" ")
    encoded = rest.strip().partition(" ")[0]
    _known(kind)
    blob = decode_base64(encoded) if len(encoded) <= MAX_ARMOUR_BYTES else None
    if blob is None:
        raise SshSignatureError("malformed", "found no SSH public key, expected a key type and base64")
    key = parse_key_blob(blob)
    if key.kind != kind:
        raise SshSignatureError("malformed", f"SSH public key says `{kind}` outside and `{key.kind}` inside")
    return key


def fingerprint_of_line(text: str) -> str:
    """Compute the fingerprint of a line `KEY-TYPE BASE64 [comment]`, for any kind of key.

    Raises:
        SshSignatureError: it is no public key line, or names another kind outside than inside.
    """
    kind, _, rest = text.strip().partition(" ")
    try:
        return parse_key(text).fingerprint
    except SshSignatureError as problem:
        if problem.code not in ("key_type", "weak_key"):
            raise
    encoded = rest.strip().partition(" ")[0]
    blob = decode_base64(encoded) if len(encoded) <= MAX_ARMOUR_BYTES else None
    if blob is None or _Blob(blob).text("key type") != kind:
        raise SshSignatureError("malformed", f"found {quoted(kind)} first, expected a key type and its key in base64")
    return _fingerprint(blob)


def parse_key_blob(data: bytes) -> SshKey:
    """Parse a public key blob.

    Raises:
        SshSignatureError: it is malformed or of a kind that is not verified here.
    """
    blob = _Blob(data)
    kind = blob.text("key type")
    _known(kind)
    raw = blob.string()
    application = blob.text("application") if kind == SK_ED25519 else None
    blob.end("SSH public key")
    if len(raw) != PUBLIC_BYTES:
        raise SshSignatureError("malformed", f"SSH public key holds {len(raw)} bytes, expected {PUBLIC_BYTES}")
    problem = unusable_point(raw)
    if problem is not None:
        raise SshSignatureError("weak_key", f"SSH public key {problem}")
    return SshKey(raw, application)


def _known(kind: str) -> None:
    if kind in (ED25519, SK_ED25519):
        return
    if not _KIND.fullmatch(kind):
        raise SshSignatureError("malformed", f"found {quoted(kind)}, expected an SSH key type")
    # INVARIANT I10: a kind of key that is not verified in process is refused by its name, never passed over.
    raise SshSignatureError("key_type", f"`{kind}` keys are not verified here, expected `{ED25519}` or `{SK_ED25519}`")


def _with_signature(key: SshKey, namespace: str, hash_name: str, inner: _Blob) -> SshSignature:
    kind, signature = inner.text("signature type"), inner.string()
    flags, counter = (inner.take(1)[0], inner.uint32()) if key.application is not None else (0, 0)
    inner.end("SSH signature")
    if kind != key.kind or len(signature) != SIGNATURE_BYTES:
        raise SshSignatureError(
            "malformed", f"SSH signature holds {len(signature)} bytes of {quoted(kind)}, expected 64 of `{key.kind}`"
        )
    return SshSignature(key, namespace, hash_name, signature, flags, counter)


def _dearmoured(armour: bytes) -> bytes:
    if len(armour) > MAX_ARMOUR_BYTES:
        raise SshSignatureError(
            "malformed", f"SSH signature is {len(armour)} bytes, expected at most {MAX_ARMOUR_BYTES}"
        )
    lines = armour.removesuffix(b"\n").split(b"\n")
    if lines[0] != _BEGIN or lines[-1] != _END:
        raise SshSignatureError("malformed", f"found no SSH signature, expected `{_BEGIN.decode()}` and its end")
    blob = decode_base64(b"".join(lines[1:-1])) if all(0 < len(line) <= _MAX_LINE for line in lines[1:-1]) else None
    if blob is None:
        raise SshSignatureError("malformed", "SSH signature is not canonical base64 in lines of at most 76 characters")
    return blob


def _fingerprint(blob: bytes) -> str:
    return "SHA256:" + encode_base64(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


class _Blob:
    """Reads SSH wire fields from the front of a byte string; reading past the end raises."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        data = self._data[self._at : self._at + count]
        if len(data) != count:
            raise SshSignatureError("malformed", "SSH data ends in the middle of a field")
        self._at += count
        return data

    def uint32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        return self.take(self.uint32())

    def text(self, what: str) -> str:
        try:
            return self.string().decode()
        except UnicodeDecodeError:
            raise SshSignatureError("malformed", f"SSH {what} is not UTF-8") from None

    def end(self, what: str) -> None:
        # INVARIANT I5: SSH data has one encoding; bytes after the last field are refused.
        if self._at != len(self._data):
            raise SshSignatureError("malformed", f"{what} is followed by {len(self._data) - self._at} more bytes")
