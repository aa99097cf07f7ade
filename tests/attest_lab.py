"""A tiny lab for tests of signing, logging and verifying: real keys, an in-memory log, a fixed clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from policyguard.attest.dsse import Envelope, sign
from policyguard.attest.keys import PrivateKey
from policyguard.attest.statement import PAYLOAD_TYPE, decision_statement
from policyguard.attest.trust import Trust, TrustedKey
from policyguard.audit.log import Log
from policyguard.audit.receipt import SignedDecision
from policyguard.audit.stores.memory import MemoryStore
from policyguard.model.decision import Decision, UnmetQuorum
from policyguard.model.facts import Approval, Assurance, Fact, Facts, claims
from policyguard.model.request import Request
from policyguard.values import FrozenMap, Instant, format_instant, parse_instant

NOW = parse_instant("2026-03-01T09:00:00Z")
SECOND = 1_000_000_000
LIFETIME = 900 * SECOND
ORIGIN = "lab.example/decisions"
AUDIENCE = "cluster-a"
POLICY_DIGEST = "ab" * 32
EPOCH = 7


def key_of(name: str) -> PrivateKey:
    """Return the test key of this name: the name, padded, is its seed."""
    return PrivateKey.generate(name.encode().ljust(32, b"."))


SIGNER, SECOND_SIGNER, STRANGER, LOG_KEY = (key_of(name) for name in ("signer", "second", "stranger", "log"))


@dataclass(frozen=True)
class StubExplainer:
    """Stands for the snapshot that decided."""

    policy_digest: str = POLICY_DIGEST
    epoch: int = EPOCH

    def explain(self, decision: Decision, *, full: bool = False, viewer: str | None = None) -> str:
        return "allowed" if decision.allowed else "denied"


REQUEST = Request.of("user:alice", "job:submit", "job:team/vision/run-17", gpus=8)


def facts_of(request: Request = REQUEST) -> Facts:
    """Return claims, one bound measured fact and one approval."""
    entries = claims(request, NOW)
    entries["resource.code"] = Fact(FrozenMap(commit="a" * 40, dirty=False), Assurance.MEASURED, "git", NOW, True)
    entries["subject.employment"] = Fact("contractor", Assurance.OBSERVED, "directory", NOW - SECOND)
    approval = Approval("user:bob", Assurance.ATTESTED, "sshsig", NOW - SECOND, NOW + LIFETIME, "cd" * 32)
    return Facts(request, entries, FrozenMap({"resource.image": "timed out after 2 s"}), (approval,), ("user:alice",))


def decision_of(
    request: Request = REQUEST, *, allowed: bool = True, explainer: StubExplainer | None = None
) -> Decision:
    gaps = (
        () if allowed else (UnmetQuorum("two-leads", "large-jobs", 1, ("lead",), "vision", ("user:alice: requester",)),)
    )
    return Decision(
        allowed,
        ("rule.allow" if allowed else "needs_approval",),
        ("researchers-submit",),
        (),
        ("large-jobs",),
        gaps,
        ("keep-logs",),
        facts_of(request),
        NOW,
        explainer or StubExplainer(),
    )


def payload_of(
    decision: Decision | None = None,
    *,
    decision_id: str = "d-1",
    audience: str = AUDIENCE,
    issued_at: Instant = NOW,
    not_before: Instant = NOW,
    expires: Instant = NOW + LIFETIME,
    advisory: bool = False,
    sensitive: frozenset[str] = frozenset(),
) -> bytes:
    decision = decision_of() if decision is None else decision
    return decision_statement(
        decision,
        decision.facts.request,
        decision_id=decision_id,
        audience=audience,
        issued_at=issued_at,
        not_before=not_before,
        expires=expires,
        advisory=advisory,
        sensitive=sensitive,
    )


@dataclass
class Lab:
    """A signer, a log and the trust that fits them."""

    log: Log = field(default_factory=lambda: Log.open(MemoryStore(ORIGIN), LOG_KEY))

    def trust(self, **changes: object) -> Trust:
        parts: dict[str, object] = {
            "keys": (TrustedKey(key=SIGNER.public),),
            "logs": (self.log.verifier,),
            "audiences": frozenset({AUDIENCE}),
            "policy_digests": frozenset({POLICY_DIGEST}),
        }
        return Trust(**{**parts, **changes})  # type: ignore[arg-type]

    def issue(self, payload: bytes | None = None, *, keys: tuple[PrivateKey, ...] = (SIGNER,)) -> SignedDecision:
        return self.log_envelope(sign(payload_of() if payload is None else payload, PAYLOAD_TYPE, keys))

    def log_envelope(self, envelope: Envelope) -> SignedDecision:
        return SignedDecision(envelope, self.log.append(envelope.to_bytes()))


BOUND = FrozenMap(facts_of().bound)


def trust_data(trust: Trust) -> dict[str, Any]:
    """Convert trust to a document; `parse_trust(trust_data(t)) == t`."""
    policies: dict[str, Any] = {"digests": sorted(trust.policy_digests)} if trust.policy_digests else {}
    if trust.min_epoch is not None:
        policies["minEpoch"] = trust.min_epoch
    data: dict[str, Any] = {
        "apiVersion": "policyguard/v1",
        "kind": "Trust",
        "keys": [_key_data(trusted) for trusted in trust.keys],
        "threshold": trust.threshold,
        "logs": [log.text for log in trust.logs],
        "audiences": sorted(trust.audiences),
        "policies": policies,
    }
    if trust.self_issued:
        data["selfIssued"] = "accept"
    revocation = trust.revocation
    if revocation is not None:
        data["revocation"] = {
            "source": revocation.source,
            "keys": [key.text for key in revocation.keys],
            "maxAge": f"{revocation.max_age_s}s",
            "minSequence": revocation.min_sequence,
        }
    return data


def _key_data(trusted: TrustedKey) -> dict[str, str]:
    data: dict[str, str] = {"key": trusted.key.text}
    if trusted.name:
        data["name"] = trusted.name
    if trusted.held_by is not None:
        data["heldBy"] = trusted.held_by
    for name, instant in (("notBefore", trusted.not_before), ("expires", trusted.expires)):
        if instant is not None:
            data[name] = format_instant(instant)
    return data
