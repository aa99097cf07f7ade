"""Envelopes: one form, limits, thresholds over distinct keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from policyguard.attest.dsse import (
    MAX_ENVELOPE_BYTES,
    BatchProof,
    Envelope,
    Signature,
    check_signatures,
    pae,
    parse,
    sign,
)
from policyguard.attest.keys import encode_base64
from policyguard.errors import VerificationError
from policyguard.values import canonical
from tests.attest_lab import SECOND_SIGNER, SIGNER

GOOD = sign(b"payload?>", "text/plain", (SIGNER,)).to_bytes()


def edited(change: Callable[[dict[str, Any]], object]) -> bytes:
    data = json.loads(GOOD)
    change(data)
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def reordered() -> bytes:
    return json.dumps(dict(reversed(json.loads(GOOD).items())), separators=(",", ":")).encode()


def test_twin_of_all_refusals_is_accepted() -> None:
    """The unedited envelope parses, also after going through a JSON library."""
    assert parse(GOOD) == parse(edited(lambda data: None)) == sign(b"payload?>", "text/plain", (SIGNER,))


BAD_BASE64 = r"invalid base64 encoded string - at `\$.payload`"
REFUSED = {
    "empty": (b"", "not an envelope"),
    "not an object": (b"[]", "expected `object`"),
    "not UTF-8": (GOOD.replace(b"text", b"te\xfft"), "not an envelope"),
    "a space": (GOOD.replace(b":[", b": ["), "not in its canonical form"),
    "a line end after": (GOOD + b"\n", "not in its canonical form"),
    "fields in another order": (
        json.dumps(dict(reversed(json.loads(GOOD).items())), separators=(",", ":")).encode(),
        "canonical form",
    ),
    "an escaped character": (GOOD.replace(b"text/plain", b"text\\/plain"), "canonical form"),
    "a field twice": (GOOD[:-1] + b',"payloadType":"text/plain"}', "canonical form"),
    "an unknown field": (edited(lambda d: d.update(extra=1)), "unknown field `extra`"),
    "no signatures": (edited(lambda d: d.update(signatures=[])), "signatures: found 0, expected 1 to 16"),
    "too many signatures": (edited(lambda d: d.update(signatures=d["signatures"] * 17)), "found 17, expected 1 to 16"),
    "a short signature": (
        edited(lambda d: d["signatures"][0].update(sig="AAAA")),
        r"signatures\[0\].sig: found 3 bytes, expected 64",
    ),
    "URL-safe base64": (edited(lambda d: d.update(payload="cGF5bG9hZD8-")), BAD_BASE64),
    "base64 without padding": (edited(lambda d: d.update(payload="YQ")), BAD_BASE64),
    "base64 with loose bits": (edited(lambda d: d.update(payload="YR==")), "canonical form"),
    "base64 with a line end": (edited(lambda d: d.update(payload="YWFh\n")), BAD_BASE64),
    "base64 that is not ASCII": (edited(lambda d: d.update(payload="\u00e9")), BAD_BASE64),
    "no payload type": (edited(lambda d: d.update(payloadType="")), "payloadType: found 0 characters"),
    "a long payload type": (edited(lambda d: d.update(payloadType="x" * 257)), "payloadType: found 257 characters"),
    "a long key id": (edited(lambda d: d["signatures"][0].update(keyid="x" * 257)), "keyid: found 257 characters"),
    "an integer for text": (edited(lambda d: d.update(payloadType=1)), "expected `str`"),
    "null for a payload": (edited(lambda d: d.update(payload=None)), "expected `bytes`"),
    "null for a batch": (edited(lambda d: d.update(batch=None)), "canonical form"),
    "a batch without room": (
        edited(lambda d: d.update(batch={"index": 1, "path": [], "size": 1})),
        "found index 1 of 1",
    ),
    "a batch path too long": (
        edited(lambda d: d.update(batch={"index": 0, "path": ["A" * 43 + "="] * 64, "size": 1})),
        "found 64 hashes",
    ),
    "a batch before its first": (
        edited(lambda d: d.update(batch={"index": -1, "path": [], "size": 1})),
        "found index -1 of 1",
    ),
    "a batch larger than any": (
        edited(lambda d: d.update(batch={"index": 0, "path": [], "size": 2**32 + 1})),
        "found index 0 of 4294967297",
    ),
    "larger than the limit": (b" " * (MAX_ENVELOPE_BYTES + 1), "expected at most 1048576"),
    "nested without end": (b"[" * 100_000, "not an envelope"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_malformed_envelope_is_refused(case: str) -> None:
    """Step V1, with what was found and what was expected. Invariant I5."""
    data, wording = REFUSED[case]
    with pytest.raises(VerificationError, match=wording) as caught:
        parse(data)
    assert caught.value.step == "V1"
    assert "\n" not in str(caught.value)


ZEROS = encode_base64(bytes(32)).decode()
AT_THE_LIMIT: dict[str, Callable[[dict[str, Any]], object]] = {
    "a key id": lambda d: d["signatures"][0].update(keyid="x" * 256),
    "a payload type": lambda d: d.update(payloadType="x" * 256),
    "the last of the largest batch": lambda d: d.update(batch={"index": 2**32 - 1, "path": [], "size": 2**32}),
    "the longest path": lambda d: d.update(batch={"index": 0, "path": [ZEROS] * 63, "size": 1}),
    "as many signatures as fit": lambda d: d.update(signatures=d["signatures"] * 16),
}


@pytest.mark.parametrize("case", AT_THE_LIMIT)
def test_an_envelope_at_the_limit_is_one(case: str) -> None:
    """The twin of what is refused one step beyond."""
    data = edited(AT_THE_LIMIT[case])
    assert parse(data).to_bytes() == data


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


SIGNATURES = st.lists(st.tuples(TEXT, st.binary(min_size=64, max_size=64)), min_size=1, max_size=4)
PROOFS = st.none() | st.tuples(st.integers(0, 9), st.lists(st.binary(min_size=32, max_size=32), max_size=5))


@given(st.binary(max_size=200), TEXT, SIGNATURES, PROOFS)
def test_encoding_is_rfc8785_and_reads_back(
    payload: bytes, kind: str, signatures: list[tuple[str, bytes]], batch: tuple[int, list[bytes]] | None
) -> None:
    """Any envelope reads back as itself, and its bytes are those of an RFC 8785 library."""
    proof = None if batch is None else BatchProof(batch[0], 10, tuple(batch[1]))
    envelope = Envelope(payload, kind, tuple(Signature(*each) for each in signatures), proof)
    data = envelope.to_bytes()
    assert parse(data) == envelope
    assert rfc8785.dumps(json.loads(data)) == data


def test_no_keys_to_sign_with_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="keys: none given"):
        sign(b"", "text/plain", ())


MESSAGE = pae("text/plain", b"payload?>")
BOTH = (SIGNER.public, SECOND_SIGNER.public)


@pytest.mark.parametrize(
    ("keys", "threshold"), [((), 1), ((), 0), (BOTH, 0), (BOTH, -1)], ids=["no keys", "nothing", "zero", "negative"]
)
def test_empty_trust_verifies_nothing(keys: tuple[Any, ...], threshold: int) -> None:
    """Invariant I10: no keys, or a threshold below one, is refused before any signature is looked at."""
    with pytest.raises(VerificationError, match="expected at least one each"):
        check_signatures(parse(GOOD), MESSAGE, keys, threshold)
    assert check_signatures(parse(GOOD), MESSAGE, BOTH, 1) == (SIGNER.public,)


def test_threshold_counts_distinct_keys() -> None:
    """Invariant I10: the same key listed and signing twice fills one place; two keys fill two."""
    twice = sign(b"payload?>", "text/plain", (SIGNER, SIGNER))
    with pytest.raises(VerificationError, match="1 of the trusted keys signed this, expected at least 2"):
        check_signatures(twice, MESSAGE, (SIGNER.public, SIGNER.public), 2)
    both = sign(b"payload?>", "text/plain", (SIGNER, SECOND_SIGNER))
    assert set(check_signatures(both, MESSAGE, BOTH, 2)) == set(BOTH)


def test_fast_encoder_writes_the_one_encoding() -> None:
    """The encoder behind `to_bytes` and RFC 8785 spell every code point, and every length of base64, alike."""
    for start in range(0, 0x110000, 0x400):
        points = [point for point in range(start, start + 0x400) if not 0xD800 <= point < 0xE000]
        text = "".join(map(chr, points))
        data = text.encode()[: len(points) % 7 + start % 5]
        wire = {
            "payload": encode_base64(data).decode(),
            "payloadType": text,
            "signatures": [{"keyid": text, "sig": encode_base64(bytes(64)).decode()}],
        }
        assert Envelope(data, text, (Signature(text, bytes(64)),)).to_bytes() == canonical(wire)


def test_the_limit_of_an_envelope_is_its_last_byte_that_counts() -> None:
    """An envelope of exactly the limit is read; with one byte less allowed it is refused before it is parsed."""
    data = edited(lambda envelope: None)
    assert parse(data, limit=len(data)).to_bytes() == data
    with pytest.raises(VerificationError, match=f"expected at most {len(data) - 1}"):
        parse(data, limit=len(data) - 1)
