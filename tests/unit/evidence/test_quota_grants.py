"""Quotas and grants: what a provider or a lead says counts as old, as large and for whom it says so."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from policyguard.attest.dsse import sign
from policyguard.attest.keys import PrivateKey
from policyguard.config.measurement import NOTHING_CONFIGURED, with_section
from policyguard.errors import ConfigurationError
from policyguard.evidence.collector import JobInputs, gather
from policyguard.evidence.gpu_grants import GRANT_TYPE, MAX_GRANT_BYTES, MAX_GRANTS, GrantCollector, sign_grant
from policyguard.evidence.quota import LIMIT, USAGE, QuotaCollector
from policyguard.model.facts import GRANTS, Assurance, Facts
from policyguard.model.request import Request
from policyguard.values import FrozenMap, Value, parse_instant

REQUEST = Request.of("user:ivan", "job:submit", "job:team/vision/run-1", gpus=64)
NOW = parse_instant("2030-03-07T12:00:00Z")
LEAD, OTHER = PrivateKey.generate(b"\1" * 32), PrivateKey.generate(b"\2" * 32)
QUOTA = {"observed_at": "2030-03-07T11:59:00Z", "teams": {"vision": {"limit": 512, "used": 448}}}


def quota(folder: Path, data: object, request: Request = REQUEST) -> Facts:
    path = folder / "quota.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return gather(request, [QuotaCollector(file=str(path))], JobInputs(), lambda: NOW)


def test_a_quota_is_observed_and_as_old_as_it_says(tmp_path: Path) -> None:
    """I1: limit and use carry the provider's time, so that the schema's `maxAge` means something."""
    facts = quota(tmp_path, QUOTA)
    assert (facts.entries[LIMIT].value, facts.entries[USAGE].value) == (512, 448)
    assert {facts.entries[path].observed_at for path in (LIMIT, USAGE)} == {parse_instant("2030-03-07T11:59:00Z")}
    assert facts.entries[LIMIT].assurance is Assurance.OBSERVED
    assert facts.bound == {}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({**QUOTA, "observed_at": "2030-03-07T12:01:00Z"}, "in the future"),
        ({**QUOTA, "observed_at": "yesterday"}, "quotas:"),
        ({**QUOTA, "teams": {}}, "no quota is known of the team `vision`"),
        ({**QUOTA, "teams": {"vision": {"limit": -1, "used": 0}}}, "out of range"),
        ({**QUOTA, "teams": {"vision": {"limit": "512", "used": 0}}}, "quotas:"),
        ({**QUOTA, "note": "x"}, "quotas:"),
        ("", "quotas:"),
    ],
)
def test_what_is_no_quota_is_an_absent_fact(tmp_path: Path, data: object, why: str) -> None:
    """A quota that cannot be read is missing with its reason; the request's own claim does not stand in."""
    facts = quota(tmp_path, data)
    assert LIMIT not in facts.entries
    assert why in str(facts.missing[LIMIT])


def test_a_command_may_say_it() -> None:
    """The scheduler's command is run without a shell; one that fails leaves the facts absent."""
    program = f"print({json.dumps(QUOTA)!r})"
    facts = gather(REQUEST, [QuotaCollector(command=(sys.executable, "-c", program))], JobInputs(), lambda: NOW)
    assert facts.entries[USAGE].value == 448
    facts = gather(REQUEST, [QuotaCollector(command=(sys.executable, "-c", "exit(3)"))], JobInputs(), lambda: NOW)
    assert "ended with status 3" in str(facts.missing[USAGE])


def grants(folder: Path) -> tuple[Value, ...]:
    facts = gather(REQUEST, [GrantCollector(str(folder), [LEAD.public])], JobInputs(), lambda: NOW)
    found = facts.entries[GRANTS].value
    assert isinstance(found, tuple)
    return found


def put(folder: Path, name: str, *, subject: str = "user:ivan", key: PrivateKey = LEAD) -> None:
    expires = parse_instant("2030-03-08T18:00:00Z")
    (folder / f"{name}.json").write_bytes(sign_grant(grant_id=name, subject=subject, gpus=64, expires=expires, key=key))


def test_a_leads_grant_counts(tmp_path: Path) -> None:
    """A grant signed by a pinned key is supplied to its subject, as attested."""
    put(tmp_path, "grant-7")
    assert grants(tmp_path) == (
        FrozenMap(grant_id="grant-7", subject="user:ivan", gpus=64, expires="2030-03-08T18:00:00Z"),
    )


def test_grants_of_others_by_others_or_changed_do_not(tmp_path: Path) -> None:
    """I9: one for somebody else, one signed by the wrong key, one with a changed number and rubbish are none."""
    put(tmp_path, "for-bob", subject="user:bob")
    put(tmp_path, "by-himself", key=OTHER)
    put(tmp_path, "changed")
    path = tmp_path / "changed.json"
    envelope = json.loads(path.read_text())
    envelope["payload"] = envelope["payload"][:-8] + "AAAAAAAA"
    path.write_text(json.dumps(envelope))
    (tmp_path / "rubbish.json").write_text("{")
    assert grants(tmp_path) == ()


GRANT: dict[str, object] = {
    "expires": "2030-03-08T18:00:00Z",
    "gpus": 64,
    "grant_id": "g",
    "subject": "user:ivan",
    "version": 1,
}
SIGNED: dict[str, tuple[object, str]] = {
    "for another purpose": (GRANT, "application/vnd.policyguard.manifest+json"),
    "of another version": ({**GRANT, "version": 2}, GRANT_TYPE),
    "of fewer GPUs than none": ({**GRANT, "gpus": -1}, GRANT_TYPE),
    "of more GPUs than a number may be": ({**GRANT, "gpus": 2**53}, GRANT_TYPE),
    "without a time that can be read": ({**GRANT, "expires": "tomorrow"}, GRANT_TYPE),
    "with a member more": ({**GRANT, "note": "x"}, GRANT_TYPE),
    "in another form": (json.dumps(GRANT, indent=1), GRANT_TYPE),
    "that leaves the version out": ({name: GRANT[name] for name in GRANT if name != "version"}, GRANT_TYPE),
    "that is a list": ([], GRANT_TYPE),
    "that is no text": (b"\xff", GRANT_TYPE),
}


def put_signed(folder: Path, payload: object, kind: str) -> None:
    text = payload if isinstance(payload, str | bytes) else json.dumps(payload, separators=(",", ":"))
    raw = text.encode() if isinstance(text, str) else text
    (folder / "g.json").write_bytes(sign(raw, kind, (LEAD,)).to_bytes())


@pytest.mark.parametrize(("payload", "kind"), SIGNED.values(), ids=SIGNED)
def test_what_a_lead_signed_is_a_grant_only_as_a_whole(payload: object, kind: str, tmp_path: Path) -> None:
    """I9: a right signature over anything but a grant in its canonical form raises nothing; the twin is one."""
    put_signed(tmp_path, payload, kind)
    assert grants(tmp_path) == ()
    put_signed(tmp_path, GRANT, GRANT_TYPE)
    assert len(grants(tmp_path)) == 1


@pytest.mark.parametrize("gpus", [0, 2**53 - 1])
def test_a_grant_holds_any_count(gpus: int, tmp_path: Path) -> None:
    """From none to the largest number that facts hold."""
    put_signed(tmp_path, {**GRANT, "gpus": gpus}, GRANT_TYPE)
    assert [dict(each)["gpus"] for each in grants(tmp_path) if isinstance(each, FrozenMap)] == [gpus]


def test_grants_are_sorted_and_other_files_are_none(tmp_path: Path) -> None:
    """By their ids, whatever their files are called; only `.json` counts."""
    for name, grant in (("a", "g-2"), ("b", "g-1")):
        expires = parse_instant(str(GRANT["expires"]))
        data = sign_grant(grant_id=grant, subject="user:ivan", gpus=1, expires=expires, key=LEAD)
        (tmp_path / f"{name}.json").write_bytes(data)
        (tmp_path / f"{name}.bak").write_bytes(data)
    assert [each["grant_id"] for each in grants(tmp_path) if isinstance(each, FrozenMap)] == ["g-1", "g-2"]


def test_a_file_that_is_too_large_takes_no_grant_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is none itself; and without a folder the folder we stand in is not looked at, whatever it holds."""
    put(tmp_path, "grant-7")
    (tmp_path / "large.json").write_bytes(b" " * (MAX_GRANT_BYTES + 1))
    assert len(grants(tmp_path)) == 1
    monkeypatch.chdir(tmp_path)
    facts = gather(REQUEST, [GrantCollector(None, [LEAD.public])], JobInputs(), lambda: NOW)
    assert facts.entries[GRANTS].value == ()


def test_grants_that_cannot_be_read_are_a_gap(tmp_path: Path) -> None:
    """A folder that is not there, or holds too many, gives no fact, and the reason says which."""
    missing = tmp_path / "missing"
    for folder, why in ((missing, "no such file"), (tmp_path, f"found {MAX_GRANTS + 1} grants")):
        for number in range(MAX_GRANTS + 1):
            (tmp_path / f"{number}.json").touch()
        facts = gather(REQUEST, [GrantCollector(str(folder), [LEAD.public])], JobInputs(), lambda: NOW)
        assert GRANTS not in facts.entries
        assert why in str(facts.missing[GRANTS])
    (tmp_path / "0.json").unlink()
    assert grants(tmp_path) == ()


def test_without_a_folder_nobody_was_granted_anything() -> None:
    """Where the operator names nobody who may grant, there are no grants, which is a fact and no gap."""
    facts = gather(REQUEST, [GrantCollector()], JobInputs(), lambda: NOW)
    assert facts.entries[GRANTS].value == ()


KEY = LEAD.public.text


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("environment", "x", "expected a map"),
        ("environment", FrozenMap(baseline="b"), "`keys` is missing"),
        ("environment", FrozenMap(baseline="b", keys=()), "at least one"),
        ("environment", FrozenMap(baseline="b", keys=(KEY,), threshold=2), "expected 1 to 1"),
        ("environment", FrozenMap(baseline="b", keys=(KEY,), threshold=0), "expected 1 to 1"),
        ("environment", FrozenMap(baseline="b", keys=("ed25519:x",)), "no public key"),
        ("environment", FrozenMap(baseline="b", keys=(KEY,), kache="x"), "unknown field `kache`"),
        ("checkpoints", FrozenMap(producers=("x",)), "expected a map of"),
        ("checkpoints", FrozenMap(classes=("Settings",)), "expected MODULE.NAME"),
        ("quota", FrozenMap(), "expected one of"),
        ("quota", FrozenMap(file="a", command=("b",)), "expected one of"),
        ("quota", FrozenMap(command="date"), "expected a list"),
        ("quota", FrozenMap(by="resource.domain"), "expected one of"),
        ("quota", FrozenMap(reserve="resource.gpus", file="a", command=("b",)), "expected one of"),
        ("quota", FrozenMap(file="a", reserves="resource.gpus"), "unknown field `reserves`"),
        ("quota", FrozenMap(file="a", reserve="gpus"), "expected a path such as `resource.gpus`"),
        ("quota", FrozenMap(file="a", reserve=8), "expected text"),
        ("quota", FrozenMap(file="a", reserve="resource.gpus", by="resource.queue"), "expected `resource.domain`"),
        ("grants", FrozenMap(folder="g"), "`keys` is missing"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(name: str, data: Value, why: str) -> None:
    """I10 among them: no threshold below one and none above the number of keys."""
    with pytest.raises(ConfigurationError, match=why):
        with_section(NOTHING_CONFIGURED, name, data, Path("policyguard.yaml"))


def test_sections_are_read_relative_to_their_file() -> None:
    """Paths lie beside the configuration; keys are read; what is not said stays empty."""
    source = Path("/lab/policyguard.yaml")
    looks = with_section(NOTHING_CONFIGURED, "environment", FrozenMap(baseline="b.json", keys=(KEY,)), source)
    looks = with_section(
        looks, "checkpoints", FrozenMap(producers=FrozenMap({"service:a": (KEY,)}), classes=("a.b.C",)), source
    )
    assert looks.environment is not None
    assert looks.environment.baseline == Path("/lab/b.json")
    assert looks.environment.keys == (LEAD.public,)
    assert looks.checkpoints.producers == {"service:a": (LEAD.public,)}
    assert looks.checkpoints.classes == {("a.b", "C")}
    assert looks.quota is None
