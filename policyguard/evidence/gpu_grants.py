"""Temporary grants: a lead's signed permission for one subject to use a number of GPUs for some time.

A grant is canonical JSON in a DSSE envelope, one per file, in a folder that anybody may write to: only grants signed by
a key that the operator pinned for this purpose count. Expired grants are supplied, too, so that a denial can say why
they do not help.

    {"expires": "2026-03-06T18:00:00Z", "gpus": 64, "grant_id": "grant-7", "subject": "user:ivan", "version": 1}
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from policyguard.attest.dsse import check_signatures, pae, parse, sign
from policyguard.attest.keys import PrivateKey, PublicKey
from policyguard.errors import EvidenceError, VerificationError
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.fs.safe_open import read_small, reason_of
from policyguard.model.decision import MAX_LIFETIME_S
from policyguard.model.facts import GRANTS, Assurance, Fact
from policyguard.model.request import Request
from policyguard.text import printable_name
from policyguard.values import (
    MAX_INTEGER,
    NANOSECONDS_PER_S,
    FrozenMap,
    Instant,
    canonical,
    format_instant,
    parse_instant,
)

GRANT_TYPE = "application/vnd.policyguard.grant+json"
MAX_GRANT_BYTES = 16_384
MAX_GRANTS = 1_000


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One grant; `expires` is RFC 3339 in UTC."""

    expires: str
    gpus: int
    grant_id: str
    subject: str
    version: int = 1


def sign_grant(*, grant_id: str, subject: str, gpus: int, expires: Instant, key: PrivateKey) -> bytes:
    """Sign a grant; return the content of the file for the folder of grants.

    Args:
        grant_id: the id of the grant.
        subject: who may use the GPUs, `type:id`.
        gpus: how many.
        expires: when the grant ends.
        key: the private key that signs.
    """
    grant = Grant(expires=format_instant(expires), gpus=gpus, grant_id=grant_id, subject=subject)
    return sign(canonical(msgspec.to_builtins(grant)), GRANT_TYPE, (key,)).to_bytes()


class GrantCollector:
    """Supplies `context.grants`: the valid grants of the request's subject; the list may be empty."""

    name = "grants"
    measures_contributors = False
    declares = (GRANTS,)

    def __init__(self, folder: str | None = None, keys: Sequence[PublicKey] = ()) -> None:
        self._folder, self._keys = folder, tuple(keys)

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Collect the subject's grants, sorted by id; ignore files without a signature of a pinned key."""
        subject = request.subject.ref
        # A grant must end within the longest lifetime, counted from now; one that does not is ignored.
        latest = now + MAX_LIFETIME_S * NANOSECONDS_PER_S
        own = [grant for grant in self._grants() if grant.subject == subject and parse_instant(grant.expires) <= latest]
        records = tuple(
            FrozenMap(grant_id=grant.grant_id, subject=grant.subject, gpus=grant.gpus, expires=grant.expires)
            for grant in sorted(own, key=lambda grant: grant.grant_id)
        )
        return Collected(entries={GRANTS: Fact(records, Assurance.ATTESTED, self.name, now)})

    def _grants(self) -> list[Grant]:
        if self._folder is None:
            return []
        try:
            names = sorted(entry.name for entry in os.scandir(self._folder) if entry.name.endswith(".json"))
        except OSError as problem:
            raise EvidenceError(f"`{printable_name(self._folder)}`: {reason_of(problem)}") from problem
        if len(names) > MAX_GRANTS:
            raise EvidenceError(
                f"`{printable_name(self._folder)}`: found {len(names)} grants, expected at most {MAX_GRANTS}"
            )
        grants = (self._read(os.path.join(self._folder, name)) for name in names)
        return [grant for grant in grants if grant is not None]

    def _read(self, path: str) -> Grant | None:
        try:
            envelope = parse(read_small(path, MAX_GRANT_BYTES))
            # INVARIANT I9: a grant raises nothing unless somebody signed it who is pinned for granting.
            check_signatures(envelope, pae(envelope.payload_type, envelope.payload), self._keys, 1)
            grant = _DECODER.decode(envelope.payload)
            parse_instant(grant.expires)
        except (EvidenceError, VerificationError, ValueError):
            return None
        sound = envelope.payload_type == GRANT_TYPE and grant.version == 1 and 0 <= grant.gpus <= MAX_INTEGER
        return grant if sound and canonical(msgspec.to_builtins(grant)) == envelope.payload else None


_DECODER = msgspec.json.Decoder(Grant)
