"""Approval statements: one form, in-toto's shape, and nothing but `ApprovalRejected` for what is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyguard.attest.approval import (
    APPROVAL_TYPE,
    MAX_APPROVAL_BYTES,
    MAX_LIFETIME_S,
    NAMESPACE,
    ApprovalRejected,
    ApprovalTarget,
    approval_statement,
    check_covers,
    check_time,
    command_digest,
    parse_approval,
)
from policyguard.attest.keys import PrivateKey
from policyguard.attest.signers import Signers
from policyguard.attest.sshsig import SshSignatureError, parse_signature, sign
from policyguard.evidence.approvals.verify import SubmittedApproval, examine
from policyguard.model.policy import Person
from policyguard.model.request import Request
from policyguard.values import NANOSECONDS_PER_S, canonical

NOW = 1_900_000_000 * NANOSECONDS_PER_S
HOUR = 3600 * NANOSECONDS_PER_S
KEY = PrivateKey(b"\1" * 32)
SIGNERS = Signers((Person(id="carol", accounts=("user:carol",), keys=(KEY.public.text,)),))
REQUEST = Request.of("user:alice", "job:submit", "job:team/vision/run-19", gpus=256)
TARGET = ApprovalTarget(request=REQUEST, measured_digests={"tree": "a" * 40}, required_subjects=("tree",))
STATEMENT = approval_statement(
    subjects={"tree": "a" * 40, "request": TARGET.request_digest},
    action="job:submit",
    resource="job:team/vision/run-19",
    approver="user:carol",
    reason="reviewed",
    approved_at=NOW - HOUR,
    expires=NOW + HOUR,
)
PAYLOAD = STATEMENT.payload


def test_a_statement_is_an_in_toto_statement_in_one_encoding() -> None:
    """I5: its bytes say it all, and parse to the same value."""
    data = json.loads(PAYLOAD)
    assert data["_type"] == "https://in-toto.io/Statement/v1"
    assert data["predicateType"] == APPROVAL_TYPE
    assert data["subject"] == [
        {"digest": {"sha256": TARGET.request_digest}, "name": "request"},
        {"digest": {"gitTree": "a" * 40}, "name": "tree"},
    ]
    assert parse_approval(PAYLOAD) == STATEMENT
    assert canonical(data) == PAYLOAD


def test_another_encoding_of_the_same_statement_is_refused() -> None:
    """I5: spaces, another order, a default spelled out."""
    data = json.loads(PAYLOAD)
    spellings = [json.dumps(data).encode(), PAYLOAD + b" ", json.dumps(data, indent=1).encode()]
    data["predicate"]["any_command"] = False
    for text in (*spellings, canonical(data)):
        with pytest.raises(ApprovalRejected, match="canonical form"):
            parse_approval(text)


def changed(**changes: Any) -> bytes:
    data = json.loads(PAYLOAD)
    for path, value in changes.items():
        target = data
        *way, last = path.split("__")
        for step in way:
            target = target[int(step)] if step.isdigit() else target[step]
        target[last] = value
    return canonical(data)


MALFORMED: dict[str, bytes] = {
    "another statement type": changed(_type="https://in-toto.io/Statement/v0.1"),
    "another predicate": changed(predicateType="https://slsa.dev/provenance/v1"),
    "an unknown field": changed(predicate__tier=3),
    "a number as reason": changed(predicate__reason=3),
    "an empty reason": changed(predicate__reason=" "),
    "a long reason": changed(predicate__reason="x" * 1001),
    "an action that is none": changed(predicate__action="job:submit\n\x1b[31m"),
    "a bare resource": changed(predicate__resource="team/vision/run-19"),
    "a pattern without a star": changed(predicate__resource_is_pattern=True),
    "a pattern of the requester's team": changed(
        predicate__resource_is_pattern=True, predicate__resource="job:{team}/**"
    ),
    "a pattern of every type": changed(predicate__resource_is_pattern=True, predicate__resource="*:team/**"),
    "a pattern of no type": changed(predicate__resource_is_pattern=True, predicate__resource="team/vision/**"),
    "a pattern that is malformed": changed(predicate__resource_is_pattern=True, predicate__resource="job:team/a**"),
    "limits in a list": changed(predicate__limits=["gpus"]),
    "a bare approver": changed(predicate__approver="carol"),
    "a time without zone": changed(predicate__expires="2030-03-17T17:46:40"),
    "a time in another form": changed(predicate__approved_at="2030-03-17T16:46:40.000Z"),
    "a time before all times": changed(predicate__approved_at="0001-01-01T00:00:00+14:00"),
    "no time at all between": changed(predicate__expires=json.loads(PAYLOAD)["predicate"]["approved_at"]),
    "a year": changed(predicate__expires="2031-03-17T17:46:40Z"),
    "a float as limit": PAYLOAD.replace(b'"reason"', b'"limits":{"gpus":1.5},"reason"'),
    "a null as limit": changed(predicate__limits={"gpus": None}),
    "a huge limit": changed(predicate__limits={"gpus": 2**60}),
    "no subject": changed(subject=[]),
    "a command alone": changed(subject=[{"digest": {"sha256": "0" * 64}, "name": "command"}]),
    "a subject twice": changed(subject=[json.loads(PAYLOAD)["subject"][0]] * 2),
    "a subject of no kind": changed(subject__0__name="building"),
    "an abbreviated tree": changed(subject__1__digest={"gitTree": "a" * 12}),
    "a tree under another name": changed(subject__1__digest={"sha1": "a" * 40}),
    "two digests": changed(subject__0__digest={"sha256": "0" * 64, "sha512": "0" * 128}),
    "duplicate keys": PAYLOAD.replace(b'"reason"', b'"reason":"x","reason"'),
    "a lone surrogate": PAYLOAD.replace(b"reviewed", b"\\ud800"),
    "too many bytes": b" " * (MAX_APPROVAL_BYTES + 1),
    "nested lists": b"[" * 10_000,
    "a list": b"[]",
    "nothing": b"",
}


@pytest.mark.parametrize("payload", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_approval_is_refused(payload: bytes) -> None:
    """I5 and I9: by its own code, never by a traceback."""
    with pytest.raises(ApprovalRejected) as refusal:
        parse_approval(payload)
    assert refusal.value.code == "approval.malformed"
    assert "\n" not in str(refusal.value)


LARGE = changed(predicate__reason="x" * 1000, predicate__limits={"note": ""})
LARGEST = changed(predicate__reason="x" * 1000, predicate__limits={"note": "x" * (MAX_APPROVAL_BYTES - len(LARGE))})
AT_THE_LIMIT = {
    "of the longest reason": changed(predicate__reason="x" * 1000),
    "of the longest time": changed(predicate__expires="2030-03-24T16:46:40Z"),
    "of the shortest time": changed(predicate__expires="2030-03-17T16:46:40.000000001Z"),
    "of the most bytes": LARGEST,
}


@pytest.mark.parametrize("payload", AT_THE_LIMIT.values(), ids=AT_THE_LIMIT)
def test_an_approval_at_the_limit_is_one(payload: bytes) -> None:
    """The twin of what is refused one step beyond."""
    assert parse_approval(payload).payload == payload


def test_one_step_beyond_the_limit_is_refused_by_the_limit() -> None:
    """By a nanosecond and by a byte."""
    with pytest.raises(ApprovalRejected, match=f"at most {MAX_LIFETIME_S // 86400} days"):
        parse_approval(changed(predicate__expires="2030-03-24T16:46:40.000000001Z"))
    with pytest.raises(ApprovalRejected, match=f"{MAX_APPROVAL_BYTES + 1} bytes, expected at most"):
        parse_approval(LARGEST.replace(b"xxxx", b"xxxxx", 1))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (NOW - HOUR - 1, "approval.not_yet_valid"),
        (NOW - HOUR, ""),
        (NOW + HOUR - 1, ""),
        (NOW + HOUR, "approval.expired"),
    ],
    ids=["before", "from its first instant", "until its last", "at its end"],
)
def test_an_approval_holds_from_its_start_until_just_before_its_end(now: int, expected: str) -> None:
    """To the nanosecond."""
    found = ""
    try:
        check_time(STATEMENT, now)
    except ApprovalRejected as problem:
        found = problem.code
    assert found == expected


def test_what_would_never_count_cannot_be_made() -> None:
    """I9: the builder refuses what the parser refuses."""
    with pytest.raises(ApprovalRejected):
        approval_statement(
            subjects={},
            action="job:submit",
            resource="job:x",
            approver="user:c",
            reason="r",
            approved_at=NOW,
            expires=NOW + HOUR,
        )


def test_the_order_of_subjects_and_limits_does_not_matter() -> None:
    """One value, one form, however it was put together."""
    parts: dict[str, Any] = {
        "action": "job:submit",
        "resource": "job:x",
        "approver": "user:c",
        "reason": "r",
        "approved_at": NOW,
        "expires": NOW + HOUR,
    }
    one = approval_statement(subjects={"tree": "a" * 40, "policy": "b" * 64}, limits={"x": 1, "é": 2}, **parts)
    two = approval_statement(subjects={"policy": "b" * 64, "tree": "a" * 40}, limits={"é": 2, "x": 1}, **parts)
    assert one.payload == two.payload


def test_the_command_digest_tells_commands_apart() -> None:
    """Words are not joined, the folder and the files are part of it."""
    digests = {
        command_digest(("a", "b c"), "."),
        command_digest(("a b", "c"), "."),
        command_digest(("a", "b c"), "x"),
        command_digest(("a", "b c"), ".", ("f",)),
        command_digest(("a", "b c", "f"), "."),
    }
    assert len(digests) == 5


def code(target: ApprovalTarget, **changes: Any) -> str:
    """Return the reason code why an approval with these changes does not cover the target; empty if it does."""
    parts: dict[str, Any] = {
        "subjects": {"tree": "a" * 40},
        "action": "job:submit",
        "resource": "job:team/vision/**",
        "resource_is_pattern": True,
        "approver": "user:carol",
        "reason": "r",
        "approved_at": NOW - HOUR,
        "expires": NOW + HOUR,
        "limits": {"gpus": 512},
    }
    try:
        check_covers(approval_statement(**{**parts, **changes}), target)
    except ApprovalRejected as problem:
        return problem.code
    return ""


def asked(**properties: Any) -> ApprovalTarget:
    return ApprovalTarget(
        request=Request.of("user:a", "job:submit", "job:team/vision/r", context=None, **properties),
        measured_digests={"tree": "a" * 40},
        required_subjects=("tree",),
    )


def ordered(*demanded: str) -> ApprovalTarget:
    """A job with its tree and its command measured, of which the approval must name these."""
    return ApprovalTarget(
        request=Request.of("user:a", "job:submit", "job:team/vision/r"),
        measured_digests={"tree": "a" * 40, "command": "c" * 64},
        required_subjects=demanded,
    )


PUSH = ApprovalTarget(
    request=Request.of("user:a", "repo:push", "repo:team/vision/trainer"),
    measured_digests={"tree": "b" * 40},
    required_subjects=("tree",),
    target_ref="refs/heads/main",
    from_id="1" * 40,
    target_id="b" * 40,
)
PUSHED: dict[str, Any] = {
    "subjects": {"tree": "b" * 40},
    "action": "repo:push",
    "resource": "repo:team/vision/trainer",
    "resource_is_pattern": False,
    "limits": {},
    "target_ref": "refs/heads/main",
    "from_id": "1" * 40,
    "target_id": "b" * 40,
}

COVERS: dict[str, tuple[ApprovalTarget, dict[str, Any], str]] = {
    "within the limit": (asked(gpus=512), {}, ""),
    "one more": (asked(gpus=513), {}, "approval.over_limit"),
    "less than none": (asked(gpus=-1), {}, "approval.over_limit"),
    "a text where a number is approved": (asked(gpus="512"), {}, "approval.other_value"),
    "a bool where a number is approved": (asked(gpus=True), {}, "approval.other_value"),
    "a bool where one is approved": (asked(gpus=True), {"limits": {"gpus": 1}}, "approval.other_value"),
    "one where a bool is approved": (asked(gpus=1), {"limits": {"gpus": True}}, "approval.other_value"),
    "none of them": (asked(gpus=0), {}, ""),
    "one property more": (asked(gpus=8, nodes=1), {}, "approval.no_limit"),
    "no property at all": (asked(), {}, ""),
    "another action": (asked(gpus=8), {"action": "job:kill"}, "approval.other_action"),
    "another resource": (asked(gpus=8), {"resource": "job:team/llm/**"}, "approval.other_resource"),
    "another type of resource": (asked(gpus=8), {"resource": "repo:team/vision/**"}, "approval.other_resource"),
    "a star that stops at a slash": (asked(gpus=8), {"resource": "job:team/*"}, "approval.other_resource"),
    "another tree": (asked(gpus=8), {"subjects": {"tree": "b" * 40}}, "approval.other_tree"),
    "a command by its digest": (
        ordered("tree", "command"),
        {"subjects": {"tree": "a" * 40, "command": "c" * 64}},
        "",
    ),
    "any command, where one is asked for": (ordered("tree", "command"), {"any_command": True}, ""),
    "no command, where one is asked for": (ordered("tree", "command"), {}, "approval.no_command"),
    "another command beside any command": (
        ordered("tree"),
        {"any_command": True, "subjects": {"tree": "a" * 40, "command": "d" * 64}},
        "approval.other_command",
    ),
    "any command and a request, but no tree": (
        ordered("tree"),
        {"any_command": True, "subjects": {"request": ordered().request_digest}},
        "approval.no_tree",
    ),
    "a checkpoint nobody looked at": (
        ordered(),
        {"subjects": {"tree": "a" * 40, "checkpoint": "d" * 64}},
        "approval.no_checkpoint",
    ),
    "a push to this ref": (PUSH, PUSHED, ""),
    "a push to another ref": (PUSH, {**PUSHED, "target_ref": "refs/heads/dev"}, "approval.other_target"),
    "a push from elsewhere": (PUSH, {**PUSHED, "from_id": "2" * 40}, "approval.other_target"),
    "a push without a target": (PUSH, {**PUSHED, "target_id": ""}, "approval.other_target"),
    "a target where nothing moves": (asked(gpus=8), {"target_ref": "refs/heads/main"}, "approval.other_target"),
}


@pytest.mark.parametrize(("target", "changes", "expected"), COVERS.values(), ids=COVERS)
def test_what_an_approval_covers(target: ApprovalTarget, changes: dict[str, Any], expected: str) -> None:
    """I9."""
    assert code(target, **changes) == expected


GOOD = SubmittedApproval("good", PAYLOAD, sign(PAYLOAD, NAMESPACE, KEY))


def test_the_good_one_counts() -> None:
    """The twin of all mutations."""
    assert len(examine([GOOD], SIGNERS, TARGET, NOW).approvals) == 1


@pytest.mark.parametrize(
    ("now", "code"), [(NOW - HOUR - 1, "approval.not_yet_valid"), (NOW - HOUR, None), (NOW + HOUR, "approval.expired")]
)
def test_an_approval_is_examined_at_its_time(now: int, code: str | None) -> None:
    """Outside its time an approval does not reach the quorum, which looks at the time once more."""
    examined = examine([GOOD], SIGNERS, TARGET, now)
    assert [refusal.code for refusal in examined.refused] == ([] if code is None else [code])
    assert len(examined.approvals) == (code is None)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_mutation_of_an_approval_counts_or_raises(data: st.DataObject) -> None:
    """Bytes of payload or signature changed, inserted or cut: refused with a code, or it is the same approval."""
    content, signature = GOOD.content, GOOD.signature or b""
    which = data.draw(st.booleans())
    target = content if which else signature
    start = data.draw(st.integers(0, len(target)))
    end = data.draw(st.integers(start, min(len(target), start + 8)))
    mutated = target[:start] + data.draw(st.binary(max_size=8)) + target[end:]
    submitted = SubmittedApproval("m", mutated, signature) if which else SubmittedApproval("m", content, mutated)
    found = examine([submitted], SIGNERS, TARGET, NOW)
    assert len(found.approvals) + len(found.refused) == 1
    if found.approvals:
        assert submitted.content == content


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_make_the_parsers_raise_anything_else(data: bytes) -> None:
    """Random payloads, armours and envelopes."""
    assert not examine(
        [SubmittedApproval("x", data), SubmittedApproval("x", data, data)], SIGNERS, TARGET, NOW
    ).approvals
    with pytest.raises(SshSignatureError):
        parse_signature(data)
