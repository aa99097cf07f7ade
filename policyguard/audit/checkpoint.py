"""Checkpoints: a log's name, size and root hash, signed by the log (C2SP tlog-checkpoint over signed-note).

    checkpoint = origin LF size LF base64(root) LF *(extension LF)      ; size in decimal, no leading zero

Opens nothing. The text has exactly one encoding: the parser encodes again and compares.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from policyguard.attest.keys import PrivateKey, decode_base64, encode_base64
from policyguard.attest.note import NoteKey, open_note, sign_note, split_note
from policyguard.audit.merkle import HASH_BYTES
from policyguard.errors import VerificationError
from policyguard.text import quoted

MAX_TREE_SIZE = 2**62


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """A tree head: the number of leaves and the root hash of the log `origin`.

    Signed extension lines are stored and ignored.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def to_text(self) -> bytes:
        """Format the text that the log signs."""
        extensions = "".join(f"{line}\n" for line in self.extensions)
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root).decode()}\n{extensions}".encode()


def parse_checkpoint(text: bytes) -> Checkpoint:
    """Parse the text of a checkpoint note.

    Raises:
        VerificationError: step V1; it is malformed.
    """
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError:
        raise VerificationError("V1", "checkpoint is not UTF-8") from None
    if len(lines) < 4:
        raise VerificationError("V1", f"checkpoint has {len(lines) - 1} lines, expected origin, size and root")
    origin, size, root_text, *extensions = lines[:-1]
    root = decode_base64(root_text)
    if not (size.isascii() and size.isdigit() and len(size) <= 19 and int(size) <= MAX_TREE_SIZE):
        raise VerificationError("V1", f"checkpoint has the size {quoted(size)}, expected a decimal number")
    if root is None or len(root) != HASH_BYTES:
        raise VerificationError("V1", "checkpoint has a malformed root, expected the base64 of 32 bytes")
    checkpoint = Checkpoint(origin, int(size), root, tuple(extensions))
    # INVARIANT I5: one value has one canonical form: decode, encode again, compare.
    if checkpoint.to_text() != text or not origin or not all(extensions):
        raise VerificationError("V1", "checkpoint is not in its canonical form")
    return checkpoint


def sign_checkpoint(checkpoint: Checkpoint, note_key: NoteKey, key: PrivateKey) -> bytes:
    """Sign a checkpoint as a note; the same tree always gives the same bytes.

    Args:
        checkpoint: the tree head.
        note_key: the log's name and public key.
        key: the private key.
    """
    return sign_note(checkpoint.to_text(), note_key, key)


def open_checkpoint(note: bytes, logs: Sequence[NoteKey]) -> Checkpoint:
    """Verify a checkpoint note with the key of the trusted log that it names, and parse it.

    Raises:
        VerificationError: step V1, malformed; step V2, not signed by a trusted log, or by one about another log.
    """
    text, key = open_note(note, logs)
    checkpoint = parse_checkpoint(text)
    # INVARIANT I10: a log vouches for its own name only.
    if checkpoint.origin != key.name:
        raise VerificationError("V2", f"checkpoint is of log {quoted(checkpoint.origin)}, signed by `{key.name}`")
    return checkpoint


def read_checkpoint(note: bytes) -> Checkpoint:
    """Parse a checkpoint note *without* verifying it; only for display and for a log's own store."""
    return parse_checkpoint(split_note(note)[0])
