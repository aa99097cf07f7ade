"""What is known about a request, and how well: a claim is not a fact.

Assurance is ordered (design section 3): claimed < observed < measured < attested. The schema names the least that
counts for each attribute; a weaker fact is treated as absent.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from policyguard.model.request import Request
from policyguard.values import EMPTY_MAP, FrozenMap, Instant, Value


class Assurance(enum.IntEnum):
    """How a fact came to be known; the order is the order of trust."""

    CLAIMED = 1
    """The requester said so."""
    OBSERVED = 2
    """An enforcing platform saw it on an authenticated channel."""
    MEASURED = 3
    """The enforcement point looked itself."""
    ATTESTED = 4
    """Another party's signature, verified against a pinned key."""

    @property
    def word(self) -> str:
        return self.name.lower()


class Fact(msgspec.Struct, frozen=True):
    """One value, how it came to be known, who says so, and when it was seen.

    `bound` facts enter the request digest: the worker measures them again at the start and must find the same.
    """

    value: Value
    assurance: Assurance
    source: str
    observed_at: Instant
    bound: bool = False


class Approval(msgspec.Struct, frozen=True):
    """One account's approval, already verified: signature, namespace, expiry, and that it is for this very request.

    `account` is a `type:id`; `approved_at` and `expires` are instants; `tier` is the largest tier it covers, if any.
    """

    account: str
    assurance: Assurance
    source: str
    approved_at: Instant
    expires: Instant
    approval_digest: str


class Facts(msgspec.Struct, frozen=True):
    """A request and everything collected about it.

    `entries` maps attribute paths to facts: `subject.employment`, `resource.gpus`, `context.ticket`; always two
    segments, the second an attribute of the schema; what is kept cannot be changed. `missing` says why a collector
    could not supply a path. `contributors` is the set of accounts whose work the request carries; None means that
    nobody looked. `unusable` says of approvals that were presented why they do not count, one line each; it is shown
    and decides nothing.
    """

    request: Request
    entries: dict[str, Fact] = msgspec.field(default_factory=dict)
    missing: FrozenMap = EMPTY_MAP
    approvals: tuple[Approval, ...] = ()
    contributors: tuple[str, ...] | None = None
    unusable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # INVARIANT I8: what was decided on cannot change before it is signed, shown or logged.
        entries: Any = self.entries
        if type(entries) is not FrozenMap:
            force_setattr(self, "entries", FrozenMap(entries))

    @property
    def bound(self) -> dict[str, Value]:
        """The values that the request digest covers beside the request."""
        return {path: fact.value for path, fact in self.entries.items() if fact.bound}


def claims(request: Request, now: Instant) -> dict[str, Fact]:
    """Return the request's own properties as claimed facts, observed `now`."""
    groups = (
        ("subject", request.subject.properties),
        ("resource", request.resource.properties),
        ("context", request.context),
    )
    return {
        f"{entity}.{name}": Fact(value, Assurance.CLAIMED, "request", now)
        for entity, properties in groups
        for name, value in properties.items()
    }
