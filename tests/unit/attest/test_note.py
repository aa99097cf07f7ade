"""Names and verifier keys of note signers: one text, and none that a checkpoint could be confused by."""

from __future__ import annotations

import pytest

from policyguard.attest.keys import PrivateKey, encode_base64
from policyguard.attest.note import NoteKey, is_key_name
from policyguard.errors import ConfigurationError

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
