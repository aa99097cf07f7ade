"""Checkpoints and signed notes: the published examples, and one form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec import structs

from policyguard.attest.keys import PrivateKey, PublicKey, decode_base64, encode_base64
from policyguard.attest.note import NoteKey, open_note, sign_note, split_note
from policyguard.audit.checkpoint import (
    MAX_TREE_SIZE,
    Checkpoint,
    open_checkpoint,
    parse_checkpoint,
    read_checkpoint,
    sign_checkpoint,
)
from policyguard.audit.receipt import MAX_SIGNED_BYTES, SignedDecision
from policyguard.errors import ConfigurationError, VerificationError
from tests.attest_lab import LOG_KEY, ORIGIN, STRANGER, Lab

VECTORS = json.loads((Path(__file__).parents[2] / "data/c2sp/notes.json").read_text())
TEXT, PETER, ENOCH = (VECTORS[name] for name in ("text", "peter_line", "enoch_line"))
PETER_KEY, ENOCH_KEY = (NoteKey.from_text(VECTORS["keys"][name]) for name in ("peter", "enoch"))
LOG = NoteKey(ORIGIN, LOG_KEY.public)


def test_published_note_is_signed_byte_for_byte() -> None:
    """The key of golang.org/x/mod/sumdb/note signs its text to the very note of its tests."""
    algorithm_and_seed = decode_base64(VECTORS["peter_private"].encode())
    assert algorithm_and_seed is not None
    key = PrivateKey.generate(algorithm_and_seed[1:])
    assert key.public == PETER_KEY.public
    assert (TEXT + "\n" + PETER).encode() == sign_note(TEXT.encode(), PETER_KEY, key)


@pytest.mark.parametrize(
    ("lines", "trusted", "signer"),
    [
        (PETER + ENOCH, (PETER_KEY,), PETER_KEY),
        (PETER + ENOCH, (ENOCH_KEY,), ENOCH_KEY),
        (PETER + ENOCH, (PETER_KEY, ENOCH_KEY), PETER_KEY),
        (PETER + PETER + ENOCH, (ENOCH_KEY,), ENOCH_KEY),
    ],
    ids=["first of two", "second of two", "both", "a line doubled"],
)
def test_published_notes_open(lines: str, trusted: tuple[NoteKey, ...], signer: NoteKey) -> None:
    """Lines of unknown keys are skipped, those of trusted keys verify."""
    assert (TEXT.encode(), signer) == open_note(f"{TEXT}\n{lines}".encode(), trusted)


MALFORMED = {
    "text only": TEXT,
    "text and an empty line": TEXT + "\n",
    "last line end missing": TEXT + "\n" + PETER[:-1],
    "a control character": "\x01" + TEXT + "\n" + PETER,
    "a space in the name": TEXT
    + "\n\u2014 Bad Name x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=",
    "a line that is no signature": TEXT + "\n" + PETER + "Unexpected line.\n",
    "a hyphen for the dash": TEXT + "\n-" + PETER[1:],
    "a signature of four bytes": TEXT + "\n\u2014 PeterNeumann x08goA==\n",
    "65 signatures": TEXT + "\n" + PETER * 65,
    "larger than the limit": TEXT + "x" * 70_000 + "\n\n" + PETER,
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_note_is_refused(case: str) -> None:
    """The malformed notes of the Go tests, and ours: step V1."""
    with pytest.raises(VerificationError, match="note") as caught:
        open_note(MALFORMED[case].encode(), (PETER_KEY,))
    assert caught.value.step == "V1"


def test_note_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(VerificationError, match="note is not UTF-8"):
        split_note(b"\xff" + (TEXT + "\n" + PETER).encode())


def test_unknown_and_invalid_signatures_are_refused() -> None:
    """Step V2: no trusted key; and a line under a trusted key's name and hash that does not verify. Invariant I10."""
    with pytest.raises(VerificationError, match=r"no signature of a trusted log, expected one of `EnochRoot`"):
        open_note(f"{TEXT}\n{PETER}".encode(), (ENOCH_KEY,))
    with pytest.raises(VerificationError, match="expected one of none"):
        open_note(f"{TEXT}\n{PETER}".encode(), ())
    broken = PETER[:60] + "ABCD" + PETER[60:]
    with pytest.raises(VerificationError, match="checkpoint signature of `PeterNeumann` does not verify"):
        open_note(f"{TEXT}\n{PETER}{broken}{ENOCH}".encode(), (PETER_KEY, ENOCH_KEY))


@pytest.mark.parametrize("name", sorted(VECTORS["bad_keys"]))
def test_published_bad_keys_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="found no verifier key"):
        NoteKey.from_text(VECTORS["bad_keys"][name])


def test_every_cut_and_every_changed_letter_of_a_key_is_refused() -> None:
    """As the Go tests do: no proper part of a verifier key, and none with one byte raised, is a key."""
    text = VECTORS["keys"]["peter"]
    parts = {text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)} - {text}
    parts |= {text[:i] + chr(ord(text[i]) + 1) + text[i + 1 :] for i in range(len(text))}
    for part in parts:
        with pytest.raises(ConfigurationError, match=r"verifier key|log name"):
            NoteKey.from_text(part)
    assert NoteKey.from_text(text).text == text


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\nb", "a\u200bb", "x" * 129, "DSSEv1 28"])
def test_log_names_hold_no_spaces(name: str) -> None:
    """Invariant I10: a name that could make a checkpoint begin like a DSSE message cannot be made."""
    with pytest.raises(ConfigurationError, match="expected text without spaces") as caught:
        NoteKey(name, LOG_KEY.public)
    # Found by the fuzzer: the name was shown raw, line ends and all.
    assert "\n" not in str(caught.value)
    NoteKey("a.example/log", LOG_KEY.public)


def test_published_checkpoint_parses() -> None:
    """The example of c2sp.org/tlog-checkpoint."""
    note = VECTORS["checkpoint"].encode()
    checkpoint = read_checkpoint(note)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.to_text() + b"\n" + note.split(b"\n\n")[1] == note
    [(name, blob)] = split_note(note)[1]
    assert (name, blob[:4].hex(), len(blob)) == ("example.com/behind-the-sofa", "033de0ae", 68)


ROOT = encode_base64(b"r" * 32).decode()


def test_checkpoint_reads_back() -> None:
    for checkpoint in (Checkpoint(ORIGIN, 0, b"r" * 32), Checkpoint(ORIGIN, 10**15, b"r" * 32, ("extension", "two"))):
        assert parse_checkpoint(checkpoint.to_text()) == checkpoint
        assert open_checkpoint(sign_checkpoint(checkpoint, LOG, LOG_KEY), (LOG,)) == checkpoint


MALFORMED_TEXTS = {
    "empty": "",
    "two lines": "origin\n1\n",
    "leading zero": f"origin\n01\n{ROOT}\n",
    "negative": f"origin\n-1\n{ROOT}\n",
    "plus sign": f"origin\n+1\n{ROOT}\n",
    "underscore": f"origin\n1_0\n{ROOT}\n",
    "other digits": f"origin\n\u0661\n{ROOT}\n",
    "no last line end": f"origin\n1\n{ROOT}",
    "padding cut": f"origin\n1\n{ROOT[:-1]}\n",
    "short root": "origin\n1\nAAAA\n",
    "no origin": f"\n1\n{ROOT}\n",
    "empty extension": f"origin\n1\n{ROOT}\n\n",
    "CR LF": f"origin\n1\n{ROOT}\r\n",
    "beyond 2^62": f"origin\n{2**63}\n{ROOT}\n",
    "no size": f"origin\n\n{ROOT}\n",
}


@pytest.mark.parametrize("case", MALFORMED_TEXTS)
def test_checkpoint_has_one_encoding(case: str) -> None:
    """Step V1: everything but the one form is refused. Invariant I5."""
    with pytest.raises(VerificationError, match="checkpoint") as caught:
        parse_checkpoint(MALFORMED_TEXTS[case].encode())
    assert caught.value.step == "V1"


def test_a_checkpoint_holds_sizes_up_to_its_limit() -> None:
    """V1: the largest tree is read back, one more is refused, and so is a number too long to be looked at."""
    largest = Checkpoint(ORIGIN, MAX_TREE_SIZE, b"r" * 32)
    assert parse_checkpoint(largest.to_text()) == largest
    for size in (str(MAX_TREE_SIZE + 1), "9" * 20, "9" * 5_000):
        with pytest.raises(VerificationError, match="expected a decimal number") as caught:
            parse_checkpoint(f"origin\n{size}\n{ROOT}\n".encode())
        assert caught.value.step == "V1"


def test_a_checkpoint_is_text() -> None:
    """V1: bytes that are no UTF-8 are refused as such."""
    with pytest.raises(VerificationError, match="checkpoint is not UTF-8") as caught:
        parse_checkpoint(b"origin\xff\n1\n" + ROOT.encode() + b"\n")
    assert caught.value.step == "V1"


def test_a_signed_decision_that_has_travelled_decides_nothing() -> None:
    """Its decision is asked of `verify`; where it was made it is there. Too many bytes are refused before parsing."""
    signed = Lab().issue()
    read = SignedDecision.from_json(signed.to_json())
    assert (read.envelope, read.receipt) == (signed.envelope, signed.receipt)
    with pytest.raises(ValueError, match="read from text"):
        _ = read.decision
    for size, words in ((MAX_SIGNED_BYTES, "not a signed decision"), (MAX_SIGNED_BYTES + 1, "expected at most")):
        with pytest.raises(VerificationError, match=words) as caught:
            SignedDecision.from_json(b" " * size)
        assert caught.value.step == "V1"
    for data in (b"[" * 100_000, b'"\xff"', b"{}"):
        with pytest.raises(VerificationError, match="V1: not a signed decision"):
            SignedDecision.from_json(data)


def test_a_signed_decision_of_sizes_that_nobody_signs_is_not_read() -> None:
    """Before any signature is verified: each signature and each hash costs the verifier."""
    signed = Lab().issue()
    many = structs.replace(signed.envelope, signatures=signed.envelope.signatures * 100)
    for refused, words in (
        (structs.replace(signed, envelope=many), "V1: signatures: found 100"),
        (structs.replace(signed, receipt=structs.replace(signed.receipt, path=(b"x" * 31,))), r"V1: receipt.path\[0\]"),
        (structs.replace(signed, receipt=structs.replace(signed.receipt, path=(b"x" * 32,) * 64)), "V1: receipt.path"),
    ):
        with pytest.raises(VerificationError, match=words):
            SignedDecision.from_json(refused.to_json())


def test_log_vouches_for_its_own_name_only() -> None:
    """Invariant I10: a trusted key under a checkpoint of another origin is refused; its own is accepted."""
    with pytest.raises(VerificationError, match=r"checkpoint is of log `other`, signed by `lab.example/decisions`"):
        open_checkpoint(sign_checkpoint(Checkpoint("other", 1, b"r" * 32), LOG, LOG_KEY), (LOG,))
    open_checkpoint(sign_checkpoint(Checkpoint(ORIGIN, 1, b"r" * 32), LOG, LOG_KEY), (LOG,))


def test_key_of_the_same_name_is_another_key() -> None:
    """The hash covers the name and the key: neither alone is enough."""
    assert NoteKey(ORIGIN, STRANGER.public).key_hash != LOG.key_hash != NoteKey("other", LOG_KEY.public).key_hash
    assert NoteKey(ORIGIN, PublicKey(LOG_KEY.public.raw)) == LOG
