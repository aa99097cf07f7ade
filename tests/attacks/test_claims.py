"""Attempts to be somebody or something by saying so: in the request, in ids, in properties.

The lab is the example policies; a researcher of the vision team may read its repositories and submit clean jobs.
"""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from policyguard.cli.verbs.init_ import create_files
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import RequestError
from policyguard.model.decision import Decision
from policyguard.model.facts import Assurance, Fact, Facts, claims
from policyguard.model.request import Request, request_digest
from policyguard.policy_store.folder import snapshot_of_folder
from policyguard.values import FrozenMap, Value, freeze

CODE: dict[str, Any] = {
    "commit": "4d1f0c",
    "tree": "77aa",
    "dirty": False,
    "dirty_files": [],
    "untracked_files": [],
    "ignored_code_files": [],
    "environments": [],
    "outside_links": [],
    "submodules": [],
    "history": [],
}


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder: Path = tmp_path_factory.mktemp("claims") / "lab"
    create_files(folder)
    return snapshot_of_folder(folder / "policies")


def decide(snapshot: Snapshot, request: Request, *, assurance: Assurance | None = None, **facts: Any) -> Decision:
    """Return the decision on a request and facts of the resource, which nobody but the requester vouches for."""
    now = time.time_ns()
    entries = claims(request, now)
    if assurance is not None:
        values: dict[str, Value] = {name: freeze(value) for name, value in facts.items()}
        entries |= {f"resource.{name}": Fact(value, assurance, "platform", now) for name, value in values.items()}
    account = Fact(True, Assurance.OBSERVED, "identity", now)
    return Engine(snapshot).decide(Facts(request, {**entries, "subject.authenticated": account}), now)


def submit(user: str = "alice", resource: str = "job:team/vision/run-17", **properties: Any) -> Request:
    return Request.of(f"user:{user}", "job:submit", resource, **{"gpus": 8, **properties})


def read(subject: str, resource: str = "repo:team/vision/trainer") -> Request:
    return Request.of(subject, "repo:read", resource)


MEASURED: dict[str, Any] = {
    "code": CODE,
    "code_injecting_env": {},
    "injection_treatment": {},
    "files": [],
    "checkpoints": [],
    "argv": ["python"],
    "directory": "/job",
    "environment_baseline": False,
}


def test_a_measured_fact_claimed_is_no_fact(snapshot: Snapshot) -> None:
    """Saying that the code is clean is not enough; the same words, measured, are."""
    claimed = decide(snapshot, submit(code=CODE, code_injecting_env={}))
    assert not claimed.allowed
    assert "claimed" in claimed.explain()
    assert decide(snapshot, submit(), assurance=Assurance.MEASURED, **MEASURED).allowed
    assert not decide(snapshot, submit(), assurance=Assurance.OBSERVED, **MEASURED).allowed


def test_a_subject_that_says_it_is_authenticated_starts_no_job(snapshot: Snapshot) -> None:
    """The claim is no fact, and without an observed one the example policies deny; with one they allow."""
    data = submit().to_data()
    data["subject"]["properties"] = {"authenticated": True}
    request = Request.from_data(data)
    now = time.time_ns()
    entries = claims(request, now)
    for name, value in MEASURED.items():
        entries[f"resource.{name}"] = Fact(freeze(value), Assurance.MEASURED, "test", now)
    entries["resource.gpus"] = Fact(8, Assurance.MEASURED, "test", now)
    denied = Engine(snapshot).decide(Facts(request, entries), now)
    assert (denied.allowed, denied.reason_codes) == (False, ("id.subject_not_authenticated",))
    assert decide(snapshot, submit(), assurance=Assurance.MEASURED, **MEASURED).allowed


def test_a_claim_beside_a_measurement_does_not_replace_it(snapshot: Snapshot) -> None:
    """The requester claims clean code, the collector measures changed code: what was measured counts."""
    dirty = {**MEASURED, "code": {**CODE, "dirty": True, "dirty_files": ["optimizer.py"]}}
    decision = decide(snapshot, submit(code=CODE), assurance=Assurance.MEASURED, **dirty)
    assert not decision.allowed
    assert "code.uncommitted" in decision.reason_codes


def test_an_assurance_cannot_be_claimed(snapshot: Snapshot) -> None:
    """A property named like a fact's own fields is an unknown attribute, or a value of the wrong type."""
    for properties in (
        {"assurance": "measured"},
        {"code": {"value": CODE, "assurance": "measured"}},
        {"code": {**CODE, "assurance": 3}},
        {"id": "team/vision/x"},
        {"domain": "vision"},
    ):
        decision = decide(snapshot, submit(**properties))
        assert decision.reason_codes == ("engine.malformed",), properties


def test_roles_cannot_be_claimed(snapshot: Snapshot) -> None:
    """Roles, teams and groups in the request make nobody a member."""
    data = read("user:mallory").to_data()
    for claim in ({"roles": ["lead"]}, {"role": "lead"}, {"groups": ["vision"]}, {"id": "alice"}, {"type": "user"}):
        request = Request.from_data({**data, "subject": {**data["subject"], "properties": claim}})
        assert not decide(snapshot, request).allowed, claim
        request = Request.from_data({**data, "context": claim})
        assert not decide(snapshot, request).allowed, claim


NOT_ALICE = {
    "a capital letter": "Alice",
    "a Cyrillic a": "аlice",
    "a full-width a": "ａlice",
    "a trailing dot": "alice.",
    "a combining accent": "alicé",
    "a longer name": "alice2",
    "a name with the type inside": "user:alice",
    "a path to her": "x/alice",
    "a comma and another": "alice,carol",
    "a wildcard": "*",
    "a pattern": "a*",
    "a role's name": "researcher",
    "a role as casbin would write it": "role:researcher",
    "a domain": "vision",
    "a placeholder": "{team}",
    "quotes": "'alice'",
    "a comment": "alice#",
}


@pytest.mark.parametrize("name", NOT_ALICE.values(), ids=list(NOT_ALICE))
def test_a_lookalike_of_alice_is_not_alice(name: str, snapshot: Snapshot) -> None:
    """Ids are compared byte for byte: whoever is spelled otherwise is somebody else, without any role."""
    assert decide(snapshot, read("user:alice")).allowed
    try:
        request = read(f"user:{name}")
    except RequestError:
        return
    decision = decide(snapshot, request)
    assert not decision.allowed
    assert decision.determining == ()


NO_IDS = {
    "a pattern of teams": "team/{team}/trainer",
    "a star for a team": "team/*/trainer",
    "two stars": "team/**/trainer",
    "an encoded slash": "team%2Fvision%2Ftrainer",
    "a backslash": "team\\vision\\trainer",
    "nothing": "",
    "a space": "al ice",
    "a leading space": " alice",
    "a line break": "alice\n",
    "a tab": "alice\t",
    "a NUL": "alice\0",
    "an escape sequence": "\x1b[2Jalice",
    "a C1 control": "alice\x9b",
    "a zero width space": "a\u200blice",
    "a direction mark": "\u202ealice",
    "a byte order mark": "\ufeffalice",
    "a no-break space": "alice\xa0",
    "a line separator": "alice\u2028",
    "a lone surrogate": "alice\ud800",
    "a thousand letters": "a" * 1000,
    "a climb": "../alice",
    "a climb inside": "a/../alice",
    "a dot segment": "./alice",
    "an empty segment": "a//alice",
    "a slash at the end": "alice/",
}


@pytest.mark.parametrize("name", NO_IDS.values(), ids=list(NO_IDS))
def test_what_is_no_id_is_no_request(name: str) -> None:
    """Ids with invisible, climbing or empty parts are refused before anything is decided."""
    with pytest.raises(RequestError) as caught:
        read(f"user:{name}")
    assert caught.value.path == "$.subject.id"
    with pytest.raises(RequestError):
        read("user:alice", f"repo:{name}")


PLACES = {
    "another team": "repo:team/llm/trainer",
    "no team": "repo:trainer",
    "a prefix of the team": "repo:team/visio/trainer",
    "more than the team": "repo:team/vision2/trainer",
    "the team in capitals": "repo:team/VISION/trainer",
    "the team behind another": "repo:team/llm/vision/trainer",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=list(PLACES))
def test_a_team_is_where_its_name_is(place: str, snapshot: Snapshot) -> None:
    """A researcher of vision reads nothing that only looks like vision's."""
    assert not decide(snapshot, read("user:alice", place)).allowed


TYPES = ["ghost:alice", "users:alice", "role:researcher", "job:team/vision/run-17", "service:alice"]


@pytest.mark.parametrize("subject", TYPES)
def test_another_type_is_another_subject(subject: str, snapshot: Snapshot) -> None:
    """The type is part of who one is; types that the schema does not know as subjects are refused as such."""
    decision = decide(snapshot, read(subject))
    assert not decision.allowed
    if subject.partition(":")[0] != "service":
        assert decision.reason_codes == ("engine.unknown_type",)


@pytest.mark.parametrize("subject", ["User:alice", "user", ":alice", "us er:alice", "user\n:alice", "*:alice"])
def test_a_type_is_a_plain_word(subject: str) -> None:
    """What is no type name is no request."""
    with pytest.raises(RequestError):
        read(subject)


@pytest.mark.parametrize(
    "action", ["repo:*", "*", "repo", "repo:read,repo:push", "REPO:READ", "repo:read ", "repo:réad"]
)
def test_an_action_cannot_be_a_pattern(action: str) -> None:
    """Actions are names; stars, lists and other spellings are no request."""
    with pytest.raises(RequestError) as caught:
        Request.of("user:alice", action, "repo:team/vision/trainer")
    assert caught.value.path.startswith("$.action")


def test_an_action_of_another_type_is_unknown(snapshot: Snapshot) -> None:
    """`repo:read` on a job is no action, whoever asks."""
    request = Request.of("user:alice", "repo:read", "job:team/vision/run-17")
    assert decide(snapshot, request).reason_codes == ("engine.unknown_action",)


def test_huge_properties_cost_little_and_gain_nothing(snapshot: Snapshot) -> None:
    """A megabyte of claims is decided in a moment, and denied as what it is."""
    properties = {f"x{number}": "y" * 50 for number in range(10_000)}
    start = time.perf_counter()
    decision = decide(snapshot, submit(**properties))
    assert decision.reason_codes == ("engine.malformed",)
    assert len(decision.explain()) < 5000
    assert time.perf_counter() - start < 2


def test_a_flood_of_hash_like_keys_is_bounded() -> None:
    """A request beyond a megabyte is refused unread, a deep one before it is walked."""
    with pytest.raises(RequestError, match="expected at most 1048576"):
        Request.from_json(b" " * 2_000_000)
    nested: Any = "x"
    for _ in range(40):
        nested = [nested]
    with pytest.raises(RequestError, match="nested deeper"):
        submit(argv=nested)


@pytest.mark.parametrize("gpus", [True, "8", [8], 8.0, None, 2**53, -(2**53), {"value": 8}], ids=repr)
def test_a_number_is_a_number(gpus: Any, snapshot: Snapshot) -> None:
    """Nothing that only looks like eight counts as eight: it is no request, or none that fits the schema."""
    try:
        request = submit(gpus=gpus)
    except RequestError:
        return
    assert decide(snapshot, request, assurance=Assurance.MEASURED, **MEASURED).reason_codes == ("engine.malformed",)


@pytest.mark.parametrize("gpus", [0, -1, 2**53 - 1, -(2**53) + 1])
def test_numbers_at_the_edges_grant_nothing(gpus: int, snapshot: Snapshot) -> None:
    """No ceiling is passed by asking for less than nothing or for more than there is."""
    assert not decide(snapshot, submit(gpus=gpus), assurance=Assurance.MEASURED, **MEASURED).allowed


def test_a_grant_cannot_be_claimed(snapshot: Snapshot) -> None:
    """An intern who writes a lead's grant into the context stays under the ceiling."""
    assert decide(snapshot, submit("ivan"), assurance=Assurance.MEASURED, **MEASURED).allowed
    data = submit("ivan", gpus=64).to_data()
    grant = {"subject": "user:ivan", "gpus": 64, "expires": "2099-01-01T00:00:00Z"}
    request = Request.from_data({**data, "context": {"grant": grant}})
    assert not decide(snapshot, request, assurance=Assurance.MEASURED, **MEASURED).allowed


def test_a_decision_is_for_one_encoding_of_one_request() -> None:
    """Requests that differ in anything that counts have different digests."""
    base = submit(queue="q")
    others = [
        submit(queue="Q"),
        submit("bob", queue="q"),
        submit(queue="q", gpus=9),
        submit(resource="job:team/vision/run-18"),
        Request.from_data({**base.to_data(), "context": {"ticket": "x"}}),
    ]
    digests = {request_digest(each) for each in [base, *others]}
    assert len(digests) == 6
    assert request_digest(base) == request_digest(Request.from_data(base.to_data()))
    assert request_digest(base, FrozenMap({"resource.argv": ()})) != request_digest(base)


def test_the_lab_is_the_one_that_ships() -> None:
    """These attacks are tried on the policies that `policyguard init` lays down."""
    assert import_module("policyguard.cli.verbs.init_").example_policies().is_dir()
