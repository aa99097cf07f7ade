"""The verification summary: SLSA's shape, and PASSED only where a signed allow says so."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.vsa.v1 import vsa_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement as TheirStatement
from securesystemslib.dsse import Envelope
from securesystemslib.signer._key import SSlibKey

from policyguard.attest.keys import PrivateKey
from policyguard.attest.statement import PolicyRecord, Predicate
from policyguard.attest.vsa import QUORUM_LEVEL, Revision, sign_summary, source_summary
from policyguard.values import canonical

SCHEMA = {
    "type": "object",
    "required": ["_type", "subject", "predicateType", "predicate"],
    "properties": {
        "_type": {"const": "https://in-toto.io/Statement/v1"},
        "predicateType": {"const": "https://slsa.dev/verification_summary/v1"},
        "subject": {
            "type": "array",
            "minItems": 1,
            "items": {"required": ["digest"], "properties": {"digest": {"required": ["gitCommit"]}}},
        },
        "predicate": {
            "type": "object",
            "required": ["verifier", "timeVerified", "resourceUri", "policy", "verificationResult", "verifiedLevels"],
            "properties": {
                "verifier": {"required": ["id"], "properties": {"id": {"type": "string", "format": "uri"}}},
                "timeVerified": {"type": "string", "format": "date-time"},
                "resourceUri": {"type": "string", "format": "uri"},
                "policy": {"required": ["uri"], "properties": {"digest": {"required": ["sha256"]}}},
                "inputAttestations": {"items": {"required": ["digest"], "properties": {"uri": {"format": "uri"}}}},
                "verificationResult": {"enum": ["PASSED", "FAILED"]},
                "verifiedLevels": {"type": "array", "minItems": 1, "items": {"type": "string"}},
            },
        },
    },
}
"""The required fields and formats of slsa.dev/verification_summary/v1, "Schema"."""

REVISION = Revision(commit="4d" * 20, ref="refs/heads/main", resource_uri="git+https://forge.example/trainer")


def predicate(**changes: Any) -> Predicate:
    fields: dict[str, Any] = {
        "action": "repo:push",
        "approvals": (),
        "audience": "forge",
        "bound": (),
        "decision": "allow",
        "decision_id": "ab" * 16,
        "determining": (),
        "engine_version": "0.1.0",
        "errored": (),
        "facts": {},
        "gaps": (),
        "expires": "2030-03-07T12:15:00Z",
        "issued_at": "2030-03-07T12:00:00Z",
        "missing": {},
        "mode": "enforcing",
        "not_before": "2030-03-07T12:00:00Z",
        "obligations": (),
        "policy": PolicyRecord(digest="cd" * 32, epoch=1),
        "reason_codes": ("repo.signed_push",),
        "request_digest": "ef" * 32,
        "requester": "user:alice",
        "requiring": (),
        "resource": "repo:team/vision/trainer",
    }
    return Predicate(**{**fields, **changes})


def summary(
    *,
    revision: Revision = REVISION,
    levels: tuple[str, ...] = ("SLSA_SOURCE_LEVEL_2",),
    verifier: str = "urn:policyguard:guard:k",
    **changes: Any,
) -> Any:
    data = source_summary(
        revision,
        predicate(**changes),
        decision_digest="12" * 32,
        verifier=verifier,
        verified_at=10**18,
        levels=levels,
    )
    return json.loads(data)


def test_the_statement_has_the_published_shape() -> None:
    """Every required field, formats checked."""
    jsonschema_rs.validator_for(SCHEMA, validate_formats=True).validate(summary())


def test_the_bindings_of_in_toto_read_it() -> None:
    """Their envelope, their statement, their message type of the predicate: field by field."""
    key = PrivateKey.generate(b"\7" * 32)
    known = SSlibKey(key.keyid, "ed25519", "ed25519", {"public": key.public.raw.hex()})
    ours = sign_summary(canonical(summary(requiring=("main-needs-two-leads",))), key)
    envelope = Envelope.from_dict(json.loads(ours.to_bytes()))
    assert set(envelope.verify([known], 1)) == {key.keyid}
    statement = TheirStatement.copy_from_pb(json_format.Parse(envelope.payload, statement_pb2.Statement()))
    statement.validate()
    assert statement.pb.predicate_type == "https://slsa.dev/verification_summary/v1"
    assert dict(statement.pb.subject[0].digest) == {"gitCommit": REVISION.commit}
    assert list(statement.pb.subject[0].annotations["sourceRefs"]) == ["refs/heads/main"]
    predicate = json_format.MessageToDict(statement.pb.predicate)
    # Two fields differ from slsa.dev in the message type of 0.9.3, and ours are slsa.dev's: it has no version of the
    # verifier, and one level instead of a list. Every other field it must know, and read as we wrote it.
    assert predicate["verifier"].pop("version") == {"policyguard": "0.1.0"}
    assert predicate.pop("verifiedLevels") == [QUORUM_LEVEL, "SLSA_SOURCE_LEVEL_2"]
    read = json_format.ParseDict(predicate, vsa_pb2.VerificationSummary())
    assert read.verifier.id == "urn:policyguard:guard:k"
    assert read.time_verified.ToSeconds() == 10**9
    assert read.resource_uri == REVISION.resource_uri
    assert dict(read.policy.digest) == {"sha256": "cd" * 32}
    assert [(each.uri, dict(each.digest)) for each in read.input_attestations] == [
        ("urn:policyguard:decision:" + "ab" * 16, {"sha256": "12" * 32})
    ]
    assert read.verification_result == "PASSED"


def test_a_quorum_that_was_met_is_a_level_of_its_own() -> None:
    """It stands there only if rules demanded one."""
    assert summary(requiring=("main-needs-two-leads",))["predicate"]["verifiedLevels"] == [
        QUORUM_LEVEL,
        "SLSA_SOURCE_LEVEL_2",
    ]
    assert summary()["predicate"]["verifiedLevels"] == ["SLSA_SOURCE_LEVEL_2"]


@pytest.mark.parametrize("changes", [{"decision": "deny"}, {"mode": "advisory"}])
def test_a_deny_and_an_advisory_allow_pass_nothing(changes: dict[str, Any]) -> None:
    """INVARIANT I10."""
    with pytest.raises(ValueError, match="no enforcing allow"):
        summary(**changes)


@pytest.mark.parametrize("level", ["SLSA_BUILD_LEVEL_3", "SLSA_SOURCE_LEVEL_9", "", "ORG_SOURCE_x"])
def test_levels_are_written_as_slsa_writes_them(level: str) -> None:
    """Another spelling would be read by nobody."""
    with pytest.raises(ValueError, match="level"):
        summary(levels=(level,))


def test_a_short_commit_id_is_refused() -> None:
    """The subject is one commit, never a prefix."""
    with pytest.raises(ValueError, match="commit"):
        summary(revision=Revision(commit="4d1f0c", ref="refs/heads/main", resource_uri="git+https://x/y"))


def test_a_summary_without_a_level_or_a_uri_is_refused() -> None:
    """Consumers compare URIs: a bare name could be anybody's."""
    for changes in (
        {"levels": ()},
        {"verifier": "guard"},
        {"revision": Revision(commit=REVISION.commit, ref=REVISION.ref, resource_uri="team/vision/trainer")},
    ):
        with pytest.raises(ValueError, match="expected a level at least, and URIs"):
            summary(**changes)
