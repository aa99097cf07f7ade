"""Statements: canonical bytes, every field of the design, nothing sensitive, one form."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, UnsetType

from policyguard.attest.statement import (
    MAX_STATEMENT_BYTES,
    PREDICATE_TYPE,
    decision_statement,
    instant_text,
    parse_statement,
)
from policyguard.errors import VerificationError
from policyguard.model.decision import Decision
from policyguard.model.facts import GRANTS, Assurance, Fact, Facts, claims
from policyguard.model.request import Entity, Request, request_digest
from policyguard.values import MAX_INTEGER, FrozenMap, Value, canonical, digest, format_instant, freeze
from tests.attest_lab import (
    AUDIENCE,
    BOUND,
    EPOCH,
    LIFETIME,
    NOW,
    POLICY_DIGEST,
    REQUEST,
    SECOND,
    StubExplainer,
    decision_of,
    payload_of,
)

GOOD = payload_of(decision_of(allowed=False))


def test_statement_holds_every_field_of_the_design() -> None:
    """The decoded JSON, field by field."""
    data = json.loads(GOOD)
    assert data["_type"] == "https://in-toto.io/Statement/v1"
    assert data["predicateType"] == PREDICATE_TYPE == "urn:policyguard:decision:v1"
    expected_digest = request_digest(REQUEST, BOUND)
    assert data["subject"] == [{"name": "job:team/vision/run-17", "digest": {"sha256": expected_digest}}]
    assert data["predicate"] == {
        "decision_id": "d-1",
        "decision": "deny",
        "mode": "enforcing",
        "reason_codes": ["needs_approval"],
        "determining": ["researchers-submit"],
        "errored": [],
        "requiring": ["large-jobs"],
        "gaps": [
            {
                "quorum": "two-leads",
                "rule": "large-jobs",
                "needed": 1,
                "roles": ["lead"],
                "domain": "vision",
                "because": ["user:alice: requester"],
            }
        ],
        "obligations": ["keep-logs"],
        "requester": "user:alice",
        "action": "job:submit",
        "resource": "job:team/vision/run-17",
        "request_digest": expected_digest,
        "bound": ["resource.code"],
        "facts": {
            "resource.code": {
                "assurance": "measured",
                "source": "git",
                "observed_at": "2026-03-01T09:00:00Z",
                "value": {"commit": "a" * 40, "dirty": False},
            },
            "resource.gpus": {
                "assurance": "claimed",
                "source": "request",
                "observed_at": "2026-03-01T09:00:00Z",
                "value": 8,
            },
            "subject.employment": {
                "assurance": "observed",
                "source": "directory",
                "observed_at": "2026-03-01T08:59:59Z",
                "value": "contractor",
            },
        },
        "missing": {"resource.image": "timed out after 2 s"},
        "approvals": [
            {
                "account": "user:bob",
                "assurance": "attested",
                "source": "sshsig",
                "digest": "cd" * 32,
                "approved_at": "2026-03-01T08:59:59Z",
                "expires": "2026-03-01T09:15:00Z",
            }
        ],
        "grants": [],
        "policy": {"digest": POLICY_DIGEST, "epoch": EPOCH},
        "engine_version": "0.1.0",
        "audience": AUDIENCE,
        "issued_at": "2026-03-01T09:00:00Z",
        "not_before": "2026-03-01T09:00:00Z",
        "expires": "2026-03-01T09:15:00Z",
    }


def test_bytes_are_canonical() -> None:
    """Equal to our canonical form and to that of an RFC 8785 library; parsing gives the same again."""
    assert canonical(json.loads(GOOD)) == rfc8785.dumps(json.loads(GOOD)) == GOOD
    assert parse_statement(GOOD).predicate.decision_id == "d-1"


def fact_statement(value: Value, sensitive: frozenset[str] = frozenset(), **options: Any) -> bytes:
    facts = Facts(REQUEST, {"resource.x": Fact(value, Assurance.OBSERVED, "test", NOW)})
    decision = Decision(True, ("rule.allow",), (), (), (), (), (), facts, NOW, StubExplainer())
    return decision_statement(
        decision,
        REQUEST,
        decision_id="d",
        audience="a",
        issued_at=NOW,
        not_before=NOW,
        expires=NOW + 1,
        sensitive=sensitive,
        **options,
    )


def recorded(payload: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(payload)["predicate"]["facts"]["resource.x"]
    return {name: found[name] for name in found if name not in ("assurance", "observed_at", "source")}


LEAVES = st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(codec="utf-8"), max_size=60)
NAMES = st.text(st.characters(codec="utf-8"), max_size=5)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
).map(freeze)


@given(VALUES)
def test_any_value_is_recorded_canonically(value: Value) -> None:
    """Short values stand as they are, long ones as their digest; the statement stays canonical and reads back."""
    payload = fact_statement(value)
    assert rfc8785.dumps(json.loads(payload)) == payload
    parse_statement(payload)
    if len(canonical(value)) <= 256:
        assert freeze(recorded(payload)["value"]) == value
        assert list(recorded(payload)) == ["value"]
    else:
        assert recorded(payload) == {"digest": digest(value)}


@pytest.mark.parametrize(
    ("value", "longer"),
    [
        ("x" * 254, "x" * 255),
        ("\x00" * 42, "\x00" * 43),
        (("x" * 252,), ("x" * 253,)),
        (FrozenMap({"a": "x" * 248}), FrozenMap({"a": "x" * 249})),
    ],
    ids=["text", "escaped text", "a list", "a map"],
)
def test_a_value_is_recorded_up_to_the_last_byte_that_a_statement_holds(value: Value, longer: Value) -> None:
    """A longer one is recorded as its digest, from which it cannot be read."""
    assert recorded(fact_statement(value)) == {"value": msgspec.json.decode(canonical(value))}
    assert recorded(fact_statement(longer)) == {"digest": digest(longer)}


def test_sensitive_fact_leaves_no_trace() -> None:
    """Invariant I14: neither the value nor its digest, which could be guessed, is in the statement."""
    secret = fact_statement("under investigation", frozenset({"resource.x"}))
    assert recorded(secret) == {"masked": True}
    assert b"investigation" not in secret
    assert digest("under investigation").encode() not in secret
    parse_statement(secret)
    assert recorded(fact_statement("under investigation")) == {"value": "under investigation"}


def test_only_facts_that_mattered_are_recorded() -> None:
    assert json.loads(fact_statement(1, recorded_paths=frozenset()))["predicate"]["facts"] == {}
    assert recorded(fact_statement(1, recorded_paths=frozenset({"resource.x"}))) == {"value": 1}


def edited(change: Callable[[dict[str, Any]], object]) -> bytes:
    data = json.loads(GOOD)
    change(data)
    return canonical(data)


def predicate(**members: Any) -> bytes:
    return edited(lambda data: data["predicate"].update(members))


def fact(**members: Any) -> bytes:
    return edited(lambda data: data["predicate"]["facts"]["resource.gpus"].update(members))


REFUSED: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "V1", "statement"),
    "too large": (b" " * (MAX_STATEMENT_BYTES + 1), "V1", "expected at most 524288"),
    "no object": (b"1", "V1", "expected `object`"),
    "another statement type": (edited(lambda d: d.update(_type="https://in-toto.io/Statement/v0.1")), "V5", "v0.1"),
    "another predicate": (edited(lambda d: d.update(predicateType="x")), "V5", "expected `urn:policyguard:decision"),
    "no predicate type": (edited(lambda d: d.pop("predicateType")), "V1", "missing required field `predicatetype`"),
    "an unknown field": (predicate(extra=1), "V1", "unknown field `extra`"),
    "a missing field": (edited(lambda d: d["predicate"].pop("audience")), "V1", "missing required field `audience`"),
    "a third decision": (predicate(decision="maybe"), "V1", "invalid enum value 'maybe'"),
    "a third mode": (predicate(mode="dry-run"), "V1", "invalid enum value 'dry-run'"),
    "a bool for an epoch": (predicate(policy={"digest": "x", "epoch": True}), "V1", "expected `int`"),
    "no decision id": (predicate(decision_id=""), "V1", "decision_id: found empty text"),
    "an unknown member of the subject": (edited(lambda d: d["subject"][0].update(uri="job:x")), "V1", "unknown field"),
    "another digest beside the request's": (
        edited(lambda d: d["subject"][0]["digest"].update(sha512="0" * 128)),
        "V1",
        "unknown field `sha512`",
    ),
    "a negative epoch": (predicate(policy={"digest": "x", "epoch": -1}), "V1", "policy.epoch: found -1"),
    "a time without zone": (predicate(expires="2026-03-01T09:15:00"), "V1", "expected an rfc 3339 time"),
    "a time in another zone": (
        predicate(expires="2026-03-01T10:15:00+01:00"),
        "V1",
        "a utc time in its canonical form",
    ),
    "a time with idle zeros": (predicate(expires="2026-03-01T09:15:00.000Z"), "V1", "a utc time in its canonical form"),
    "two subjects": (edited(lambda d: d.update(subject=d["subject"] * 2)), "V1", "length"),
    "a subject that is not the request": (
        edited(lambda d: d["subject"][0].update(name="job:other")),
        "V1",
        "subject differs",
    ),
    "a digest that is not the request's": (predicate(request_digest="0" * 64), "V1", "subject differs"),
    "a fact with value and digest": (fact(digest="0" * 64), "V1", "exactly one of `value`, `digest` and `masked`"),
    "a fact with neither": (
        edited(lambda d: d["predicate"]["facts"]["resource.gpus"].pop("value")),
        "V1",
        "exactly one",
    ),
    "a float": (GOOD.replace(b'"value":8', b'"value":8.5'), "V1", "found a float"),
    "a null": (fact(value=None), "V1", "found null"),
    "an integer beyond 2^53": (fact(value=2**53), "V1", "beyond 2"),
    "spaces": (json.dumps(json.loads(GOOD), sort_keys=True).encode(), "V1", "canonical form"),
    "an unknown field first": (GOOD.replace(b'"_type"', b'"a":1,"_type"'), "V1", "unknown field"),
    "a field twice": (GOOD[:-1] + b',"predicateType":"urn:policyguard:decision:v1"}', "V1", "canonical form"),
    "nested without end": (b'{"_type":' * 100_000, "V1", "statement"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_malformed_statement_is_refused(case: str) -> None:
    """Step V1 or V5, with one line that says what was expected. Invariants I5 and I11."""
    data, step, wording = REFUSED[case]
    with pytest.raises(VerificationError) as caught:
        parse_statement(data)
    assert (step, wording in caught.value.message) == (caught.value.step, True), caught.value.message
    assert "\n" not in caught.value.message
    parse_statement(GOOD)


def test_a_statement_at_its_limits_is_read() -> None:
    """The twins: as many bytes as a statement may have, and the first and the last epoch."""
    padding = "x" * (MAX_STATEMENT_BYTES - len(predicate(audience="")))
    assert len(predicate(audience=padding)) == MAX_STATEMENT_BYTES
    assert parse_statement(predicate(audience=padding)).predicate.audience == padding
    for epoch in (0, MAX_INTEGER):
        assert parse_statement(predicate(policy={"digest": "x", "epoch": epoch})).predicate.policy.epoch == epoch
    with pytest.raises(VerificationError, match=r"V1: .*epoch"):
        parse_statement(predicate(policy={"digest": "x", "epoch": MAX_INTEGER + 1}))


GRANT = FrozenMap({"grant_id": "g-1"})


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ((GRANT, GRANT, FrozenMap({"grant_id": "a"})), ("a", "g-1")),
        ((), ()),
        ((GRANT, "g-2"), UNSET),
        ((GRANT, FrozenMap({"id": "g-2"})), UNSET),
        ((GRANT, FrozenMap({"grant_id": 2})), UNSET),
        ("g-1", UNSET),
        ("", UNSET),
        (FrozenMap({}), UNSET),
        (2, UNSET),
    ],
    ids=["two", "none", "a text", "no id", "a number for an id", "text", "empty text", "an empty map", "a number"],
)
def test_a_statement_names_all_its_grants_or_says_nothing(value: Value, named: tuple[str, ...] | UnsetType) -> None:
    """A list with one grant left out would let a decision outlive the revocation of that grant."""
    facts = Facts(REQUEST, {GRANTS: Fact(value, Assurance.ATTESTED, "grants", NOW)})
    decision = msgspec.structs.replace(decision_of(), facts=facts)
    assert parse_statement(payload_of(decision)).predicate.grants == named
    assert parse_statement(payload_of(decision, sensitive=frozenset({GRANTS}))).predicate.grants is UNSET


def test_predicate_is_no_truth_value() -> None:
    with pytest.raises(TypeError, match=r"use `\.allowed`"):
        bool(parse_statement(GOOD).predicate)
    assert not parse_statement(GOOD).predicate.allowed


@given(st.integers(0, 4_000_000_000 * SECOND))
def test_time_texts_are_those_of_values(instant: int) -> None:
    """The remembered spelling is the one `format_instant` gives."""
    assert instant_text(instant) == format_instant(instant)


def test_non_ascii_paths_and_names_stay_canonical() -> None:
    """Names beyond ASCII, and beyond the basic plane, keep RFC 8785's order."""
    request = Request.of("user:ал", "job:submit", "job:\U0001f600", context={"\ufb33": 1, "\U0001f600": 2})
    entries = claims(request, NOW)
    entries["resource.x"] = Fact(FrozenMap({"\ufb33": 1, "\U0001f600": 2}), Assurance.CLAIMED, "é", NOW)
    decision = Decision(True, ("rule.allow",), (), (), (), (), (), Facts(request, entries), NOW, StubExplainer())
    payload = decision_statement(
        decision, request, decision_id="d", audience="é", issued_at=NOW, not_before=NOW, expires=NOW + LIFETIME
    )
    assert rfc8785.dumps(json.loads(payload)) == payload
    parse_statement(payload)
    assert request_digest(request) == digest({"request": request.to_data(), "bound": {}})


def test_bytes_that_are_no_utf8_anywhere_are_refused_at_v1() -> None:
    """A statement with a raw fact value that is not UTF-8 is refused, found by the fuzzer."""
    hostile = GOOD.replace(b'"value":8', b'"value":"\xe3("')
    assert hostile != GOOD
    with pytest.raises(VerificationError, match="V1: statement"):
        parse_statement(hostile)


@given(
    st.dictionaries(st.text(max_size=5), st.integers(-5, 5) | st.text(max_size=3) | st.booleans(), max_size=4),
    st.dictionaries(st.text(max_size=5), st.lists(st.text(max_size=3), max_size=2), max_size=3),
    st.text(max_size=3),
)
def test_request_digest_is_over_the_one_encoding(
    properties: dict[str, Value], context: dict[str, Value], tail: str
) -> None:
    """The encoder that knows a request's shape and RFC 8785 arrive at the same digest."""
    request = Request(
        Entity("user", "alice" + tail), "job:submit", Entity("job", "j", FrozenMap(properties)), FrozenMap(context)
    )
    bound: dict[str, Value] = {"resource.code": FrozenMap(properties), "context.x" + tail: 1}
    assert request_digest(request, bound) == digest({"bound": bound, "request": request.to_data()})
