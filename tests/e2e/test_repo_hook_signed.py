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
        "GIT_PUSH_CERT_STATUS": "G",
        "GIT_PUSH_CERT_SIGNER": "user:alice",
        "GIT_PUSH_CERT_NONCE": "1-a",
        "GIT_PUSH_CERT_NONCE_STATUS": "OK",
        "GIT_PUSH_CERT_KEY": "SHA256:x",
    }
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
        "topic",
        key=None,
        GIT_PUSH_CERT=cert,
        GIT_PUSH_CERT_STATUS="G",
        GIT_PUSH_CERT_SIGNER="user:alice",
        GIT_PUSH_CERT_NONCE=nonce,
        GIT_PUSH_CERT_NONCE_STATUS="OK",
    )
    assert not pushed.accepted
    assert "the push certificate is for other updates" in pushed.text


def certificates(forge: Forge, repository: Path) -> list[dict[str, str]]:
    """Return for each push certificate in a repository the variables with which git announces a good one."""
    lines = forge.git(repository, "cat-file", "--batch-all-objects", "--batch-check").splitlines()
    found = []
    for oid in [line.split()[0] for line in lines if " blob " in line]:
        text = forge.git(repository, "cat-file", "blob", oid)
        if text.startswith("certificate version"):
            nonce = text.split("nonce ")[1].split("\n")[0]
            found.append(
                {
                    "GIT_PUSH_CERT": oid,
                    "GIT_PUSH_CERT_STATUS": "G",
                    "GIT_PUSH_CERT_SIGNER": "user:alice",
                    "GIT_PUSH_CERT_NONCE": nonce,
                    "GIT_PUSH_CERT_NONCE_STATUS": "OK",
                }
            )
    return found


def test_a_used_certificate_does_not_bring_a_deleted_branch_back(forge: Forge) -> None:
    """INVARIANT I19: alice created and deleted it; whoever has her certificate cannot create it again."""
    forge.git(forge.work, "branch", "wip/alice")
    assert forge.push("wip/alice").accepted
    (first,) = certificates(forge, forge.bare)
    assert forge.push(":wip/alice").accepted
    replayed = forge.push("wip/alice", key=None, **first)
    assert not replayed.accepted
    assert "the push certificate was used before" in replayed.text
    assert forge.value("refs/heads/wip/alice") is None
    pushed = forge.push("wip/alice")
    assert pushed.accepted, pushed.text


def test_a_certificate_for_a_fork_is_refused(forge: Forge) -> None:
    """INVARIANT I19: the fork moved the same branch between the same commits; its nonce comes from another seed."""
    fork = forge.folder / "fork.git"
    forge.git(forge.folder, "clone", "-q", "--bare", str(forge.bare), "fork.git")
    for name in ("gpg.format", "gpg.ssh.allowedSignersFile"):
        forge.git(fork, "config", name, forge.git(forge.bare, "config", name))
    forge.git(fork, "config", "receive.certNonceSeed", "another")
    (fork / "hooks").mkdir(exist_ok=True)
    (fork / "hooks" / "pre-receive").write_text("#!/bin/sh\n")  # git keeps certificates for hooks only
    (fork / "hooks" / "pre-receive").chmod(0o755)
    forge.git(forge.work, "remote", "set-url", "origin", str(fork))
    assert forge.push("topic").accepted
    forge.git(forge.work, "remote", "set-url", "origin", str(forge.bare))
    (foreign,) = certificates(forge, fork)
    text = forge.git(fork, "cat-file", "blob", foreign["GIT_PUSH_CERT"])
    copied = forge.git(forge.bare, "hash-object", "-w", "--stdin", stdin=f"{text}\n".encode())
    assert copied == foreign["GIT_PUSH_CERT"]
    replayed = forge.push("topic", key=None, **foreign)
    assert not replayed.accepted
    assert "was not given out for this repository" in replayed.text
    assert forge.push("topic").accepted


@pytest.mark.parametrize("name", ["../trainer.git", "../trainer", "../work/../trainer.git/", "../link"])
def test_a_repository_may_be_called_by_any_of_its_names(name: str, forge: Forge) -> None:
    """Git makes the nonce from the name that the pusher gave; the hook finds it in the receiving git's arguments."""
    (forge.folder / "link").symlink_to(forge.bare)
    forge.git(forge.work, "remote", "set-url", "origin", name)
    pushed = forge.push("topic")
    assert pushed.accepted, pushed.text


def test_a_seed_that_the_pusher_brings_is_not_read(forge: Forge) -> None:
    """Over a file path git reads the pusher's own configuration; the hook reads the repository's."""
    forge.git(forge.bare, "config", "--unset", "receive.certNonceSeed")
    mine = forge.folder / "mine"
    mine.write_text("[receive]\n\tcertNonceSeed = mine\n")
    pushed = forge.push("topic", GIT_CONFIG_GLOBAL=str(mine))
    assert not pushed.accepted
    assert "no receive.certNonceSeed in the configuration" in pushed.text


def test_a_certificate_is_as_old_as_its_nonce(forge: Forge) -> None:
    """The operator says for how long it counts; an age that is none is refused when the hook is installed."""
    kept = ("--kind", "pre-receive", "--certificate-age")
    assert forge.install(*kept, "0").status == 64
    assert forge.install(*kept, "600").accepted
    assert "--certificate-age 600" in (forge.bare / "hooks" / "pre-receive").read_text()
    assert forge.push("topic").accepted


def test_a_signature_of_somebody_else_is_not_the_pushers(forge: Forge) -> None:
    """Bob signs what the transport says alice pushes: known, but not her."""
    pushed = forge.push("topic", key="bob")
    assert not pushed.accepted
    assert "engine.no_allow" in pushed.text
    forge.commit("more.md")  # within one second the same push has the same certificate, which counts once
    pushed = forge.push("topic", user="bob", key="bob")
    assert pushed.accepted, pushed.text


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
