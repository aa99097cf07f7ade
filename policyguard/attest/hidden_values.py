"""Decides which values of a decision are hidden in its statement, and with which key their digests are computed.

A statement would give away what it hides if its digests could be computed by anybody who guesses: the request digest
covers the hidden values, and all others are known. So where something is hidden, digests are computed with a key that
is derived from the guard's signing key and the decision id. The key travels with the signed decision to the worker and
is in no log. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from hmac import digest as hmac_digest
from typing import NamedTuple

from policyguard.model.facts import COMMANDS, Facts
from policyguard.model.request import Request
from policyguard.model.secret_arguments import hide_secrets, keyed_digests
from policyguard.values import Value

PURPOSE = "keyed digests of hidden values"

Redact = Callable[[Value], Value]


class Hidden(NamedTuple):
    """How values are hidden: the digest key, empty if none is, and by path the function that hides parts of values."""

    key: bytes
    redactions: Mapping[str, Redact]


def digest_key(secret: bytes, decision_id: str) -> bytes:
    """Derive the key of the digests of one decision; equal values of two decisions have unequal digests.

    Args:
        secret: what the guard's signing key gives for `PURPOSE`.
        decision_id: of the decision.
    """
    return hmac_digest(secret, decision_id.encode(), "sha256")


def hide_values(facts: Facts, sensitive: frozenset[str], redactions: Mapping[str, Redact], key: bytes) -> Hidden:
    """Choose what a statement about these facts hides.

    Args:
        facts: of the decision, with its request.
        sensitive: paths whose values are masked.
        redactions: functions that remove the fields for `trace`, by path.
        key: the digest key that the decision gets if something is hidden.
    """
    replace = keyed_digests(key)
    hides = {**redactions, **{path: _both(redactions.get(path), replace) for path in COMMANDS}}
    quoting = ((path, facts.entries[path]) for path in COMMANDS.intersection(facts.entries))
    recorded = ((path, fact.value) for path, fact in quoting if not fact.bound)
    for path, value in (*facts.bound.items(), *_claims(facts.request), *recorded):
        # INVARIANT I14: no digest without a key covers what is hidden.
        if path in sensitive or (path in hides and hides[path](value) != value):
            return Hidden(key, hides)
    return Hidden(b"", redactions)


def _claims(request: Request) -> Iterator[tuple[str, Value]]:
    groups = {
        "subject": request.subject.properties,
        "resource": request.resource.properties,
        "context": request.context,
    }
    for entity, properties in groups.items():
        yield from ((f"{entity}.{name}", value) for name, value in properties.items())


def _both(redact: Redact | None, replace: Callable[[str], str]) -> Redact:
    return lambda value: hide_secrets(value if redact is None else redact(value), replace)
