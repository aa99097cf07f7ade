"""Admission: what counts of the facts; a weak or old one is absent with its reason, a wrong one is no request."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from policyguard.decide.admission import FactAdmission
from policyguard.decide.conversion import Malformed
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
GATE = FactAdmission(SCHEMA, SCHEMA.subjects["user"], JOB)


def facts(assurance: Assurance = Assurance.CLAIMED, observed_at: int = NOW, **values: Any) -> Facts:
    entries = {
        f"resource.{name}": Fact(freeze(value), assurance, "test", observed_at) for name, value in values.items()
    }
    return Facts(Request.of("user:alice", "job:submit", "job:team/vision/run-17"), entries)


def test_what_fits_is_admitted() -> None:
    """Attributes arrive as conditions read them, beside the names every entity has."""
    admitted = GATE.admit(facts(gpus=8, queue="dev", tags=["a"], code={"commit": "c"}), NOW)
    assert admitted.resource == {
        "id": "team/vision/run-17",
        "type": "job",
        "domain": "vision",
        "gpus": 8,
        "queue": "dev",
        "tags": ("a",),
        "code": {"commit": "c"},
    }
    assert (admitted.subject["id"], admitted.domain, admitted.weak) == ("user:alice", "vision", None)


@pytest.mark.parametrize("identifier", ["other/vision/run", "team", "x"])
def test_an_id_outside_its_pattern_is_no_request(identifier: str) -> None:
    """The domain is read from the id, so another form would name another team; a type without one takes any."""
    asked = Request.of("user:alice", "job:submit", "job:x")
    request = msgspec.structs.replace(asked, resource=msgspec.structs.replace(asked.resource, id=identifier))
    with pytest.raises(Malformed) as caught:
        FactAdmission(SCHEMA, SCHEMA.subjects["user"], JOB).admit(Facts(request, {}), NOW)
    assert caught.value.path == "$.resource.id"
    assert gate(TEXT).admit(Facts(request, {}), NOW).domain is None


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


@pytest.mark.parametrize("assurance", list(Assurance))
@pytest.mark.parametrize(("ahead_ns", "counts"), [(0, True), (1, False), (SECOND, False), (2**62, False)])
def test_a_fact_from_the_future_is_absent(assurance: Assurance, ahead_ns: int, counts: bool) -> None:
    """Also where the schema sets no maximum age, no assurance and no enum."""
    admitted = GATE.admit(facts(assurance, NOW + ahead_ns, gpus=8), NOW)
    assert ("gpus" in admitted.resource) is counts
    assert counts or "in the future" in (admitted.weak or {})["resource.gpus"]


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


DURATION = ValueType(kind="duration")
PART = ValueType(kind="record", record="part")
RECORDS = {
    "part": {"name": Attribute(name="name", type=TEXT), "size": Attribute(name="size", type=INT)},
    "graded": {"name": Attribute(name="name", type=TEXT), "grade": Attribute(name="grade", type=TEXT, enum=("b", "a"))},
    "timed": {"name": Attribute(name="name", type=TEXT), "at": Attribute(name="at", type=ValueType(kind="timestamp"))},
    "secret": {"key": Attribute(name="key", type=DURATION, sensitive=True)},
}


def gate(kind: ValueType, *, sensitive: bool = False) -> FactAdmission:
    """The gate of a job with one attribute, `it`."""
    attributes = {"it": Attribute(name="it", type=kind, sensitive=sensitive)}
    schema = Schema(
        subjects={"user": EntityType(name="user")},
        resources={"job": EntityType(name="job", attributes=attributes)},
        records=RECORDS,
        context={"zone": Attribute(name="zone", type=TEXT)},
    )
    return FactAdmission(schema, schema.subjects["user"], schema.resources["job"])


def list_of(kind: ValueType) -> ValueType:
    return ValueType(kind="list", element=kind)


def map_of(kind: ValueType) -> ValueType:
    return ValueType(kind="map", element=kind)


def record(name: str) -> ValueType:
    return ValueType(kind="record", record=name)


GOOD, BAD = {"name": "a", "size": 1}, {"name": "a", "size": "1"}
COMPOUND = {
    "list of text": (list_of(TEXT), ["a", "b"], ["a", 1], "[1]"),
    "list of text and nothing of it": (list_of(TEXT), ["a"], [1], "[0]"),
    "list of booleans": (list_of(BOOL), [True, False], [True, 1], "[1]"),
    "list of integers": (list_of(INT), [1, 0], [1, True], "[1]"),
    "map of integers": (map_of(INT), {"x": 1, "y": 2}, {"x": 1, "y": "2"}, ".y"),
    "map of text": (map_of(TEXT), {"x": "1"}, {"x": 1}, ".x"),
    "record": (PART, GOOD, BAD, ".size"),
    "record and a stranger in it": (PART, {"name": "a"}, {"name": "a", "extra": 1}, ".extra"),
    "record with a list of words": (record("graded"), {"grade": "a"}, {"grade": "c"}, ".grade"),
    "list of records": (list_of(PART), [GOOD, GOOD], [GOOD, BAD], "[1].size"),
    "list of records and text in it": (list_of(PART), [GOOD], [GOOD, "a"], "[1]"),
    "list of graded records": (
        list_of(record("graded")),
        [{"grade": "b"}],
        [{"grade": "b"}, {"grade": "d"}],
        "[1].grade",
    ),
    "list of lists": (list_of(list_of(INT)), [[1], [2, 3]], [[1], [2, "3"]], "[1][1]"),
    "list of maps": (list_of(map_of(INT)), [{"x": 1}, {}], [{"x": 1}, {"x": "1"}], "[1].x"),
    "map of records": (map_of(PART), {"x": GOOD}, {"x": BAD}, ".x.size"),
    "map of lists": (map_of(list_of(TEXT)), {"x": ["a"]}, {"x": ["a", 1]}, ".x[1]"),
    "empty list": (list_of(PART), [], [1], "[0]"),
    "empty map": (map_of(PART), {}, {"x": 1}, ".x"),
}


@pytest.mark.parametrize(("kind", "good", "bad", "at"), COMPOUND.values(), ids=list(COMPOUND))
def test_each_kind_inside_another_is_checked_to_its_end(kind: ValueType, good: Any, bad: Any, at: str) -> None:
    """What fits is admitted as it is, and one step away the path leads to the one part that does not."""
    assert gate(kind).admit(facts(it=good), NOW).resource["it"] == freeze(good)
    with pytest.raises(Malformed) as caught:
        gate(kind).admit(facts(it=bad), NOW)
    assert caught.value.path == f"$.resource.properties.it{at}"


TIMED = [{"name": "a", "at": "2027-01-15T08:00:00Z"}]


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (list_of(DURATION), ["90s"], (90 * SECOND,)),
        (map_of(DURATION), {"x": "90s"}, {"x": 90 * SECOND}),
        (list_of(record("timed")), TIMED, ({"name": "a", "at": NOW},)),
    ],
    ids=["in a list", "in a map", "in a record of a list"],
)
def test_times_inside_others_are_converted(kind: ValueType, given: Any, expected: Any) -> None:
    """No short way hands a condition the text of a time instead of the time."""
    assert gate(kind).admit(facts(it=given), NOW).resource["it"] == expected


def test_a_duration_that_is_none_is_named() -> None:
    """A duration's text is read, and what cannot be read is said with its place."""
    assert gate(DURATION).admit(facts(it="1h"), NOW).resource["it"] == 3600 * SECOND
    with pytest.raises(Malformed) as caught:
        gate(DURATION).admit(facts(it="soon"), NOW)
    assert caught.value.path == "$.resource.properties.it"
    assert "soon" in caught.value.message


def test_what_is_hidden_is_not_reported() -> None:
    """A sensitive value that does not fit is named by its place only, also one inside a record."""
    for kind, given in ((DURATION, "hush"), (record("secret"), {"key": "hush"})):
        guarded = gate(kind, sensitive=kind is DURATION)
        assert guarded.sensitive == {"resource.it"}
        with pytest.raises(Malformed) as caught:
            guarded.admit(facts(it=given), NOW)
        assert caught.value.path == "$.resource.properties.it"
        assert "hidden" in caught.value.message
        assert "hush" not in str(caught.value)
    assert gate(TEXT).sensitive == frozenset()
    assert gate(TEXT).redactions == {}


@pytest.mark.parametrize("given", list(Assurance))
@pytest.mark.parametrize("least", list(Assurance))
def test_no_fact_counts_for_more_than_it_is(least: Assurance, given: Assurance) -> None:
    """I1: at each of the four levels, and whatever stands beside it, only as much as the schema asks is enough."""
    job = EntityType(name="job", attributes={n: Attribute(name=n, type=INT, assurance=least) for n in ("a", "b")})
    schema = Schema(subjects={"user": EntityType(name="user")}, resources={"job": job})
    admitted = FactAdmission(schema, schema.subjects["user"], job).admit(facts(given, a=1, b=2), NOW)
    assert ("a" in admitted.resource, "b" in admitted.resource) == (given >= least,) * 2
    assert set(admitted.weak or {}) == (set() if given >= least else {"resource.a", "resource.b"})


@pytest.mark.parametrize(
    ("age_ns", "said"),
    [
        (-1, "observed 1 s in the future"),
        (-90 * SECOND, "observed 90 s in the future"),
        (60 * SECOND + 1, "60 s old, at most 60 s counts"),
        (61 * SECOND, "61 s old, at most 60 s counts"),
    ],
)
def test_the_age_of_a_fact_is_reported(age_ns: int, said: str) -> None:
    """To the nanosecond a fact is too old or too new, and the reason says which in seconds."""
    assert GATE.admit(facts(observed_at=NOW - age_ns, fresh=1), NOW).weak == {"resource.fresh": said}


def test_the_names_one_could_have_meant_are_listed() -> None:
    """An unknown name is answered with those of its own entity, sorted, or with the one that is near."""
    asked = Request.of("user:alice", "job:submit", "job:team/vision/run-17")
    said = {}
    for path in ("resource.xyzzy", "context.xyzzy", "subject.xyzzy"):
        with pytest.raises(Malformed) as caught:
            gate(TEXT).admit(Facts(asked, {path: Fact(1, Assurance.CLAIMED, "test", NOW)}), NOW)
        said[path] = str(caught.value)
    assert said["resource.xyzzy"].startswith("$.resource.properties.xyzzy: unknown attribute `xyzzy`, expected one of")
    assert said["resource.xyzzy"].endswith("expected one of `it`")
    assert said["context.xyzzy"] == "$.context.xyzzy: unknown attribute `xyzzy`, expected one of `zone`"
    assert said["subject.xyzzy"].endswith("expected none")
    with pytest.raises(Malformed, match="expected one of `dev`, `prod`"):
        GATE.admit(facts(queue="none"), NOW)
    with pytest.raises(Malformed, match="expected one of `clean`, `code`, `fresh`, `gpus`, `queue`, `tags`, `until`"):
        GATE.admit(facts(zzz=1), NOW)
