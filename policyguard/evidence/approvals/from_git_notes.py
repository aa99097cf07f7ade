"""Reads approvals from git notes: `refs/notes/policyguard-approvals` on the approved commit or tree.

A note contains one approval per line: a DSSE envelope, or `{"payload": BASE64, "signature": ARMOUR}` with a detached
SSH signature. Everybody who can write to the repository can write notes, so only signatures count. `git/objects.py`
refuses an object whose bytes do not match its id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from policyguard.attest.keys import decode_base64, encode_base64
from policyguard.errors import EvidenceError
from policyguard.evidence.approvals.verify import MAX_FILE_BYTES, RejectedApproval, SubmittedApproval
from policyguard.git.objects import ObjectReader
from policyguard.git.refs import References
from policyguard.git.trees import Entry, parse_tree, tree_of

NOTES_REF = b"refs/notes/policyguard-approvals"
MAX_NOTE_BYTES = 1 << 20
MAX_LINES = 256

_FOLDER = 0o040000
_MAX_FANOUT = 20


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    payload: str
    signature: str


def note_line(payload: bytes, signature: bytes) -> bytes:
    """Encode a payload and its detached SSH signature as one line of a note."""
    return msgspec.json.encode(_Line(encode_base64(payload).decode(), signature.decode()))


def note_approvals(
    references: References, reader: ObjectReader, oids: Sequence[str]
) -> Iterator[SubmittedApproval | RejectedApproval]:
    """Yield the approvals in the notes on these objects; an unreadable one becomes a rejection.

    Args:
        references: the references of the repository.
        reader: reads its objects.
        oids: the commit and the tree.
    """
    try:
        tip = references.id_of(NOTES_REF)
    except EvidenceError as problem:
        yield RejectedApproval(NOTES_REF.decode(), "approval.unreadable", str(problem))
        return
    for oid in dict.fromkeys(oids) if tip is not None else ():
        source = f"{NOTES_REF.decode()}:{oid[:12]}"
        try:
            note = _note(reader, str(tip), oid)
        except EvidenceError as problem:
            yield RejectedApproval(source, "approval.unreadable", str(problem))
            continue
        yield from _lines(source, note)


def _lines(source: str, note: bytes) -> Iterator[SubmittedApproval | RejectedApproval]:
    lines = [line for line in note.split(b"\n") if line.strip()]
    for number, line in enumerate(lines[:MAX_LINES], 1):
        yield presented_line(f"{source}#{number}", line)
    if len(lines) > MAX_LINES:
        yield RejectedApproval(source, "approval.too_many", f"holds {len(lines)} lines, expected at most {MAX_LINES}")


def presented_line(source: str, line: bytes) -> SubmittedApproval | RejectedApproval:
    """Parse one line of a note into an approval, or into a rejection that says why it is none."""
    if b'"payloadType"' in line:
        return SubmittedApproval(source, line)
    try:
        pair = msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return RejectedApproval(source, "approval.malformed", "is neither an envelope nor a payload with its signature")
    payload = decode_base64(pair.payload)
    if payload is None or len(payload) > MAX_FILE_BYTES:
        return RejectedApproval(source, "approval.malformed", "has a payload that is not canonical base64, or too long")
    return SubmittedApproval(source, payload, pair.signature.encode("utf-8", "replace"))


def _note(reader: ObjectReader, tip: str, oid: str) -> bytes:
    """Read the note on an object; empty if there is none.

    git spreads notes over folders; the path without slashes is the object's id.
    """
    tree, rest = tree_of(reader, tip), oid.encode()
    for _ in range(_MAX_FANOUT):
        entries = dict(parse_tree(reader.read(tree, "tree"), len(tip) // 2))
        leaf = entries.get(rest)
        if leaf is not None:
            return _blob(reader, leaf)
        folder = entries.get(rest[:2])
        if folder is None or folder.mode != _FOLDER:
            return b""
        tree, rest = folder.oid, rest[2:]
    return b""


def _blob(reader: ObjectReader, entry: Entry) -> bytes:
    content = reader.read_small_blob(entry.oid, MAX_NOTE_BYTES)
    if content is None:
        raise EvidenceError(f"note `{entry.oid}`: expected a file of at most {MAX_NOTE_BYTES} bytes")
    return content
