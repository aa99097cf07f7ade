"""Requests: one form, strict JSON, errors that carry the path."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyguard.errors import RequestError
from policyguard.model.request import MAX_REQUEST_BYTES, Request, request_digest

PLAIN: dict[str, Any] = {
    "subject": {"type": "user", "id": "alice"},
    "action": {"name": "job:submit"},
    "resource": {"type": "job", "id": "team/vision/run-17", "properties": {"gpus": 8}},
}


def test_of_and_from_json_agree() -> None:
    """The keyword form and the AuthZEN form make equal requests with equal digests."""
    spelled = Request.from_json(json.dumps(PLAIN))
    assert spelled == Request.of("user:alice", "job:submit", "job:team/vision/run-17", gpus=8)
    assert spelled.to_data() == PLAIN
    assert Request.from_data(spelled.to_data()) == spelled


@pytest.mark.parametrize(
    "identifier",
    [
        "team/vision/../llm/x",
        "team//x",
        "./x",
        "/x",
        "x/",
        "a b",
        "a\tb",
        "a\u202eb",
        "a\u200bb",
        "\ufeffx",
        "",
        "x" * 513,
    ],
)
def test_an_id_has_one_form(identifier: str) -> None:
    """INVARIANT I5: an id that could pass for another one is no id."""
    with pytest.raises(RequestError) as caught:
        Request.of("user:alice", "job:submit", f"job:{identifier}")
    assert caught.value.path == "$.resource.id"


@pytest.mark.parametrize("identifier", ["team/vision/run-17", "a", "été/x", "a.b/c..d", "x" * 512])
def test_ordinary_ids_are_ids(identifier: str) -> None:
    """One step away from what is refused stands what is accepted."""
    assert Request.of("user:alice", "job:submit", f"job:{identifier}").resource.id == identifier


BAD: dict[str, tuple[str, str, str]] = {
    "not JSON": ("{", "$", "not JSON"),
    "a key twice": ('{"subject":{"type":"user","id":"a","id":"b"}}', "$", "the key `id` twice"),
    "a float": (json.dumps({**PLAIN, "context": {"x": 1.5}}), "$.context.x", "found a float"),
    "a null": (json.dumps({**PLAIN, "context": {"x": [1, None]}}), "$.context.x[1]", "found null"),
    "NaN": ('{"context": NaN}', "$", "found `NaN`"),
    "an integer beyond 2^53": (json.dumps({**PLAIN, "context": {"x": 2**53}}), "$.context.x", "beyond 2^53 - 1"),
    "an integer of 5,000 digits": ('{"context": ' + "9" * 5000 + "}", "$", "not JSON we read"),
    "no resource": (json.dumps({k: PLAIN[k] for k in ("subject", "action")}), "$", "`resource` is missing"),
    "an unknown field": (json.dumps({**PLAIN, "extra": 1}), "$", "unknown field `extra`"),
    "text for an object": (json.dumps({**PLAIN, "subject": "alice"}), "$.subject", "found text"),
    "a list": ("[]", "$", "found a list"),
    "an upper-case type": (json.dumps({**PLAIN, "subject": {"type": "User", "id": "a"}}), "$.subject.type", "`User`"),
    "an action without a verb": (json.dumps({**PLAIN, "action": {"name": "submit"}}), "$.action.name", "`submit`"),
    "properties of an action": (
        json.dumps({**PLAIN, "action": {"name": "job:submit", "properties": {"x": 1}}}),
        "$.action.properties",
        "none",
    ),
    "a lone surrogate": (
        json.dumps({**PLAIN, "subject": {"type": "user", "id": "a\ud800"}}),
        "$.subject.id",
        "surrogate",
    ),
}


@pytest.mark.parametrize(("text", "path", "part"), BAD.values(), ids=BAD.keys())
def test_bad_requests_say_where_and_what(text: str, path: str, part: str) -> None:
    """A request that is none is refused with the JSON path and what was found."""
    with pytest.raises(RequestError) as caught:
        Request.from_json(text)
    assert caught.value.path == path
    assert part in caught.value.message
    assert "\n" not in str(caught.value)


def test_size_and_depth_are_limited() -> None:
    """A request too large or nested too deep is refused, and costs nothing worth mentioning."""
    with pytest.raises(RequestError, match="expected at most"):
        Request.from_json(" " * (MAX_REQUEST_BYTES + 1))
    with pytest.raises(RequestError, match="nested"):
        Request.from_json('{"context":' + "[" * 100_000)
    deep: object = 1
    for _ in range(40):
        deep = [deep]
    with pytest.raises(RequestError, match="nested deeper"):
        Request.from_json(json.dumps({**PLAIN, "context": {"x": deep}}))


def test_the_digest_covers_every_part() -> None:
    """Another subject, action, resource, property, context or measured value is another digest."""
    request = Request.of("user:alice", "job:submit", "job:team/vision/run-17", gpus=8)
    others = [
        Request.of("user:bob", "job:submit", "job:team/vision/run-17", gpus=8),
        Request.of("user:alice", "job:kill", "job:team/vision/run-17", gpus=8),
        Request.of("user:alice", "job:submit", "job:team/vision/run-18", gpus=8),
        Request.of("user:alice", "job:submit", "job:team/vision/run-17", gpus=9),
        Request.of("user:alice", "job:submit", "job:team/vision/run-17", context={"a": "b"}, gpus=8),
    ]
    digests = {request_digest(each) for each in (request, *others)}
    digests |= {request_digest(request, {"resource.argv": ("a",)}), request_digest(request, {"resource.argv": ("b",)})}
    assert len(digests) == 8


@given(st.text(max_size=200))
def test_any_text_is_a_request_or_a_request_error(text: str) -> None:
    """Nothing but `RequestError` comes out of the parser."""
    try:
        Request.from_json(text)
    except RequestError as problem:
        assert problem.path.startswith("$")  # noqa: PT017 - either outcome is right
