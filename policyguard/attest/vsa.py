"""SLSA source verification summaries: signed statements that a revision was accepted under a policy.

An in-toto Statement v1 with the subject `gitCommit`; `predicateType` and fields are SLSA's, so that common tools can
read it. The levels are the operator's claim about the whole setup, except `ORG_SOURCE_POLICYGUARD_QUORUM`, which is set
only if a quorum was required and met.

Pure: opens nothing. Source: slsa.dev/verification_summary/v1 and SLSA Source track, "Communicating source levels".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from policyguard.attest.dsse import Envelope, sign
from policyguard.attest.keys import PrivateKey
from policyguard.attest.statement import PAYLOAD_TYPE, STATEMENT_TYPE, Predicate
from policyguard.values import OBJECT_ID, Instant, canonical, format_instant

PREDICATE_TYPE = "https://slsa.dev/verification_summary/v1"
DEFAULT_LEVELS = ("SLSA_SOURCE_LEVEL_1",)
QUORUM_LEVEL = "ORG_SOURCE_POLICYGUARD_QUORUM"

_LEVEL = re.compile(r"SLSA_SOURCE_LEVEL_[0-4]|ORG_SOURCE_[A-Z0-9_]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """An accepted revision: a commit, the reference it became, and the URI of its repository."""

    commit: str
    ref: str
    resource_uri: str


def source_summary(
    revision: Revision,
    decision: Predicate,
    *,
    decision_digest: str,
    verifier: str,
    verified_at: Instant,
    levels: Sequence[str] = DEFAULT_LEVELS,
) -> bytes:
    """Build the statement, as RFC 8785 JSON, that this revision was accepted.

    Args:
        decision: the signed allow for this very revision, already verified.
        decision_digest: SHA-256 of the decision's envelope, by which it is found in the log.
        verifier: the id of the guard that decided, a URI.
        levels: what the operator claims of the source control set-up.

    Raises:
        ValueError: the decision is no allow, or an id, a commit or a level is not written as SLSA requires.
    """
    _check_summary(revision, decision, verifier, levels)
    predicate: dict[str, Any] = {
        "verifier": {"id": verifier, "version": {"policyguard": decision.engine_version}},
        "timeVerified": format_instant(verified_at),
        "resourceUri": revision.resource_uri,
        "policy": {
            "uri": f"urn:policyguard:policy:{decision.policy.digest}",
            "digest": {"sha256": decision.policy.digest},
        },
        "inputAttestations": [
            {"uri": f"urn:policyguard:decision:{decision.decision_id}", "digest": {"sha256": decision_digest}}
        ],
        "verificationResult": "PASSED",
        "verifiedLevels": sorted({*levels, *((QUORUM_LEVEL,) if decision.requiring else ())}),
    }
    subject = {"digest": {"gitCommit": revision.commit}, "annotations": {"sourceRefs": [revision.ref]}}
    return canonical(
        {"_type": STATEMENT_TYPE, "subject": [subject], "predicateType": PREDICATE_TYPE, "predicate": predicate}
    )


def _check_summary(revision: Revision, decision: Predicate, verifier: str, levels: Sequence[str]) -> None:
    # INVARIANT I10: a summary says PASSED only of a revision that a signed allow covers.
    if not decision.allowed or decision.mode != "enforcing":
        raise ValueError(f"decision `{decision.decision_id}` is no enforcing allow, expected one")
    if not OBJECT_ID.fullmatch(revision.commit):
        raise ValueError(f"commit: found `{revision.commit}`, expected 40 or 64 hex digits")
    for level in levels:
        if not _LEVEL.fullmatch(level):
            raise ValueError(f"level: found `{level}`, expected `SLSA_SOURCE_LEVEL_n` or `ORG_SOURCE_...`")
    if not levels or ":" not in verifier or ":" not in revision.resource_uri:
        raise ValueError("expected a level at least, and URIs for the verifier and the repository")


def sign_summary(statement: bytes, key: PrivateKey) -> Envelope:
    """Sign the summary in a DSSE envelope."""
    return sign(statement, PAYLOAD_TYPE, (key,))
