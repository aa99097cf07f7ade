"""securesystemslib reads what we write; what it does differently cannot reach us."""

from __future__ import annotations

import copy
import json

import pytest
from securesystemslib import exceptions
from securesystemslib.dsse import Envelope as TheirEnvelope
from securesystemslib.signer._key import SSlibKey

from policyguard.attest.dsse import Envelope, Signature, check_signatures, pae, parse, sign
from policyguard.attest.statement import PAYLOAD_TYPE
from policyguard.errors import VerificationError
from tests.attest_lab import SECOND_SIGNER, SIGNER, STRANGER, payload_of
from tests.fences.notes import noted


def their_key(key: object) -> SSlibKey:
    public = key.public  # type: ignore[attr-defined]
    return SSlibKey(public.keyid, "ed25519", "ed25519", {"public": public.raw.hex()})


def test_securesystemslib_verifies_our_envelope() -> None:
    """An envelope of ours, read as plain JSON, verifies there under our key ids, two keys of two."""
    ours = sign(payload_of(), PAYLOAD_TYPE, (SIGNER, SECOND_SIGNER))
    theirs = TheirEnvelope.from_dict(json.loads(ours.to_bytes()))
    accepted = theirs.verify([their_key(SIGNER), their_key(SECOND_SIGNER)], 2)
    assert set(accepted) == {SIGNER.keyid, SECOND_SIGNER.keyid}
    assert theirs.pae() == pae(PAYLOAD_TYPE, payload_of())


def test_securesystemslib_refuses_a_stranger() -> None:
    """The twin: signed by another key, it does not verify there either."""
    theirs = TheirEnvelope.from_dict(json.loads(sign(payload_of(), PAYLOAD_TYPE, (STRANGER,)).to_bytes()))
    with pytest.raises(exceptions.VerificationError):
        theirs.verify([their_key(SIGNER)], 1)


def test_lengths_count_bytes() -> None:
    """DSSE counts the bytes of a payload type, not its characters; the two libraries agree (they did not always)."""
    assert pae("t\u00e9xt", b"\xc3\xa9") == b"DSSEv1 5 t\xc3\xa9xt 2 \xc3\xa9"
    assert TheirEnvelope(b"", "t\u00e9xt", {}).pae() == pae("t\u00e9xt", b"")
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_parsing_leaves_the_input_alone() -> None:
    """securesystemslib's `from_dict` empties the caller's dict; our parsers are given bytes and change nothing."""
    data = json.loads(sign(payload_of(), PAYLOAD_TYPE, (SIGNER,)).to_bytes())
    before = copy.deepcopy(data)
    with noted():
        TheirEnvelope.from_dict(data)
        assert data != before
    ours = bytearray(sign(payload_of(), PAYLOAD_TYPE, (SIGNER,)).to_bytes())
    kept = bytes(ours)
    parse(bytes(ours))
    assert kept == bytes(ours)


def test_key_ids_decide_nothing() -> None:
    """securesystemslib finds signatures by key id alone; ours counts a trusted key under any id, and none by its id."""
    message = pae("t", b"p")
    renamed = Envelope(b"p", "t", (Signature("another id", SIGNER.sign(message)),))
    assert check_signatures(renamed, message, (SIGNER.public,), 1) == (SIGNER.public,)
    claimed = Envelope(b"p", "t", (Signature(SIGNER.keyid, STRANGER.sign(message)),))
    with pytest.raises(VerificationError, match="0 of the trusted keys signed this, expected at least 1"):
        check_signatures(claimed, message, (SIGNER.public,), 1)
