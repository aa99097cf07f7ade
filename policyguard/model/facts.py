"""Facts about a request, each with its assurance.

Assurance is ordered: claimed < observed < measured < attested. The schema sets a minimum for each attribute; a fact
below it is treated as absent.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from policyguard.model.request import Request
from policyguard.values import EMPTY_MAP, FrozenMap, Instant, Value

GRANTS = "context.grants"
"""The fact that holds the signed grants of a subject: records with a `grant_id`."""


COMMANDS = frozenset(
    f"{entity}.{name}"
    for entity in ("resource", "context")
    for name in ("argv", "args", "command", "command_line", "code_injecting_env", "executable", "program")
)
"""The facts that quote a command line, in which secrets are hidden where they are recorded or shown."""


class Assurance(enum.IntEnum):
    """How a fact became known, in ascending order of trust."""

    CLAIMED = 1
    """The requester said so."""
    OBSERVED = 2
    """The enforcing platform reported it over an authenticated channel."""
    MEASURED = 3
    """The enforcement point measured it."""
    ATTESTED = 4
    """Another party signed it, and the signature was verified with a pinned key."""

    @property
    def word(self) -> str:
        return self.name.lower()


class Fact(msgspec.Struct, frozen=True):
    """A value with its assurance, its source and the time of observation.

    `bound` facts are part of the request digest: the worker measures them again at the start and must get the same.
    """

    value: Value
    assurance: Assurance
    source: str
    observed_at: Instant
    bound: bool = False


class Approval(msgspec.Struct, frozen=True):
    """One account's approval of this request; signature, namespace and expiry are already verified.

    `account` is a `type:id`; `approved_at` and `expires` are instants; `tier` is the largest tier it covers, if any.
    """

    account: str
    assurance: Assurance
    source: str
    approved_at: Instant
    expires: Instant
    approval_digest: str
    key: str = ""
    """Fingerprint of the key that signed it, `SHA256:...`; empty if it is not known."""


class Facts(msgspec.Struct, frozen=True):
    """A request and everything collected about it.

    `entries` maps attribute paths to facts: `subject.employment`, `resource.gpus`, `context.ticket`; always two
    segments, the second an attribute of the schema; the map is immutable. `missing` says why a collector could not
    supply a path. `contributors` is the set of accounts whose work the request carries; None means that it was not
    determined. `unusable` says why submitted approvals do not count, one line for each; it is only for display.
    """

    request: Request
    entries: dict[str, Fact] = msgspec.field(default_factory=dict)
    missing: FrozenMap = EMPTY_MAP
    approvals: tuple[Approval, ...] = ()
    contributors: tuple[str, ...] | None = None
    unusable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # INVARIANT I15: what was decided on cannot change before it is signed, shown or logged.
        entries: Any = self.entries
        if type(entries) is not FrozenMap:
            force_setattr(self, "entries", FrozenMap(entries))

    @property
    def bound(self) -> dict[str, Value]:
        """The values that the request digest covers in addition to the request."""
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
