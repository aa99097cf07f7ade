"""The story of the replay: an attempt that ended in another way than expected is a failure, and is printed as one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from policyguard.demo.incident.story import Story
from policyguard.errors import VerificationError
from policyguard.guard import Guard
from policyguard.model.request import Request

POLICIES = """
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources: {job: {actions: [submit], attributes: {gpus: {type: int}}}}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs, owner: platform}
rules:
  - id: small
    effect: allow
    actions: ["job:submit"]
    resources: {type: job}
    when: resource.gpus <= 8
    reason: job.small
"""


@pytest.fixture
def story() -> Story:
    return Story("/lab")


ALLOW, DENY = (
    Guard.in_memory(POLICIES).decide(Request.of("user:alice", "job:submit", "job:x", gpus=n)) for n in (8, 9)
)


def test_what_was_expected_is_good(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    """The twin of all below."""
    story.title("a step")
    story.allowed("a small job", ALLOW, "job.small")
    story.denied("a large job", DENY, "engine.no_allow", naming="resource.gpus")
    story.refused("another worker", "V8", lambda: _fail("V8"))
    story.fact("a fact", "text in /lab/policies", good=True, entry=3)
    assert story.failures == []
    assert [outcome.entry for outcome in story.outcomes] == [0, 0, None, 3]
    printed = capsys.readouterr().out
    assert "FAILED" not in printed
    assert "text in policies   (log entry 3)" in printed


@pytest.mark.parametrize(
    "tell",
    [
        lambda story: story.allowed("x", DENY, "engine.no_allow"),
        lambda story: story.allowed("x", ALLOW, "another.reason"),
        lambda story: story.allowed("x", ALLOW, "job.small", "an.obligation"),
        lambda story: story.denied("x", ALLOW, "job.small"),
        lambda story: story.denied("x", DENY, "another.reason"),
        lambda story: story.denied("x", DENY, "engine.no_allow", naming="not in the explanation"),
        lambda story: story.refused("x", "V8", lambda: _fail("V7")),
        lambda story: story.refused("x", "V8", lambda: None),
        lambda story: story.fact("x", "text", good=False),
    ],
    ids=[
        "a denial instead of an allow",
        "another reason of the allow",
        "an obligation is missing",
        "an allow instead of a denial",
        "another reason of the denial",
        "a text is missing",
        "another step of the verifier",
        "accepted by the verifier",
        "a fact that is not so",
    ],
)
def test_another_ending_is_a_failure(
    story: Story, tell: Callable[[Story], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each alone makes the replay fail."""
    tell(story)
    assert len(story.failures) == 1
    assert "FAILED" in capsys.readouterr().out


def _fail(step: str) -> None:
    raise VerificationError(step, "differs")
