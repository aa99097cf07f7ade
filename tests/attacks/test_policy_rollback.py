"""Older policies do not decide after newer ones in the same log, in any process: `roll.sh`."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyguard.attest.statement import parse_statement
from policyguard.audit.log import Log
from policyguard.audit.policy_epochs import PolicyUse
from policyguard.decide.compiled_form import compile_policy
from policyguard.errors import ConfigurationError
from policyguard.guard import Guard
from policyguard.model.request import Request
from policyguard.policy.bundle import seal
from policyguard.policy.loader import load
from policyguard.policy_store.folder import grants_of
from tests.attacks.test_log_continuity import KEY, POLICIES, Lab, ask

MORE = """\
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: more, owner: platform}
rules:
  - {id: more, effect: deny, actions: [job:submit], resources: {type: job}, when: 'resource.id == "team/x/y"'}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def text(epoch: int, *, name: str | None = "lab", more: bool = False) -> str:
    metadata = f"metadata: {{name: {name}, epoch: {epoch}}}\n" if name else ""
    return POLICIES.replace("metadata: {name: lab, epoch: 1}\n", metadata) + (MORE if more else "")


def compiled(lab: Lab, epoch: int, *, name: str | None = "lab", more: bool = False) -> Path:
    policies = load({"p.yaml": text(epoch, name=name, more=more).encode()})
    path = lab.folder / f"snapshot-{epoch}-{name}-{more}"
    path.write_bytes(seal(compile_policy(policies, grants_of(policies)), (KEY,)))
    return path


def folder(lab: Lab, epoch: int, *, more: bool = False) -> Path:
    (lab.folder / "policies" / "p.yaml").write_text(text(epoch, more=more))
    return lab.folder / "policies"


def guard(lab: Lab, policies: Path) -> Guard:
    return Guard.open(policies, key=lab.folder / "guard.key", log=lab.log)


def decide(lab: Lab, policies: Path) -> int:
    with guard(lab, policies) as opened:
        return ask(opened)


def policy_of(lab: Lab, policies: Path) -> tuple[int, object, object]:
    with guard(lab, policies) as opened:
        signed = opened.decide(Request.of("user:alice", "job:submit", "job:team/vision/x"))
    policy = parse_statement(signed.envelope.payload).predicate.policy
    return policy.epoch, policy.name, policy.edited is True


def test_an_older_snapshot_does_not_decide_after_a_newer_one(lab: Lab) -> None:
    decide(lab, compiled(lab, 2))
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="are of epoch 1, expected at least 2, which this log has seen"):
            decide(lab, compiled(lab, 1))
    assert decide(lab, compiled(lab, 2)) == 1
    assert decide(lab, compiled(lab, 3)) == 2


def test_an_older_folder_does_not_decide_after_a_newer_snapshot(lab: Lab) -> None:
    decide(lab, compiled(lab, 2))
    with pytest.raises(ConfigurationError, match="epoch 1"):
        decide(lab, folder(lab, 1))
    decide(lab, folder(lab, 2))


def test_a_running_guard_with_older_policies_stops(lab: Lab) -> None:
    """It was there first; another process has used newer policies since."""
    with guard(lab, compiled(lab, 1)) as old:
        ask(old)
        decide(lab, compiled(lab, 2))
        with pytest.raises(ConfigurationError, match="epoch 1"):
            ask(old)
        with pytest.raises(ConfigurationError, match="epoch 1"):
            old.issue_many([old.gather(Request.of("user:alice", "job:submit", "job:team/vision/x"))] * 3)
    assert decide(lab, compiled(lab, 2)) == 2


def test_who_hides_the_name_of_old_policies_gains_nothing(lab: Lab) -> None:
    decide(lab, compiled(lab, 2))
    with pytest.raises(ConfigurationError, match="policies without a name are of epoch 1"):
        decide(lab, compiled(lab, 1, name=None))


def test_another_policy_set_has_epochs_of_its_own(lab: Lab) -> None:
    """The twin: two policy sets in one log."""
    decide(lab, compiled(lab, 5))
    assert decide(lab, compiled(lab, 1, name="other")) == 1
    assert decide(lab, compiled(lab, 5)) == 2


def test_a_signed_snapshot_of_the_same_epoch_has_the_same_digest(lab: Lab) -> None:
    decide(lab, compiled(lab, 1))
    decide(lab, compiled(lab, 1))
    with pytest.raises(ConfigurationError, match="which this log has seen of that epoch") as caught:
        decide(lab, compiled(lab, 1, more=True))
    assert "raise `epoch:`" in str(caught.value.help)
    decide(lab, compiled(lab, 2, more=True))


def test_an_edited_folder_is_recorded_as_edited(lab: Lab) -> None:
    """A folder is edited while it is developed: allowed, and the statements say so."""
    assert policy_of(lab, folder(lab, 1)) == (1, "lab", False)
    assert policy_of(lab, folder(lab, 1, more=True)) == (1, "lab", True)
    assert policy_of(lab, folder(lab, 1)) == (1, "lab", False)
    assert policy_of(lab, folder(lab, 2, more=True)) == (2, "lab", False)


def test_a_running_guard_says_edited_once_another_process_was_first(lab: Lab) -> None:
    """Its statements were made before the transaction that finds out; they are made again."""
    snapshot = compiled(lab, 2)
    with guard(lab, folder(lab, 2, more=True)) as edited:
        decide(lab, snapshot)
        signed = edited.decide(Request.of("user:alice", "job:submit", "job:team/vision/x"))
    assert parse_statement(signed.envelope.payload).predicate.policy.edited is True
    assert signed.receipt.index == 1


@pytest.mark.parametrize("lost", ["policies of the head", "head of an older entry"])
def test_the_entries_are_the_record(lab: Lab, lost: str) -> None:
    """What the head file remembers of policies is a copy: a head of an older entry reads the rest from the log."""
    decide(lab, compiled(lab, 1))
    (path,) = lab.log.parent.glob("*.head")
    before = path.read_bytes()
    decide(lab, compiled(lab, 2))
    if lost == "head of an older entry":
        path.write_bytes(before)
    else:
        with Log.open(lab.log, KEY) as log:
            assert log.is_edited(PolicyUse(name="lab", epoch=2, digest="f" * 64, is_signed=False))
    with pytest.raises(ConfigurationError, match="epoch 1"):
        decide(lab, compiled(lab, 1))
