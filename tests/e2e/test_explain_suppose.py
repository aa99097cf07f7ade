"""`explain` answers "what if" in one line: requests in words and in YAML, supposed facts, roles, approvals and time."""

from __future__ import annotations

import pytest

from tests.e2e.cli_lab import CliLab

READ = ("user:alice", "repo:read", "repo:team/vision/trainer")


def test_a_request_in_words_decides_as_its_file_does(lab: CliLab) -> None:
    """`decide` and `explain` take SUBJECT ACTION RESOURCE NAME=VALUE in place of a file."""
    assert lab.here("explain", *READ).code == 0
    assert lab.here("decide", *READ).code == 0
    denied = lab.here("explain", "user:ivan", "job:submit", "job:team/vision/run-17", "gpus=256")
    assert denied.code == 77
    assert "resource.gpus = 256 (claimed, request)" in denied.out
    assert "HYPOTHETICAL" not in denied.out


def test_a_request_may_be_yaml(lab: CliLab) -> None:
    lab.path("read.yaml").write_text(
        "subject: {type: user, id: alice}\n"
        'action: {name: "repo:read"}\n'
        "resource: {type: repo, id: team/vision/trainer}\n"
    )
    assert lab.here("explain", "read.yaml").code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (READ[:2], "found 2 words, expected REQUEST | SUBJECT ACTION RESOURCE [NAME=VALUE]"),
        ((*READ, "gpus"), "found `gpus`, expected NAME=VALUE"),
        ((*READ, "job.gpus=8"), "found `job.gpus=8`, expected NAME=VALUE"),
        ((*READ, "gpus=8", "resource.gpus=9"), "found `resource.gpus` twice"),
        ((*READ, "gpus=yes"), "which YAML readers take for different things"),
        (("alice", *READ[1:]), "found `alice`, expected TYPE:ID"),
        (("user:*", *READ[1:]), "$.subject.id"),
    ],
)
def test_a_malformed_request_in_words_is_one_line(lab: CliLab, words: tuple[str, ...], message: str) -> None:
    ended = lab.here("explain", *words)
    assert ended.code == (65 if message.startswith(("$", "which")) else 64)
    assert message in ended.complaint
    assert ended.out == ""


def test_what_is_supposed_decides_and_says_so(lab: CliLab) -> None:
    """Facts, time, an approval and a role of a request that nobody made; nothing is signed or logged."""
    before = lab.entries()
    ended = lab.here(
        *("explain", "user:alice", "job:submit", "job:team/vision/run-1", "gpus=8"),
        *("--fact", "resource.code.dirty=false@measured", "--at", "2027-01-05T03:00Z"),
        *("--approved-by", "user:carol", "--role", "intern@vision"),
    )
    assert ended.code == 77
    assert ended.out.startswith("HYPOTHETICAL  nothing was measured, signed or logged\n")
    assert "time 2027-01-05T03:00:00Z" in ended.out
    assert lab.entries() == before


def test_a_supposed_role_decides_in_place_of_the_bindings(lab: CliLab) -> None:
    """Somebody without a binding is allowed with one, and a researcher without theirs is denied."""
    assert lab.here("explain", "user:new", *READ[1:]).code == 77
    assert lab.here("explain", "user:new", *READ[1:], "--role", "researcher@vision").code == 0
    assert lab.here("explain", *READ, "--role", "researcher@llm").code == 77
    ended = lab.here("explain", *READ, "--role", "reseacher@vision")
    assert ended.code == 65
    assert "unknown role `reseacher`" in ended.complaint


def test_supposed_facts_of_a_file_are_marked_in_json(lab: CliLab) -> None:
    lab.path("facts.yaml").write_text("resource.gpus: {value: 8, assurance: measured}\n")
    ended = lab.here("explain", "user:alice", "job:submit", "job:team/vision/run-1", "--facts", "facts.yaml", "--json")
    assert "facts.yaml" in ended.data["hypothetical"]
    assert ended.data["decision"] is False


def test_a_time_that_is_none_is_a_usage_error(lab: CliLab) -> None:
    ended = lab.here("explain", *READ, "--at", "yesterday")
    assert ended.code == 64
    assert "'--at'" in ended.complaint
