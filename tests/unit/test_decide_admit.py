"""Admission: what counts of the facts; a weak or old one is absent with its reason, a wrong one is no request."""

from __future__ import annotations

from typing import Any

import pytest

from policyguard.decide.admit import Gate, Malformed
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.policy import Attribute, EntityType, Schema, ValueType
from policyguard.model.request import Request
from policyguard.values import freeze

NOW = 1_800_000_000 * 10**9
SECOND = 10**9
INT, BOOL, TEXT = ValueType(kind="int"), ValueType(kind="bool"), ValueType(kind="string")
JOB = EntityType(
    name="job",
    id_pattern="team/{team}/**",
    actions=("job:submit",),
    attributes={
        "gpus": Attribute(name="gpus", type=INT),
        "queue": Attribute(name="queue", type=TEXT, enum=("prod", "dev")),
        "clean": Attribute(name="clean", type=BOOL, assurance=Assurance.MEASURED),
        "fresh": Attribute(name="fresh", type=INT, max_age_s=60),
        "tags": Attribute(name="tags", type=ValueType(kind="list", element=TEXT)),
        "until": Attribute(name="until", type=ValueType(kind="timestamp")),
        "code": Attribute(name="code", type=ValueType(kind="record", record="code")),
    },
)
SCHEMA = Schema(
    subjects={"user": EntityType(name="user")},
    resources={"job": JOB},
    records={"code": {"commit": Attribute(name="commit", type=TEXT)}},
)
GATE = Gate(SCHEMA, SCHEMA.subjects["user"], JOB)


def facts(assurance: Assurance = Assurance.CLAIMED, observed_at: int = NOW, **values: Any) -> Facts:
    entries = {
        f"resource.{name}": Fact(freeze(value), assurance, "test", observed_at) for name, value in values.items()
    }
    return Facts(Request.of("user:alice", "job:submit", "job:team/vision/run-17"), entries)


def test_what_fits_is_admitted() -> None:
    """Attributes arrive as conditions read them, beside the names every entity has."""
    admitted = GATE.admit(facts(gpus=8, queue="dev", tags=["a"], code={"commit": "c"}), NOW)
    assert admitted.resource == {
        "id": "team/vision/run-17", "type": "job", "domain": "vision", "gpus": 8, "queue": "dev", "tags": ("a",),
        "code": {"commit": "c"},
    }  # fmt: skip
    assert (admitted.subject["id"], admitted.domain, admitted.weak) == ("user:alice", "vision", None)


def test_times_become_instants() -> None:
    """A timestamp is nanoseconds for conditions, whatever zone it was written in."""
    for text in ("2027-01-15T08:00:00Z", "2027-01-15T09:00:00+01:00"):
        assert GATE.admit(facts(until=text), NOW).resource["until"] == NOW


WRONG = {
    "text for an integer": ({"gpus": "8"}, "$.resource.properties.gpus", "found text, expected an integer"),
    "a bool for an integer": ({"gpus": True}, "$.resource.properties.gpus", "found a bool"),
    "an integer for a bool": ({"clean": 1}, "$.resource.properties.clean", "found an integer"),
    "a word that is not in the list": ({"queue": "Prod"}, "$.resource.properties.queue", "found `Prod`, expected one"),
    "text for a list": ({"tags": "a"}, "$.resource.properties.tags", "found text"),
    "an integer in a list of text": ({"tags": ["a", 1]}, "$.resource.properties.tags[1]", "found an integer"),
    "a time without a zone": ({"until": "2027-01-15T08:00:00"}, "$.resource.properties.until", "expected"),
    "text for a record": ({"code": "c"}, "$.resource.properties.code", "found text"),
    "a record with more than it has": ({"code": {"commit": "c", "x": 1}}, "$.resource.properties.code", "x"),
    "an attribute nobody knows": ({"gpu": 8}, "$.resource.properties", "unknown attribute `gpu`, did you mean `gpus`"),
}


@pytest.mark.parametrize(("values", "path", "said"), WRONG.values(), ids=list(WRONG))
def test_what_does_not_fit_is_named(values: dict[str, Any], path: str, said: str) -> None:
    """The path leads to it and the message says what was found and what was expected."""
    with pytest.raises(Malformed) as caught:
        GATE.admit(facts(**values), NOW)
    assert caught.value.path.startswith(path)
    assert said in caught.value.message


@pytest.mark.parametrize("assurance", list(Assurance))
def test_a_claim_is_not_a_fact(assurance: Assurance) -> None:
    """I1: below what the schema asks an attribute is absent, and the reason says what it is only."""
    admitted = GATE.admit(facts(assurance, clean=True), NOW)
    if assurance >= Assurance.MEASURED:
        assert admitted.resource["clean"] is True
    else:
        assert "clean" not in admitted.resource
        assert admitted.weak == {"resource.clean": f"present but only {assurance.word}, measured counts"}


@pytest.mark.parametrize(("age_s", "counts"), [(0, True), (60, True), (61, False), (-1, False)])
def test_facts_grow_old(age_s: int, counts: bool) -> None:
    """With `maxAge` a fact counts up to its age; one of the future does not count at all."""
    admitted = GATE.admit(facts(observed_at=NOW - age_s * SECOND, fresh=1), NOW)
    assert ("fresh" in admitted.resource) is counts
    assert (admitted.weak is None) is counts


def test_a_record_may_lack_a_field() -> None:
    """What a record does not hold is absent, an error only where a condition reads it."""
    assert GATE.admit(facts(code={}), NOW).resource["code"] == {}


def test_a_platform_may_know_more_than_the_schema() -> None:
    """What a collector saw and the schema does not name is left out; only a claim of it is an error."""
    assert "extra" not in GATE.admit(facts(Assurance.MEASURED, extra=1), NOW).resource
    with pytest.raises(Malformed):
        GATE.admit(facts(Assurance.CLAIMED, extra=1), NOW)


@pytest.mark.parametrize("identifier", ["vision/run-17", "team", "teams/vision/run-17"])
def test_an_id_fits_its_type(identifier: str) -> None:
    """An id that its type's pattern does not match is no request."""
    asked = Facts(Request.of("user:alice", "job:submit", f"job:{identifier}"))
    with pytest.raises(Malformed) as caught:
        GATE.admit(asked, NOW)
    assert caught.value.path == "$.resource.id"
