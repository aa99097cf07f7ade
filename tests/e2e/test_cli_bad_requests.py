"""Requests as an attacker or a broken program sends them, to `decide` and to `hook`: one line, a code, no start."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.cli_lab import CliLab, Ended

SUBJECT: dict[str, Any] = {"type": "user", "id": "alice"}
MALFORMED = "engine.malformed"
ACTION: dict[str, Any] = {"name": "job:submit"}
RESOURCE: dict[str, Any] = {"type": "job", "id": "team/vision/run-17", "properties": {"gpus": 8}}


def text(**changes: Any) -> bytes:
    """Return the request with these members changed; None leaves one out."""
    members = {"subject": SUBJECT, "action": ACTION, "resource": RESOURCE, **changes}
    return json.dumps({name: value for name, value in members.items() if value is not None}).encode()


def job(**properties: Any) -> dict[str, Any]:
    return {**RESOURCE, "properties": {"gpus": 8, **properties}}


@dataclass(frozen=True)
class Bad:
    """What is sent, and a part of what is said about it. `reason` is that of the logged denial, if one is."""

    data: bytes
    said: str
    code: int = 65
    reason: str | None = None


CASES = {
    "nothing at all": Bad(b"", "not JSON"),
    "half an object": Bad(text()[:-9], "not JSON"),
    "text that is no JSON": Bad(b"allow alice", "not JSON"),
    "bytes that are not UTF-8": Bad(text().replace(b"alice", b"al\xffce"), "not UTF-8"),
    "a NUL byte": Bad(text().replace(b"alice", b"al\x00ce"), "not JSON"),
    "a list": Bad(b"[]", "found a list"),
    "a bare true": Bad(b"true", "found a bool"),
    "JSON nested a hundred thousand deep": Bad(b"[" * 100_000, "nested too deeply"),
    "properties nested a thousand deep": Bad(
        text(resource=job(x=json.loads("[" * 400 + "]" * 400))), "nested deeper than 32 levels"
    ),
    "ten megabytes": Bad(text(context={"x": "y" * 10_000_000}), "expected at most 1048576"),
    "no subject": Bad(text(subject=None), "`subject` is missing"),
    "no action": Bad(text(action=None), "`action` is missing"),
    "a member nobody knows": Bad(text(evil=1), "unknown field `evil`"),
    "a key twice": Bad(b'{"subject": 1, "subject": 2}', "the key `subject` twice"),
    "a subject that is text": Bad(text(subject="user:alice"), "$.subject: found text"),
    "a subject without a type": Bad(text(subject={"id": "alice"}), "$.subject"),
    "an action that is text": Bad(text(action="job:submit"), "$.action: found text"),
    "an action that is no name": Bad(text(action={"name": "*"}), "$.action"),
    "an id that is a number": Bad(text(subject={"type": "user", "id": 7}), "$.subject.id"),
    "an empty id": Bad(text(subject={"type": "user", "id": ""}), "$.subject.id"),
    "an id with a line break": Bad(text(subject={"type": "user", "id": "alice\nroot"}), "$.subject.id"),
    "an id with an escape sequence": Bad(text(subject={"type": "user", "id": "\x1b[2Jalice"}), "$.subject.id"),
    "an id with a lone surrogate": Bad(text(subject={"type": "user", "id": "\ud800"}), "$.subject.id"),
    "an id of a thousand characters": Bad(text(subject={"type": "user", "id": "a" * 1000}), "$.subject.id"),
    "properties that are a list": Bad(text(resource={**RESOURCE, "properties": []}), "$.resource.properties"),
    "a float": Bad(text(resource=job(gpus=8.5)), "$.resource.properties.gpus: found a float"),
    "a null": Bad(text().replace(b'"gpus": 8', b'"gpus": null'), "$.resource.properties.gpus: found null"),
    "not a number": Bad(text().replace(b'"gpus": 8', b'"gpus": NaN'), "found `NaN`"),
    "an integer beyond 2^53": Bad(text(resource=job(gpus=2**53)), "beyond 2^53"),
    "an integer of five thousand digits": Bad(
        text().replace(b'"gpus": 8', b'"gpus": ' + b"9" * 5000), "not JSON we read"
    ),
    "an unknown property": Bad(text(resource=job(gpu=8)), "did you mean `gpus`", reason=MALFORMED),
    "a property of another type": Bad(text(resource=job(gpus="8")), "gpus: found text", reason=MALFORMED),
    "a bool where an integer belongs": Bad(text(resource=job(gpus=True)), "gpus: found a bool", reason=MALFORMED),
    "an unknown context attribute": Bad(text(context={"evil": 1}), "unknown attribute `evil`", reason=MALFORMED),
    "an unknown action": Bad(text(action={"name": "job:explode"}), "job:explode", 77, "engine.unknown_action"),
    "an unknown resource type": Bad(text(resource={"type": "rocket", "id": "r"}), "rocket", 77, "engine.unknown_type"),
    "an unknown subject type": Bad(text(subject={"type": "ghost", "id": "g"}), "ghost", 77, "engine.unknown_type"),
}


def answer(lab: CliLab, data: bytes, monkeypatch: pytest.MonkeyPatch) -> Ended:
    """Return how the hook answers these bytes on its standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    return lab.here("hook", "--config", "policyguard.yaml")


@pytest.mark.parametrize("bad", CASES.values(), ids=list(CASES))
def test_decide_says_what_is_wrong(bad: Bad, lab: CliLab) -> None:
    """A bad request is its exit code and one line; one that could be parsed is a signed and logged denial."""
    lab.path("request.json").write_bytes(bad.data)
    ended = lab.here("decide", "request.json", "--out", "signed.json")
    assert ended.code == bad.code
    assert "Traceback" not in ended.err
    if bad.reason is None:
        assert (ended.out, lab.entries()) == ("", [])
        assert bad.said in ended.complaint
        assert not lab.path("signed.json").exists()
    else:
        assert bad.said in ended.out
        assert [entry["decision"] for entry in lab.entries()] == ["deny"]
        assert bad.reason in lab.entries()[0]["reason_codes"]
        assert lab.path("signed.json").exists()


@pytest.mark.parametrize("bad", CASES.values(), ids=list(CASES))
def test_the_hook_says_what_is_wrong(bad: Bad, lab: CliLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same requests are answered with one JSON object, `decision` false and the same exit code."""
    ended = answer(lab, bad.data, monkeypatch)
    assert (ended.code, ended.err, ended.data["decision"]) == (bad.code, "", False)
    assert bad.said in ended.data["error" if bad.reason is None else "explanation"]
    assert [entry["decision"] for entry in lab.entries()] == (["deny"] if bad.reason else [])


def test_the_request_they_are_changed_from_is_decided(lab: CliLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: the same request unchanged fits the schema and is decided by rules."""
    ended = answer(lab, text(), monkeypatch)
    assert ended.code == 77
    assert ended.data["determining"]


def test_claimed_text_cannot_move_the_cursor(lab: CliLab) -> None:
    """Escape sequences in claimed values reach a terminal as visible text, in every output."""
    words = text(
        resource=job(code={"commit": "\x1b[2J\x9b31m\u202e", "dirty": False, "dirty_files": [], "untracked_files": []})
    )
    lab.path("request.json").write_bytes(words)
    for command in (
        ("decide", "request.json"),
        ("decide", "--json", "request.json"),
        ("audit", "show", "0"),
        ("explain", "--full", "request.json"),
        ("audit", "tail", "--json"),
    ):
        ended = lab.here(*command)
        assert not set(ended.out + ended.err) & set("\x1b\x9b\u202e"), command
