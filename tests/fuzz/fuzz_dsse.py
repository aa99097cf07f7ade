"""Fuzz target: bytes to envelopes, signed decisions, statements, notes and keys.

Run `python tests/fuzz/fuzz_dsse.py [CORPUS] [libFuzzer options]`. Nothing but our errors may come out, and whatever is
accepted must be written back byte for byte. A finding becomes a case of the unit tests before it is fixed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["policyguard.attest", "policyguard.audit"]):
    from policyguard.attest import dsse
    from policyguard.attest.keys import PrivateKey, PublicKey
    from policyguard.attest.note import NoteKey, split_note
    from policyguard.attest.statement import parse_statement
    from policyguard.audit.checkpoint import parse_checkpoint
    from policyguard.audit.receipt import SignedDecision
    from policyguard.errors import ConfigurationError, SigningError, VerificationError


def one_input(data: bytes) -> None:
    """Read one input as everything that arrives as bytes."""
    text = data.decode("utf-8", "replace")
    readers: tuple[Callable[[], object], ...] = (
        lambda: same(dsse.parse(data).to_bytes(), data),
        lambda: same(SignedDecision.from_json(data).to_json(), data),
        lambda: same(parse_checkpoint(data).to_text(), data),
        lambda: same(PublicKey.from_pem(data).to_pem(), data),
        lambda: same(PrivateKey.from_pem(data).to_pem(), data),
        lambda: same(PublicKey.from_text(text).text.encode(), text.encode()),
        lambda: same(NoteKey.from_text(text).text.encode(), text.encode()),
        lambda: parse_statement(data),
        lambda: split_note(data),
    )
    for reader in readers:
        try:
            reader()
        except (VerificationError, ConfigurationError, SigningError) as problem:
            one_line(str(problem))


def one_line(message: str) -> None:
    assert "\n" not in message, repr(message)


def same(written: bytes, read: bytes) -> None:
    assert written == read


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
