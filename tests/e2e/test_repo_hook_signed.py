"""Signed pushes, forged certificates and verification summaries, over real git."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer._key import SSlibKey

from policyguard.attest.keys import PrivateKey, encode_base64
from policyguard.keyfiles import read_private_key
from tests.e2e.repo_lab import Forge, make_forge


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    """A forge with every hook, and a topic branch of one commit in the clone."""
    forge = make_forge(tmp_path, "pre-receive", "reference-transaction")
    done = forge.install(
        "--kind", "post-receive", "--vsa", "vsa", "--resource-uri", "git+https://forge.example/trainer"
    )
    assert done.accepted, done.text
    forge.git(forge.work, "checkout", "-qb", "topic")
    forge.commit("notes.md")
    return forge


def test_variables_of_the_pusher_are_no_certificate(forge: Forge) -> None:
    """Git passes the pusher's environment on where there is no certificate: status G in it means nothing."""
    forged = {
        "GIT_PUSH_CERT_STATUS": "G", "GIT_PUSH_CERT_SIGNER": "user:alice", "GIT_PUSH_CERT_NONCE": "1-a",
        "GIT_PUSH_CERT_NONCE_STATUS": "OK", "GIT_PUSH_CERT_KEY": "SHA256:x",
    }  # fmt: skip
    pushed = forge.push("topic", key=None, **forged)
    assert not pushed.accepted
    assert "the push is not signed" in pushed.text
    blob = forge.git(forge.work, "rev-parse", "HEAD:notes.md")
    pushed = forge.push("topic", key=None, **forged, GIT_PUSH_CERT=blob)
    assert not pushed.accepted
    assert "cannot be read" in pushed.text
    assert forge.push("topic").accepted


def test_a_certificate_for_another_push_is_refused(forge: Forge) -> None:
    """Alice's own certificate, taken from the repository, does not sign what mallory pushes in her name."""
    assert forge.push("topic").accepted
    blobs = forge.git(forge.bare, "cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)")
    oids = [line.split()[0] for line in blobs.splitlines() if line.endswith(" blob")]
    (cert,) = [oid for oid in oids if forge.git(forge.bare, "cat-file", "blob", oid).startswith("certificate version")]
    nonce = forge.git(forge.bare, "cat-file", "blob", cert).split("nonce ")[1].split("\n")[0]
    forge.commit("more.md")
    pushed = forge.push(
        "topic", key=None, GIT_PUSH_CERT=cert, GIT_PUSH_CERT_STATUS="G", GIT_PUSH_CERT_SIGNER="user:alice",
        GIT_PUSH_CERT_NONCE=nonce, GIT_PUSH_CERT_NONCE_STATUS="OK",
    )  # fmt: skip
    assert not pushed.accepted
    assert "the push certificate is for other updates" in pushed.text


def test_a_signature_of_somebody_else_is_not_the_pushers(forge: Forge) -> None:
    """Bob signs what the transport says alice pushes: known, but not her."""
    pushed = forge.push("topic", key="bob")
    assert not pushed.accepted
    assert "engine.no_allow" in pushed.text
    assert forge.push("topic", user="bob", key="bob").accepted


def test_a_revoked_key_signs_nothing(forge: Forge) -> None:
    """From the next push on; the twin is the push before."""
    assert forge.push("topic").accepted
    (forge.folder / "revoked").write_text((forge.folder / "alice.pub").read_text())
    assert forge.install("--kind", "pre-receive", "--revoked-keys", "revoked").accepted
    forge.commit("more.md")
    pushed = forge.push("topic")
    assert not pushed.accepted
    assert "is revoked" in pushed.text


def test_a_server_without_nonces_accepts_no_certificate(forge: Forge) -> None:
    """Without `receive.certNonceSeed` git offers no signed pushes, and the doctor says so."""
    forge.git(forge.bare, "config", "--unset", "receive.certNonceSeed")
    assert not forge.push("topic").accepted
    assert "nobody can sign a push" in forge.policyguard("repo", "doctor", "trainer.git").text


def test_a_summary_of_the_accepted_revision_is_read_by_the_fields_tools(forge: Forge) -> None:
    """securesystemslib verifies the envelope; the statement has the shape that slsa.dev publishes."""
    commit = forge.git(forge.work, "rev-parse", "HEAD")
    pushed = forge.push("topic")
    assert pushed.accepted, pushed.text
    (path,) = (forge.folder / "vsa").iterdir()
    assert path.name.startswith(commit)
    key = read_private_key(forge.folder / "guard.key")
    envelope = Envelope.from_dict(json.loads(path.read_bytes()))
    known = SSlibKey(key.keyid, "ed25519", "ed25519", {"public": key.public.raw.hex()})
    assert set(envelope.verify([known], 1)) == {key.keyid}
    statement = json.loads(envelope.payload)
    assert statement["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert statement["subject"] == [
        {"annotations": {"sourceRefs": ["refs/heads/topic"]}, "digest": {"gitCommit": commit}}
    ]
    (decision,) = forge.decisions()
    predicate = statement["predicate"]
    assert predicate["verificationResult"] == "PASSED"
    assert predicate["resourceUri"] == "git+https://forge.example/trainer"
    assert predicate["policy"]["digest"] == {"sha256": decision.policy.digest}
    assert predicate["inputAttestations"][0]["uri"].endswith(decision.decision_id)
    assert predicate["verifiedLevels"] == ["SLSA_SOURCE_LEVEL_1"]
    stranger = PrivateKey.generate(b"\1" * 32)
    other = SSlibKey(stranger.keyid, "ed25519", "ed25519", {"public": stranger.public.raw.hex()})
    with pytest.raises(Exception, match="signature"):
        envelope.verify([other], 1)
    assert encode_base64(key.public.raw)


def test_a_refused_push_has_no_summary(forge: Forge) -> None:
    """Nothing is said of what was not accepted."""
    assert not forge.push("topic:main").accepted
    assert not (forge.folder / "vsa").exists()
