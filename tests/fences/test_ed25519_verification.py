"""What `cryptography` does with odd Ed25519 signatures, and that none of it reaches us."""

from __future__ import annotations

from policyguard.attest.keys import PrivateKey

KEY = PrivateKey(b"\7" * 32)
ORDER = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19


def test_a_signature_has_one_s() -> None:
    """RFC 8032 section 5.1.7: S + L is the same number in the equation, and not the same signature."""
    signature = KEY.sign(b"message")
    s = int.from_bytes(signature[32:], "little")
    assert KEY.public.verify(signature, b"message")
    for factor in range(1, 16):
        if s + factor * ORDER < 2**256:
            assert not KEY.public.verify(signature[:32] + (s + factor * ORDER).to_bytes(32, "little"), b"message")


def test_a_signature_has_one_r() -> None:
    """Another sign, or a y coordinate of p or more, is another R; the hash covers its bytes."""
    signature = KEY.sign(b"message")
    flipped = bytes([*signature[:31], signature[31] ^ 0x80]) + signature[32:]
    assert not KEY.public.verify(flipped, b"message")
    for y in range(P, 2**255):
        for sign in (0, 1):
            assert not KEY.public.verify((y | sign << 255).to_bytes(32, "little") + signature[32:], b"message")


def test_a_signature_of_other_lengths_is_none() -> None:
    """Shorter and longer ones do not verify, and do not raise."""
    signature = KEY.sign(b"message")
    for other in (b"", signature[:-1], signature + b"\0", signature[:32]):
        assert not KEY.public.verify(other, b"message")
