"""Approvals of weights and of policies: they count for what is really there, whatever the request calls it."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from policyguard.attest.approval import NAMESPACE, approval_statement
from policyguard.attest.keys import PrivateKey
from policyguard.attest.sshsig import sign
from policyguard.policy_store.load import load_snapshot
from policyguard.values import NANOSECONDS_PER_S
from tests.attacks.checkpoint_lab import safetensors
from tests.e2e.cli_lab import CliLab

KEYS = {name: PrivateKey(bytes([number]) * 32) for number, name in enumerate(("dan", "omar", "tara"), 1)}
EXPORT = {
    "subject": {"type": "user", "id": "carol"},
    "action": {"name": "checkpoint:export"},
    "resource": {"type": "checkpoint", "id": "team/vision/base"},
}
PUBLISH = {
    "subject": {"type": "user", "id": "sam"},
    "action": {"name": "policy:publish"},
    "resource": {"type": "policy", "id": "lab/policies"},
    "context": {"ticket": "CHG-7"},
}


@pytest.fixture
def keyed(lab: CliLab) -> CliLab:
    """The example lab with three people's keys, a folder of approvals, weights, and two requests."""
    persons = lab.path("policies", "persons.yaml")
    text = persons.read_text()
    for name, key in KEYS.items():
        mail = f"emails: [{name}@lab.example]"
        text = text.replace(mail, f'{mail}, keys: ["{key.public.text}"]')
    persons.write_text(text)
    lab.path("approvals").mkdir()
    with lab.path("policyguard.yaml").open("a") as file:
        file.write("approvals: approvals\n")
    weights = safetensors(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x")
    lab.path("base.safetensors").write_bytes(weights)
    lab.path("export.json").write_text(json.dumps(EXPORT))
    lab.path("publish.json").write_text(json.dumps(PUBLISH))
    return lab


def approve(lab: CliLab, who: str, subject: str, digest: str, asked: dict[str, Any]) -> None:
    made = (time.time_ns() // NANOSECONDS_PER_S - 60) * NANOSECONDS_PER_S
    resource = asked["resource"]
    payload = approval_statement(
        subjects={subject: digest},
        action=asked["action"]["name"],
        resource=f"{resource['type']}:{resource['id']}",
        approver=f"user:{who}",
        reason="looked at it",
        approved_at=made,
        expires=made + 3600 * NANOSECONDS_PER_S,
    ).payload
    lab.path("approvals", f"{who}.json").write_bytes(payload)
    lab.path("approvals", f"{who}.json.sig").write_bytes(sign(payload, NAMESPACE, KEYS[who]))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_weights_leave_when_two_approved_these_very_bytes(keyed: CliLab) -> None:
    """One is not enough, two are; after one changed byte they are for other weights."""
    words = ("decide", "--artifact", "base.safetensors", "--json", "export.json")
    weights = keyed.path("base.safetensors")
    approve(keyed, "dan", "checkpoint", sha256(weights), EXPORT)
    alone = keyed.here(*words)
    assert (alone.code, alone.data["reason_codes"][0]) == (77, "needs-approval")
    approve(keyed, "omar", "checkpoint", sha256(weights), EXPORT)
    allowed = keyed.here(*words)
    assert (allowed.code, allowed.data["decision"]) == (0, True), allowed.out
    weights.write_bytes(weights.read_bytes()[:-1] + b"y")
    changed = keyed.here(*words)
    assert changed.code == 77
    for name in ("dan", "omar"):
        assert f"{name}.json" in changed.data["explanation"]
    assert "approval.other_checkpoint" in changed.data["explanation"]


def test_nothing_is_approved_where_nothing_was_measured(keyed: CliLab) -> None:
    """INVARIANT I2: without a path, or with one that is not there, the approvals count for nothing."""
    for who in ("dan", "omar"):
        approve(keyed, who, "checkpoint", sha256(keyed.path("base.safetensors")), EXPORT)
    for words in ((), ("--artifact", "gone.safetensors")):
        denied = keyed.here("decide", *words, "--json", "export.json")
        assert (denied.code, denied.data["decision"]) == (77, False)
        assert denied.err == ""


def test_policies_are_published_when_two_approved_just_these(keyed: CliLab) -> None:
    """The digest is that of the folder as it loads; one more rule is another policy, and needs them again."""
    words = ("decide", "--observed", "context.ticket", "--artifact", "proposed", "--json", "publish.json")
    proposed = keyed.path("proposed")
    proposed.mkdir()
    for path in keyed.path("policies").iterdir():
        (proposed / path.name).write_bytes(path.read_bytes())
    digest = load_snapshot(proposed, ()).policy_digest
    approve(keyed, "tara", "policy", digest, PUBLISH)
    approve(keyed, "omar", "policy", digest, PUBLISH)
    allowed = keyed.here(*words)
    assert (allowed.code, allowed.data["decision"]) == (0, True), allowed.out
    quorums = proposed / "quorums.yaml"
    quorums.write_text(quorums.read_text().replace("count: 2", "count: 1"))
    denied = keyed.here(*words)
    assert denied.code == 77
    assert "approval.other_policy" in denied.data["explanation"]


def test_a_job_is_not_measured_by_a_path(keyed: CliLab) -> None:
    """One line says who looks at jobs; nothing is decided, nothing logged."""
    ended = keyed.here("decide", "--artifact", "base.safetensors", "requests/allowed.json")
    assert (ended.code, ended.out) == (78, "")
    assert "expected a checkpoint, a dataset or policies" in ended.complaint
    assert not keyed.path("audit.db").exists()
