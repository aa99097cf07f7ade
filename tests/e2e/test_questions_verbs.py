"""`who-can`, `can-i` and `list` answer by the rules of the example policies, and say what is left open."""

from __future__ import annotations

import os
import pwd
import time

import pytest

from policyguard.analysis.questions import Question, who_can
from policyguard.decide.snapshot import Snapshot
from policyguard.model.request import Entity
from policyguard.policy.loader import load
from policyguard.policy_store.folder import grants_of
from tests.e2e.cli_lab import CliLab

READ = ("repo:read", "repo:team/vision/trainer")
SUBMIT = ("job:submit", "job:team/vision/run-1")


def test_who_can_names_everybody_with_the_role_and_nobody_else(lab: CliLab) -> None:
    data = lab.here("who-can", *READ, "--json").data
    answers = {subject: group["answer"] for group in data["answers"] for subject in group["subjects"]}
    assert answers["user:alice"] == "yes"
    assert answers["user:rosa"] == answers["user:*"] == "no"
    for subject, answer in answers.items():
        if not subject.endswith(":*"):
            assert lab.here("explain", subject, *READ).code == (0 if answer == "yes" else 77)


def test_what_is_supposed_closes_conditions(lab: CliLab) -> None:
    """A member of a record that is given settles its conditions, and leaves the other members open."""
    lines = lab.here("who-can", *SUBMIT, "gpus=8", "--fact", "resource.code.dirty=false").out
    assert "allowed by `small-jobs`" in lines
    assert "resource.code.dirty ==" not in lines
    assert "resource.code.dirty_files.size() > 0" in lines
    assert "when resource.code.dirty == false" in lab.here("can-i", *SUBMIT, "gpus=8", "--subject", "user:alice").out


def test_can_i_exits_with_77_if_the_answer_is_no(lab: CliLab) -> None:
    assert lab.here("can-i", *READ, "--subject", "user:alice").code == 0
    denied = lab.here("can-i", *READ, "--subject", "user:rosa")
    assert (denied.code, "no rule allows it" in denied.out) == (77, True)
    assert lab.here("can-i", *READ, "--subject", "user:rosa", "--role", "member@vision").code == 0


def test_can_i_asks_about_the_account_of_the_process(lab: CliLab) -> None:
    assert f"user:{pwd.getpwuid(os.getuid()).pw_name}" in lab.here("can-i", *READ).out


def test_approvals_that_are_supposed_fill_their_quorum(lab: CliLab) -> None:
    push = (
        "can-i",
        "repo:push",
        READ[1],
        "--fact",
        "resource.ref=refs/heads/main",
        "--subject",
        "user:alice",
        "--json",
    )

    def quorums(*options: str) -> set[str]:
        return {entry["quorum"] for entry in lab.here(*push, *options, "--json").data["requires"]}

    assert "two-leads" in quorums()
    assert "two-leads" in quorums("--approved-by", "user:carol")
    assert "two-leads" not in quorums("--approved-by", "user:carol", "--approved-by", "user:dan")
    assert "two-leads" in quorums(
        *("--approved-by", "user:carol", "--approved-by", "user:dan", "--contributor", "user:dan")
    )


def test_list_says_what_a_subject_may_do_in_each_domain(lab: CliLab) -> None:
    data = lab.here("list", "user:alice", "--on", "repo", "--json").data
    rows = {(row["action"], row["domain"]): row["answer"] for row in data["actions"]}
    assert rows["repo:read", "vision"] == "yes"
    assert rows["repo:push", "vision"] == "if"
    assert ("repo:read", "llm") not in rows
    assert lab.here("list", "user:alice", "--on", "repo", "--role", "member@llm", "--json").data["actions"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("who-can", "repo:reed", READ[1]), 65, "unknown action `repo:reed`"),
        (("who-can", "repo:read", "repos:team/vision/trainer"), 65, "unknown resource type `repos`"),
        (("who-can", *READ, "--fact", "subject.level=3"), 64, "ask `can-i`"),
        (("can-i", *READ, "--subject", "alice"), 64, "expected TYPE:ID"),
        (("can-i", *READ, "--subject", "robot:x"), 65, "unknown subject type `robot`"),
        (("list", "user:alice", "--on", "repos"), 65, "unknown resource type `repos`"),
        (("list", "robot:x"), 65, "expected a type of subject"),
        (("who-can", "repo:read", "repo:elsewhere"), 65, "expected an id that fits"),
    ],
)
def test_a_wrong_question_is_one_line(lab: CliLab, words: tuple[str, ...], code: int, message: str) -> None:
    ended = lab.here(*words)
    assert (ended.code, ended.out) == (code, "")
    assert message in ended.complaint


def test_a_hundred_thousand_subjects_share_few_answers() -> None:
    """Each set of roles is answered once; every subject gets the answer of its roles."""
    bindings = "\n".join(
        f'  - {{subject: "user:u{number}", role: {"lead" if number % 7 == 0 else "member"}, domain: red}}'
        for number in range(20_000)
    )
    policies = load(
        {
            "lab.yaml": f"""\
apiVersion: policyguard/v1
kind: Schema
subjects: {{user: {{}}}}
resources: {{job: {{id: "team/{{team}}/**", actions: [kill], attributes: {{gpus: {{type: int}}}}}}}}
---
apiVersion: policyguard/v1
kind: Roles
roles: [{{name: member}}, {{name: lead}}]
---
apiVersion: policyguard/v1
kind: Bindings
bindings:
{bindings}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {{name: jobs, owner: platform}}
rules:
  - {{id: leads, effect: allow, roles: [lead], actions: [job:kill], resources: {{type: job}}}}
  - {{id: small, effect: allow, roles: [member], actions: [job:kill], resources: {{type: job}},
     when: resource.gpus < 9}}
""".encode()
        }
    )
    snapshot = Snapshot.of(policies, grants_of(policies))
    question = Question(action="job:kill", resource=Entity("job", "team/red/1"), now=time.time_ns())
    answers = dict(who_can(snapshot, question))
    assert answers["user:u7"].verdict == "yes"
    assert answers["user:u8"].verdict == "if"
    assert answers["user:*"].verdict == "no"
    assert len({id(answer) for answer in answers.values()}) == 3
