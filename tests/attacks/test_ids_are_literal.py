"""Attempts to hide a pattern, a climb or another id behind the text of an id; each has a twin that is an id."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policyguard.attest.approval import (
    ApprovalRejected,
    ApprovalTarget,
    approval_statement,
    check_covers,
    parse_approval,
)
from policyguard.attest.manifest_statement import check_origin
from policyguard.config.job_file import read_job
from policyguard.decide.assign_roles import assign_roles
from policyguard.errors import PolicyErrors, RequestError
from policyguard.model.ids import id_problem
from policyguard.model.policy import Binding, Role
from policyguard.model.request import Request
from policyguard.patterns.overlap import pattern_problem
from policyguard.policy.loader import analyse
from policyguard.values import canonical, freeze

HOUR = 3600 * 10**9

NO_IDS = {
    "a star": "team/vision/*",
    "two stars": "team/vision/**",
    "a question mark": "team/vision/run-?",
    "alternatives": "team/vision/{a,b}",
    "a domain's place": "team/{team}/run",
    "a backslash": "team\\vision",
    "an encoded dot": "team/%2e%2e/llm",
    "an encoded dot in capitals": "team/%2E%2E/llm",
    "an encoded slash": "team%2Fvision",
    "an encoded slash in small letters": "team%2fvision",
    "an encoded null": "team/vision%00",
    "an encoded line break": "team/vision%0a",
    "an encoded delete": "team/vision%7F",
    "an encoded star": "team/vision/%2a",
    "an encoded backslash": "team%5Cvision",
    "encoded twice": "team/%252e%252e/llm",
    "encoded three times": "team/%25252e",
    "a percent sign before an encoded figure": "team/%%32%65",
    "an overlong dot": "team/%c0%ae",
    "an encoded zero-width space": "team/%E2%80%8B",
    "an encoded code unit": "team/%u002e",
    "a variation selector": "team/vision\ufe0f",
    "a supplementary variation selector": "team/vision\U000e0100",
    "a tag character": "team/vision\U000e0041",
    "a Hangul filler": "team/\u3164",
    "a half-width Hangul filler": "team/vision\uffa0",
    "a combining grapheme joiner": "team/vi\u034fsion",
    "a Mongolian vowel separator": "team/vi\u180esion",
    "a word joiner": "team/vi\u2060sion",
    "a soft hyphen": "team/vi\u00adsion",
    "a direction": "team/\u202evision",
    "a blank of braille": "team/\u2800",
    "an unassigned default-ignorable": "team/vision\ufff0",
    "a C1 control": "team/vision\x85",
    "a wide space": "team/vi\u3000sion",
    "a lone surrogate": "team/vision\ud800",
    "not composed": "team/cafe\u0301",
    "a climb": "team/vision/../llm",
    "the same folder": "team/./vision",
    "an empty segment": "team//vision",
    "a slash at the end": "team/vision/",
    "513 characters": "x" * 513,
    "nothing": "",
}
IDS = {
    "a plain one": "team/vision/run-17",
    "another script": "team/\u540d\u524d/caf\u00e9",
    "a percent sign": "team/vision/50%",
    "an encoded space": "team/vision/run%2017",
    "an encoded letter": "team/%41",
    "dots in names": "team/.hidden/a..b",
    "brackets": "team/vision/run[1]",
    "512 characters": "x" * 512,
    "512 characters of another script": "\u540d" * 512,
}


def approval(**changes: Any) -> Any:
    parts: dict[str, Any] = {
        "subjects": {"tree": "a" * 40},
        "action": "job:submit",
        "resource": "job:team/vision/r",
        "approver": "user:carol",
        "reason": "read",
        "approved_at": HOUR,
        "expires": 2 * HOUR,
    }
    return approval_statement(**{**parts, **changes})


def job(resource: str) -> Request:
    return read_job(freeze({"resource": resource, "subject": "user:alice"}), ("true",), "/", {})[0]


def loads(subject: str) -> bool:
    document = {
        "apiVersion": "policyguard/v1",
        "kind": "Persons",
        "metadata": {"name": "people"},
        "persons": [{"id": "p", "accounts": [subject]}],
    }
    # JSON is YAML, and its escapes bring any character past the reader of the file.
    return not [error for error in analyse({"p.yaml": json.dumps(document).encode()}).errors if error.code == "PG011"]


PLACES: dict[str, Any] = {
    "the subject of a request": lambda text: Request.of(f"user:{text}", "job:submit", "job:a"),
    "the resource of a request": lambda text: Request.of("user:a", "job:submit", f"job:{text}"),
    "a request as data": lambda text: Request.from_data(
        {
            "subject": {"type": "user", "id": "a"},
            "action": {"name": "job:submit"},
            "resource": {"type": "job", "id": text},
        }
    ),
    "a job file": lambda text: job(f"job:{text}"),
    "an approver": lambda text: approval(approver=f"user:{text}"),
    "what is approved": lambda text: approval(resource=f"job:{text}"),
    "a producer": lambda text: check_origin(f"user:{text}", "run", 1),
    "a bound subject": lambda text: assign_roles(
        (Role(name="lead"),), (Binding(subject=f"user:{text}", role="lead", domain="*"),)
    ),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("text", NO_IDS.values(), ids=NO_IDS)
def test_what_is_no_literal_id_is_refused_everywhere(text: str, place: Any) -> None:
    """INVARIANT I5: one grammar: no pattern, no encoding, nothing invisible, wherever the id comes from."""
    assert id_problem(text) is not None
    with pytest.raises((RequestError, ApprovalRejected, ValueError, PolicyErrors)):
        place(text)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("text", IDS.values(), ids=IDS)
def test_what_may_be_asked_for_may_be_approved(text: str, place: Any) -> None:
    """The twins: what is an id is one everywhere, also long ones and those of other scripts."""
    assert id_problem(text) is None
    place(text)


@pytest.mark.parametrize("text", ["team/vision/**", "a?", "a\\b", "%2e", "a\u034fb", "\u3164"])
def test_an_account_in_the_policies_is_an_id(text: str) -> None:
    """A person's account that no request can have is reported when policies load."""
    assert not loads(f"user:{text}")
    assert loads("user:caf\u00e9")


def target(resource: str) -> ApprovalTarget:
    return ApprovalTarget(request=Request.of("user:a", "job:submit", resource), measured_digests={"tree": "a" * 40})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_a_request_in_another_encoding_is_refused(encoding: str) -> None:
    """A proxy that reads UTF-8 would inspect another request than the one decided."""
    request = Request.of("user:a", "job:submit", "job:caf\u00e9")
    text = json.dumps(request.to_data(), ensure_ascii=False)
    with pytest.raises(RequestError, match="expected UTF-8"):
        Request.from_json(text.encode(encoding))
    for same in ("utf-8", "utf-8-sig"):
        assert Request.from_json(text.encode(same)) == request


def test_an_approval_of_a_job_named_like_a_pattern_covers_no_other_job() -> None:
    """INVARIANT I9: what two leads approved as one job never covers every job of the team."""
    with pytest.raises(ApprovalRejected):
        approval(resource="job:team/vision/**")
    # One that an earlier version wrote, or a reviewer by hand, does not count either.
    data = json.loads(approval().payload)
    data["predicate"]["resource"] = "job:team/vision/**"
    with pytest.raises(ApprovalRejected, match="without `\\*`"):
        parse_approval(canonical(freeze(data)))


def test_an_approval_of_a_pattern_says_so() -> None:
    """The twin: an explicit pattern covers what it matches, and nothing else."""
    statement = approval(resource="job:team/vision/**", resource_is_pattern=True)
    assert parse_approval(statement.payload) == statement
    check_covers(statement, target("job:team/vision/run-77"))
    for other in ("job:team/llm/run", "repo:team/vision/run-77"):
        with pytest.raises(ApprovalRejected) as caught:
            check_covers(statement, target(other))
        assert caught.value.code == "approval.other_resource"


@pytest.mark.parametrize(
    "pattern",
    [
        "job:team/vision/run-1",
        "job:team/{team}/**",
        "job:team/**x",
        "job:a?*",
        "job:%2e/*",
        "Job:*",
        "*",
        "job:\u3164/*",
    ],
)
def test_a_pattern_of_an_approval_is_one(pattern: str) -> None:
    """A pattern without a star, for a domain or with what no id has is refused."""
    with pytest.raises(ApprovalRejected):
        approval(resource=pattern, resource_is_pattern=True)


@pytest.mark.parametrize("pattern", ["team/%2e%2e/*", "team/a\u034fb/**", "team/\u3164/*", "team/x\ufe0f/*"])
def test_a_policy_pattern_that_no_id_matches_is_refused(pattern: str) -> None:
    """A deny over ids that cannot exist would deny nothing, in silence."""
    assert pattern_problem(pattern) is not None
    assert pattern_problem("team/caf\u00e9/**") is None
