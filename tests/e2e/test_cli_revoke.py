"""`policyguard revoke`: a decision stops verifying before it expires (A38), and only the revocation key does it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.attest.revocation import sign_list
from policyguard.attest.sshsig import SshKey
from policyguard.keyfiles import write_private_key
from tests.e2e.cli_lab import CliLab, Ended
from tests.e2e.test_approvals_asked import KEYS, OBSERVED, Given, asked

__all__ = ["asked"]

REVOKER = PrivateKey(b"\x77" * 32)
OMAR = KEYS["omar"].public
DAY_NS = 86_400 * 10**9


@pytest.fixture
def pinned(asked: CliLab) -> CliLab:
    """The lab with an approved request; its trust names a revocation key and a list in a folder of the operator's."""
    write_private_key("revocation.key", REVOKER)
    asked.path("operator").mkdir()
    with asked.path("trust.yaml").open("a") as file:
        file.write(f"revocation: {{source: operator/list.json, keys: ['{REVOKER.public.text}'], maxAge: 24h}}\n")
    Given().put(asked.path("approvals"))
    return asked


def revoke(lab: CliLab, *words: str, key: str = "revocation.key") -> Ended:
    return lab.here("revoke", *words, "--key", key)


def decided(lab: CliLab) -> dict[str, object]:
    """Decide on the kill that Omar approved, into `signed.json`; its predicate."""
    ended = lab.here("decide", *OBSERVED, "--out", "signed.json", "--json", "kill.json")
    assert ended.code == 0, ended.out
    payload = json.loads(lab.path("signed.json").read_bytes())["envelope"]["payload"]
    predicate: dict[str, object] = json.loads(base64.b64decode(payload))["predicate"]
    return predicate


def verified(lab: CliLab) -> Ended:
    return lab.here("verify", "signed.json", "--request", "kill.json")


def test_a_decision_whose_approver_is_revoked_stops_verifying(pinned: CliLab) -> None:
    """A38: allowed and verified, then the approver's key is revoked, and the worker refuses long before the expiry."""
    assert revoke(pinned, "refresh").code == 0
    decided(pinned)
    assert verified(pinned).code == 0
    assert revoke(pinned, "key", OMAR.text, "--reason", "stolen").code == 0
    ended = verified(pinned)
    fingerprint = SshKey(OMAR.raw).fingerprint
    assert (ended.code, ended.complaint[:17]) == (77, "policyguard: V12:")
    assert f"key `{fingerprint}` was revoked at" in ended.complaint
    assert "`stolen`" in ended.complaint


Named = Callable[[dict[str, object]], tuple[str, str]]
KINDS: dict[str, Named] = {
    "decision": lambda predicate: (str(predicate["decision_id"]), "0" * 32),
    "key": lambda _: (f"{SshKey(OMAR.raw).text} omar@lab", KEYS["mallory"].public.text),
    "approver": lambda _: ("user:omar", "user:oma"),
    "approval": lambda predicate: (predicate["approvals"][0]["digest"], "ab" * 32),  # type: ignore[index]
    "policy": lambda predicate: (predicate["policy"]["digest"], "ab" * 32),  # type: ignore[index]
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_verb(kind: str, pinned: CliLab) -> None:
    """Another one of the kind is revoked first and changes nothing; the list then shows both, in order."""
    named, other = KINDS[kind](decided(pinned))
    assert revoke(pinned, kind, other).code == 0
    assert verified(pinned).code == 0
    later = f"{time.gmtime().tm_year + 1}-01-01T00:00:00Z"
    assert revoke(pinned, kind, named, "--since", later).code == 0
    assert verified(pinned).code == 0
    assert revoke(pinned, kind, named).code == 0
    assert verified(pinned).complaint[:17] == "policyguard: V12:"
    listed = pinned.here("revoke", "list", "--json").data
    assert [entry["kind"] for entry in listed["entries"]] == [kind] * 3
    assert (listed["sequence"], listed["entries"][1]["since"]) == (3, later)


WRONG: dict[str, tuple[tuple[str, ...], str, int, str]] = {
    "by the guard's key": (("decision", "d" * 32), "guard.key", 78, "is no revocation key"),
    "a key by its key id": (("key", "ab" * 32), "revocation.key", 65, "expected `SHA256:FINGERPRINT`"),
    "a weak key": (
        ("key", f"ed25519:AQ{'A' * 41}="),
        "revocation.key",
        65,
        "small order",
    ),
    "two keys": (("key", f"{OMAR.text}\n{KEYS['ines'].public.text}"), "revocation.key", 65, "expected one key"),
    "no key": (("key", ""), "revocation.key", 65, "expected one key"),
    "a decision by another name": (("decision", "nonsense"), "revocation.key", 65, "expected 32 hex digits"),
    "a decision in capitals": (("decision", "D" * 32), "revocation.key", 65, "expected 32 hex digits"),
    "a grant by its file": (("grant", "grants/ivan.json"), "revocation.key", 65, "expected the grant's `grant_id`"),
    "a key by its file": (("key", "keys/omar.pub"), "revocation.key", 65, "policyguard keys show FILE"),
    "a policy by its folder": (("policy", "policies"), "revocation.key", 65, "64 hex digits"),
    "a person without a type": (("approver", "omar"), "revocation.key", 65, "found `omar`, expected `type:id`"),
    "an approval by its file": (("approval", "approval.json"), "revocation.key", 65, "64 hex digits"),
    "since a day": (("decision", "d" * 32, "--since", "today"), "revocation.key", 65, "RFC 3339"),
    "a reason of two lines": (("decision", "d" * 32, "--reason", "a\nb"), "revocation.key", 65, "reason"),
    "an unknown kind": (("team", "vision"), "revocation.key", 64, "found `team`, expected one of `decision`"),
}


@pytest.mark.parametrize(("words", "key", "code", "said"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_revoked_writes_nothing(
    words: tuple[str, ...], key: str, code: int, said: str, pinned: CliLab
) -> None:
    """One line, and the list as it was; the twin is `test_each_kind_has_its_verb`."""
    assert revoke(pinned, "refresh").code == 0
    before = pinned.path("operator", "list.json").read_bytes()
    ended = revoke(pinned, *words, key=key)
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert said in ended.err
    assert pinned.path("operator", "list.json").read_bytes() == before


def test_a_second_identical_entry_is_not_appended(pinned: CliLab) -> None:
    """It is said to be there; another `--since` is another entry, and so is one without."""
    words = ("decision", "d" * 32)
    assert revoke(pinned, *words).code == 0
    before = pinned.path("operator", "list.json").read_bytes()
    again = revoke(pinned, *words, "--reason", "twice")
    assert (again.code, "is there already; nothing was appended" in again.out) == (0, True), again.err
    assert pinned.path("operator", "list.json").read_bytes() == before
    assert revoke(pinned, *words, "--since", "2026-01-01T00:00:00Z").out.endswith("2 entries\n")


def test_a_missing_folder_is_named_with_what_to_do(pinned: CliLab) -> None:
    pinned.path("operator").rmdir()
    ended = revoke(pinned, "refresh")
    assert (ended.code, "there is no such folder" in ended.complaint) == (78, True), ended.err
    assert "mkdir -p" in ended.err
    pinned.path("operator").mkdir()
    assert revoke(pinned, "refresh").out.endswith("sequence 1, 0 entries\n")
    assert revoke(pinned, "decision", "d" * 32).out.endswith("sequence 2, 1 entry\n")


def test_a_worker_without_the_list_starts_nothing(pinned: CliLab) -> None:
    """Missing, stale or forged by the guard: V12; `doctor` says it before a worker does."""
    path = pinned.path("operator", "list.json")
    decided(pinned)
    assert verified(pinned).complaint[:17] == "policyguard: V12:"
    assert "workers will refuse" in pinned.here("doctor").out
    guard = PrivateKey.from_pem(pinned.path("guard.key").read_bytes())
    for key, at in ((REVOKER, time.time_ns() - DAY_NS - 10**9), (guard, time.time_ns())):
        path.write_bytes(sign_list((), 1, at, key))
        assert verified(pinned).complaint[:17] == "policyguard: V12:"
        assert "workers will refuse" in pinned.here("doctor").out
    path.unlink()
    assert revoke(pinned, "refresh").code == 0
    assert verified(pinned).code == 0
    doctor = pinned.here("doctor", "--json").data
    assert doctor["healthy"]
    assert any("selfIssued: accept" in note for note in doctor["notes"])
    assert not any("revocation" in note or "V12" in note for note in doctor["notes"])


def test_a_list_that_others_signed_is_not_continued(pinned: CliLab) -> None:
    """`revoke` signs nothing on top of a list that it cannot verify."""
    path = pinned.path("operator", "list.json")
    path.write_bytes(sign_list((), 1, time.time_ns() // 1000 * 1000, KEYS["mallory"]))
    before = path.read_bytes()
    ended = revoke(pinned, "decision", "d" * 32)
    assert (ended.code, path.read_bytes()) == (77, before), ended.err
    assert "V12" in ended.complaint


def test_the_doctor_says_that_nothing_can_be_revoked(lab: CliLab) -> None:
    """Without `revocation:` in trust V12 is skipped: a note, and the lab is well."""
    ended = lab.here("doctor")
    assert ended.code == 0
    assert "note  trust.yaml: has no `revocation:`; step V12 is skipped" in ended.out
    refused = lab.here("revoke", "decision", "d" * 32, "--key", "guard.key")
    assert (refused.code, "has no `revocation:`" in refused.complaint) == (78, True)


def test_the_list_is_found_from_any_folder(pinned: CliLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path is relative to the trust file: a list that lies in the job's folder is not read."""
    assert revoke(pinned, "refresh").code == 0
    predicate = decided(pinned)
    elsewhere = pinned.path("job")
    (elsewhere / "operator").mkdir(parents=True)
    empty = pinned.path("operator", "list.json").read_bytes()
    (elsewhere / "operator" / "list.json").write_bytes(empty)
    assert revoke(pinned, "decision", str(predicate["decision_id"])).code == 0
    monkeypatch.chdir(elsewhere)
    words = ("verify", "../signed.json", "--request", "../kill.json", "--trust", "../trust.yaml", "--audience", "local")
    assert pinned.here(*words).complaint[:17] == "policyguard: V12:"
