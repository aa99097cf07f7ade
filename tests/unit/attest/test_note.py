"""Names and verifier keys of note signers: one text, and none that a checkpoint could be confused by."""

from __future__ import annotations

import pytest

from policyguard.attest.keys import PrivateKey, encode_base64
from policyguard.attest.note import MAX_NOTE_BYTES, MAX_NOTE_SIGNATURES, NoteKey, is_key_name, split_note
from policyguard.errors import ConfigurationError, VerificationError

KEY = PrivateKey.generate(b"note".ljust(32, b"."))
VERIFIER = NoteKey("lab.example/decisions", KEY.public)
NAME, HASH, _ = VERIFIER.text.split("+", 2)
RAW = b"\x01" + KEY.public.raw


def text(raw: bytes, key_hash: str = HASH) -> str:
    return f"{NAME}+{key_hash}+{encode_base64(raw).decode()}"


def test_a_verifier_key_reads_back() -> None:
    assert NoteKey.from_text(VERIFIER.text) == VERIFIER


@pytest.mark.parametrize(
    "line",
    [text(RAW[:-1]), text(RAW + b"\0"), text(b"\x02" + KEY.public.raw), text(RAW)[:-1], text(RAW)[:-4] + "\u00e9==="],
    ids=["short", "long", "another algorithm", "padding cut", "not ASCII"],
)
def test_a_malformed_verifier_key_is_refused(line: str) -> None:
    """One step from a verifier key in its algorithm, length or base64."""
    with pytest.raises(ConfigurationError, match="found no verifier key"):
        NoteKey.from_text(line)


def test_a_verifier_key_has_the_hash_of_its_name_and_key() -> None:
    """A line copied to another log's name, or with a hash of its own, is refused."""
    for line in (text(RAW, "00000000"), text(RAW, HASH.upper() + "0"), VERIFIER.text.replace(NAME, "other.example")):
        with pytest.raises(ConfigurationError, match="verifier key has the hash"):
            NoteKey.from_text(line)


def test_a_verifier_key_equals_no_other_kind_of_value() -> None:
    assert VERIFIER.text != VERIFIER
    assert NoteKey("other.example", KEY.public) != VERIFIER


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a+b", "a\nb", "a\u00a0b", "a\x00b", "a\u200bb"], ids=ascii)
def test_a_log_name_that_could_be_misread_is_refused(name: str) -> None:
    """Empty, long, with a space, a plus, a control code or an invisible character."""
    assert not is_key_name(name)
    with pytest.raises(ConfigurationError, match="found the log name"):
        NoteKey(name, KEY.public)


@pytest.mark.parametrize("name", ["x", "x" * 128, "lab.example/decisions"])
def test_a_log_name_at_the_limit_is_one(name: str) -> None:
    assert NoteKey(name, KEY.public).name == name


LINE = "\u2014 lab.example/decisions " + encode_base64(b"\1" * 68).decode() + "\n"
SHORTEST = "\u2014 x " + encode_base64(b"\1" * 5).decode() + "\n"


def test_a_note_is_split_into_its_text_and_its_signatures() -> None:
    """As many lines as are allowed, and the shortest one."""
    text, signatures = split_note(f"text\n\n{LINE}{SHORTEST}".encode())
    assert text == b"text\n"
    assert signatures == [("lab.example/decisions", b"\1" * 68), ("x", b"\1" * 5)]
    assert len(split_note(("text\n\n" + LINE * MAX_NOTE_SIGNATURES).encode())[1]) == MAX_NOTE_SIGNATURES


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        (f"text\n{LINE}", "no signature lines after an empty line"),
        (LINE, "no signature lines after an empty line"),
        (f"text\n\n{LINE[:-1]}", "no signature lines after an empty line"),
        (f"text\n\n{LINE}" + "\n", "malformed signature line|no signature lines"),
        ("text\n\n" + LINE * (MAX_NOTE_SIGNATURES + 1), "65 signature lines, expected at most 64"),
        (f"text\n\n{LINE[2:]}", "malformed signature line"),
        (f"text\n\n- {LINE[2:]}", "malformed signature line"),
        ("text\n\n\u2014 name\n", "malformed signature line"),
        (f"text\n\n\u2014 a+b {LINE.rpartition(' ')[2]}", "malformed signature line"),
        (f"text\n\n\u2014  {LINE.rpartition(' ')[2]}", "malformed signature line"),
        ("text\n\n\u2014 name !!!!\n", "malformed signature line"),
        ("text\n\n\u2014 name \u00e9\n", "malformed signature line"),
        ("text\n\n\u2014 name AQEBAQ==\n", "malformed signature line"),
    ],
    ids=[
        "no empty line",
        "no text",
        "no last line end",
        "an empty line after",
        "a line too many",
        "no dash",
        "another dash",
        "no signature",
        "a name that is none",
        "no name",
        "no base64",
        "not ASCII",
        "four bytes",
    ],
)
def test_what_is_no_signed_note_is_refused(note: str, expected: str) -> None:
    """Each is one step from the note above, and refused at V1, never by a traceback."""
    with pytest.raises(VerificationError, match=f"V1.*({expected})"):
        split_note(note.encode())


def test_a_note_of_the_limit_is_one() -> None:
    """65,536 bytes are read, and one more is refused before anything else."""
    rest = f"\n\n{LINE}".encode()
    text = b"x" * (MAX_NOTE_BYTES - len(rest))
    assert split_note(text + rest)[0] == text + b"\n"
    with pytest.raises(VerificationError, match="note is 65537 bytes, expected at most 65536"):
        split_note(b"x" + text + rest)
