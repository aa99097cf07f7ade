"""Signed notes: a text followed by signature lines (C2SP signed-note, Ed25519 keys).

    note           = text LF 1*signature-line          ; text ends in LF
    signature-line = "— " name SP base64(key-hash signature) LF
    verifier-key   = name "+" key-hash-hex "+" base64(0x01 public-key)

Opens nothing. Source: c2sp.org/signed-note; the same format as golang.org/x/mod/sumdb/note.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

from policyguard.attest.keys import PUBLIC_BYTES, PrivateKey, PublicKey, decode_base64, encode_base64
from policyguard.errors import ConfigurationError, VerificationError
from policyguard.text import quoted, quoted_list

MAX_NOTE_BYTES = 65_536
MAX_NOTE_SIGNATURES = 64

_ED25519 = b"\x01"
_PREFIX = "\u2014 "
_CONTROLS = frozenset(map(chr, range(32))) - {"\n"}


class NoteKey:
    """A name and the public key that signs notes under it; the key's hash covers the name."""

    def __init__(self, name: str, public: PublicKey) -> None:
        if not is_key_name(name):
            raise ConfigurationError(
                f"found the log name {quoted(name)}, expected text without spaces, `+` or control codes"
            )
        self.name = name
        self.public = public

    @cached_property
    def key_hash(self) -> bytes:
        """The first four bytes of SHA-256 over name, LF, 0x01 and the public key, which begin a signature."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public.raw).digest()[:4]

    @property
    def text(self) -> str:
        """The verifier key line, `name+hash+base64`."""
        return f"{self.name}+{self.key_hash.hex()}+{encode_base64(_ED25519 + self.public.raw).decode()}"

    @classmethod
    def from_text(cls, text: str) -> NoteKey:
        """Parse a verifier-key line.

        Raises:
            ConfigurationError: it is malformed or of another algorithm.
        """
        name, _, rest = text.partition("+")
        key_hash, _, encoded = rest.partition("+")
        raw = decode_base64(encoded)
        if raw is None or len(raw) != 1 + PUBLIC_BYTES or raw[:1] != _ED25519:
            raise ConfigurationError("found no verifier key, expected `name+hash+base64` of an Ed25519 key")
        key = cls(name, PublicKey(raw[1:]))
        if key.key_hash.hex() != key_hash:
            raise ConfigurationError(f"verifier key has the hash {quoted(key_hash)}, expected `{key.key_hash.hex()}`")
        return key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NoteKey) and (other.name, other.public) == (self.name, self.public)

    def __hash__(self) -> int:
        return hash((self.name, self.public))

    def __repr__(self) -> str:
        return f"NoteKey({self.text})"


def is_key_name(name: str) -> bool:
    """Return True if a note key, and therefore a log, may have this name."""
    # INVARIANT I10: a log name holds no space, so no checkpoint text can begin like a DSSE message.
    return 0 < len(name) <= 128 and name.isprintable() and not {" ", "+"} & set(name)


def sign_note(text: bytes, note_key: NoteKey, key: PrivateKey) -> bytes:
    """Sign a text as a note with one signature line.

    The caller guarantees the form of the text; `checkpoint.py` builds it.

    Args:
        text: the text, ending in a line break.
        note_key: the name and public key of the signature line.
        key: the private key.
    """
    line = encode_base64(note_key.key_hash + key.sign(text))
    return b"%b\n%b%b %b\n" % (text, _PREFIX.encode(), note_key.name.encode(), line)


def add_signature(note: bytes, note_key: NoteKey, key: PrivateKey) -> bytes:
    """Add a signature line under another key to a note of our own.

    Args:
        note: the signed note.
        note_key: the name and public key of the new line.
        key: the private key.
    """
    text, _ = split_note(note)
    return note + sign_note(text, note_key, key).removeprefix(text + b"\n")


def open_note(data: bytes, trusted: Sequence[NoteKey]) -> tuple[bytes, NoteKey]:
    """Verify a note; return its text and the first trusted key that signed it.

    Lines of other keys are skipped, as the format asks; a line under a trusted key's name and hash must verify.

    Raises:
        VerificationError: step V1, not a note; step V2, no trusted key signed it or its signature is wrong.
    """
    text, lines = split_note(data)
    signer: NoteKey | None = None
    for name, blob in lines:
        key = next((k for k in trusted if k.name == name and k.key_hash == blob[:4]), None)
        if key is None:
            continue
        # INVARIANT I10: a signature under a trusted name that does not verify spoils the note.
        if not key.public.verify(blob[4:], text):
            raise VerificationError("V2", f"checkpoint signature of `{name}` does not verify")
        signer = signer or key
    if signer is None:
        names = quoted_list(key.name for key in trusted) or "none"
        raise VerificationError("V2", f"checkpoint carries no signature of a trusted log, expected one of {names}")
    return text, signer


def split_note(data: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Split a note into the signed text, with its last LF, and the (name, key hash, signature) of each line.

    Raises:
        VerificationError: step V1; the note is too long, or not in the form of signed notes.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise VerificationError("V1", f"note is {len(data)} bytes, expected at most {MAX_NOTE_BYTES}")
    try:
        whole = data.decode()
    except UnicodeDecodeError:
        raise VerificationError("V1", "note is not UTF-8") from None
    if not _CONTROLS.isdisjoint(whole):
        raise VerificationError("V1", "note holds a control character")
    head, gap, tail = whole.rpartition("\n\n")
    if not gap or not tail.endswith("\n"):
        raise VerificationError("V1", "note has no signature lines after an empty line")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_NOTE_SIGNATURES:
        raise VerificationError("V1", f"note has {len(lines)} signature lines, expected at most {MAX_NOTE_SIGNATURES}")
    return (head + "\n").encode(), [_signature_line(line) for line in lines]


def _signature_line(line: str) -> tuple[str, bytes]:
    name, space, encoded = line.removeprefix(_PREFIX).partition(" ")
    blob = decode_base64(encoded)
    if not line.startswith(_PREFIX) or not space or not is_key_name(name) or blob is None or len(blob) < 5:
        raise VerificationError("V1", "note has a malformed signature line, expected `\u2014 name base64`")
    return name, blob
