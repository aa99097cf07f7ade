"""GPG signatures count only by the pinned keyring and for persons that list the key: real gpg, real commits."""

from __future__ import annotations

import hmac
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from policyguard.assembly.jobs import review_files
from policyguard.attest.signers import Signers
from policyguard.config.file import read_config
from policyguard.errors import EvidenceError
from policyguard.evidence.approvals.collectors import ReviewedRepositoryCollector, ReviewFiles
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.evidence.push.certificate import Signed, read_certificate
from policyguard.evidence.push.nonce import Nonces
from policyguard.evidence.push.session import PushSession
from policyguard.evidence.push.updates import MeasuredUpdate, RefUpdate
from policyguard.git.gpg import Keyring
from policyguard.model.policy import Person
from policyguard.model.request import Request
from tests.attacks.git_lab import git

pytestmark = pytest.mark.skipif(shutil.which("gpgv") is None or shutil.which("gpg") is None, reason="no gpg here")


@dataclass(frozen=True)
class Lab:
    """A repository, a GPG home with alice's key, and the keyring that was exported from it."""

    home: Path
    repo: Path
    ring: Path
    fingerprint: str

    def gpg(self, *words: str) -> bytes:
        command = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", *words]
        environment = {"PATH": os.environ["PATH"], "GNUPGHOME": str(self.home), "HOME": str(self.home)}
        return subprocess.run(command, env=environment, capture_output=True, check=True).stdout

    def commit(self, message: str, *words: str) -> str:
        git(self.repo, "commit", "-q", "--allow-empty", "-m", message, *words, GNUPGHOME=str(self.home))
        return git(self.repo, "rev-parse", "HEAD")

    def seen(self, old: str, new: str, keyring: Keyring | None) -> MeasuredUpdate:
        with PushSession(str(self.repo), {}, {os.geteuid(), 0}) as session:
            (measured,) = session.measure((RefUpdate(old=old, new=new, ref="refs/heads/main"),), None, keyring)
        return measured

    def keyring(self, *keys: str) -> Keyring:
        return Keyring(str(self.ring), [Person(id="alice", accounts=("user:alice",), keys=keys)])


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """The lab, its agent stopped afterwards."""
    home, repo = tmp_path / "g", tmp_path / "repo"
    home.mkdir(mode=0o700)
    repo.mkdir()
    lab = Lab(home, repo, tmp_path / "ring.gpg", "")
    lab.gpg("--quick-gen-key", "alice <alice@lab.example>", "ed25519", "sign", "never")
    lines = lab.gpg("--list-keys", "--with-colons").decode().splitlines()
    fingerprint = next(line.split(":")[9] for line in lines if line.startswith("fpr:"))
    lab.ring.write_bytes(lab.gpg("--export"))
    git(repo, "init", "-q", "-b", "main")
    git(repo, "config", "user.signingkey", fingerprint)
    yield Lab(home, repo, lab.ring, fingerprint)
    subprocess.run(["gpgconf", "--kill", "all"], env={**os.environ, "GNUPGHOME": str(home)}, check=False)


def test_a_commit_by_a_pinned_key_of_a_person_is_signed(lab: Lab) -> None:
    """And only then: without keyring, or for a key that nobody lists, its signer is an unknown contributor."""
    old = lab.commit("first")
    new = lab.commit("second", "-S")
    good = lab.seen(old, new, lab.keyring(f"gpg:{lab.fingerprint}"))
    assert (good.signers, good.unsigned) == ({"user:alice"}, set())
    assert good.accounts == {"unknown:a@lab", "user:alice"}
    for keyring in (None, lab.keyring(), lab.keyring("gpg:" + "0" * 40)):
        bad = lab.seen(old, new, keyring)
        assert (bad.signers, bad.unsigned) == (set(), {new})
        assert f"unknown:signature-{new[:12]}" in bad.accounts


def test_a_signature_for_another_text_is_bad(lab: Lab) -> None:
    """INVARIANT I10; two signatures in one armour, of which one is good, are bad as well."""
    payload = lab.repo / "payload"
    payload.write_bytes(b"text")
    made = lab.gpg("--armor", "--detach-sign", "-o", "-", str(payload)).strip()
    keyring = lab.keyring(f"gpg:{lab.fingerprint}")
    assert keyring.person_of(b"text", made) is not None
    assert keyring.person_of(b"other", made) is None
    assert keyring.person_of(b"text", made + b"\n" + made) is None
    assert keyring.person_of(b"text", b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----") is None


def test_a_push_certificate_by_a_pinned_key_is_good(lab: Lab) -> None:
    """I1 and I10: it is verified here, by the keyring alone; changed, not pinned or without a keyring it is bad."""
    update = RefUpdate(old="a" * 40, new="b" * 40, ref="refs/heads/main")
    nonce = "999999999-" + hmac.new(b"/srv/r.git:999999999", b"seed", "sha1").hexdigest()
    text = f"certificate version 0.1\nnonce {nonce}\n\n".encode() + f"{update.old} {update.new} {update.ref}\n".encode()
    payload = lab.repo / "payload"
    payload.write_bytes(text)
    armour = lab.gpg("--armor", "--detach-sign", "-o", "-", str(payload))
    told = {
        "GIT_PUSH_CERT": "c" * 40,
        "GIT_PUSH_CERT_STATUS": "G",
        "GIT_PUSH_CERT_SIGNER": "alice",
        "GIT_PUSH_CERT_NONCE": nonce,
        "GIT_PUSH_CERT_NONCE_STATUS": "OK",
    }

    def read(content: bytes, keyring: Keyring | None) -> Signed:
        nonces = Nonces(seed=b"seed", paths=("/srv/r.git",))
        return read_certificate(told, (update,), lambda _: content, Signers(()), 10**18, nonces, keyring)

    pinned = lab.keyring(f"gpg:{lab.fingerprint}")
    good = read(text + armour, pinned)
    assert (good.status, good.signer.id if good.signer else None) == ("good", "alice")
    changed = text.replace(b"version 0.1", b"version 0.2")
    for content, keyring, why in (
        (changed + armour, pinned, "pinned"),
        (text + armour, lab.keyring(), "pinned"),
        (text + armour, None, "not verified here"),
    ):
        bad = read(content, keyring)
        assert (bad.status, bad.signer) == ("bad", None)
        assert why in bad.reason


def test_a_keyring_that_everybody_may_write_to_pins_nobody(lab: Lab) -> None:
    """Nor one that does not exist."""
    lab.ring.chmod(0o666)
    with pytest.raises(EvidenceError, match="everybody may write"):
        lab.keyring()
    lab.ring.unlink()
    with pytest.raises(EvidenceError):
        lab.keyring()


def looked(lab: Lab, *, keys: tuple[str, ...], ring: Path | None = None) -> Collected:
    """Return what the launcher's look at the repository gives, for people of whom alice lists these keys."""
    alice = Person(id="alice", accounts=("user:alice",), emails=("a@lab",), keys=keys)
    collector = ReviewedRepositoryCollector([alice], ReviewFiles(gpg_keyring=ring), uid=0)
    request = Request.of("user:alice", "job:submit", "job:team/vision/run-17")
    return collector.collect(request, JobInputs(argv=("true",), directory=str(lab.repo)), 1)


def test_a_launcher_knows_gpg_signers_by_the_keyring(lab: Lab) -> None:
    """I8: with `gpgKeyring` a signed commit is its signer's; without it, or by a key nobody lists, of one unknown."""
    new = lab.commit("signed", "-S")
    listed = (f"gpg:{lab.fingerprint}",)
    assert looked(lab, keys=listed, ring=lab.ring).contributors == ("user:alice",)
    unknown = ("unknown:signature-" + new[:12], "user:alice")
    assert looked(lab, keys=listed).contributors == unknown
    assert looked(lab, keys=(), ring=lab.ring).contributors == unknown


def test_a_signed_commit_of_a_known_key_is_no_unsigned_one(lab: Lab) -> None:
    """With `signedCommits: required` a GPG signature is as good as an SSH signature."""
    alice = [Person(id="alice", accounts=("user:alice",), emails=("a@lab",), keys=(f"gpg:{lab.fingerprint}",))]
    new = lab.commit("unsigned")
    files = ReviewFiles(gpg_keyring=lab.ring, signed_only=True)
    request, inputs = Request.of("user:alice", "job:submit", "job:x"), JobInputs(directory=str(lab.repo))
    first = ReviewedRepositoryCollector(alice, files, uid=0).collect(request, inputs, 1)
    assert first.contributors == (f"unknown:unsigned-{new[:12]}", "user:alice")
    lab.commit("signed", "--amend", "-S")
    assert ReviewedRepositoryCollector(alice, files, uid=0).collect(request, inputs, 1).contributors == ("user:alice",)


def test_a_keyring_that_cannot_be_used_makes_contributors_unknown(lab: Lab) -> None:
    """It is gone, or time is up before all signatures are verified: nobody is independent, and it is said why."""
    lab.commit("signed", "-S")
    gone = looked(lab, keys=(), ring=lab.home / "none")
    assert gone.contributors is None
    assert "approval.contributors_unknown" in gone.unusable[0]
    late = Keyring(str(lab.ring), [], deadline=0.0)
    with pytest.raises(EvidenceError, match="more GPG signatures than can be verified in time, 0 so far"):
        late.person_of(b"text", b"-----BEGIN PGP SIGNATURE-----\n")


def test_a_signature_is_verified_once(lab: Lab) -> None:
    """What the keyring said of a signature it says again, without another process; another text is another question."""
    payload = lab.repo / "payload"
    payload.write_bytes(b"text")
    made = lab.gpg("--armor", "--detach-sign", "-o", "-", str(payload)).strip()
    keyring = lab.keyring(f"gpg:{lab.fingerprint}")
    assert keyring.person_of(b"text", made) is not None
    lab.ring.unlink()
    assert keyring.person_of(b"text", made) is not None
    assert keyring.person_of(b"texts", made) is None


def test_the_configuration_names_the_keyring(lab: Lab, tmp_path: Path) -> None:
    """`gpgKeyring` of policyguard.yaml reaches the launcher's look, a hook's, and that of `approve`."""
    (tmp_path / "policyguard.yaml").write_text("gpgKeyring: ring.gpg\n")
    config = read_config(tmp_path / "policyguard.yaml")
    assert review_files(config) == ReviewFiles(gpg_keyring=lab.ring)
