"""Break-glass in the example lab: a second engineer acknowledges the very request, and nobody else can."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from policyguard.attest.approval import NAMESPACE, ApprovalTarget, approval_statement
from policyguard.attest.keys import PrivateKey
from policyguard.attest.sshsig import sign
from policyguard.cli.verbs.init_ import create_files
from policyguard.decide.snapshot import Snapshot
from policyguard.evidence.approvals.collectors import RequestReviewCollector, ReviewFiles
from policyguard.evidence.collector import Collector
from policyguard.evidence.platform import ChannelCollector
from policyguard.guard import Guard
from policyguard.model.request import Request
from policyguard.values import NANOSECONDS_PER_S

KEYS = {name: PrivateKey(bytes([number]) * 32) for number, name in enumerate(("omar", "ines"), 1)}
REQUEST = Request.of("user:ines", "job:breakglass-kill", "job:team/vision/run-21", context={"ticket": "INC-18"})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    create_files(tmp_path / "home")
    persons = tmp_path / "home" / "policies" / "persons.yaml"
    text = persons.read_text()
    for name, key in KEYS.items():
        mail = f"emails: [{name}@lab.example]"
        text = text.replace(mail, f'{mail}, keys: ["{key.public.text}"]')
    persons.write_text(text)
    (tmp_path / "home" / "approvals").mkdir()
    return tmp_path / "home"


def guard(home: Path) -> Guard:
    files = ReviewFiles(approvals=home / "approvals")

    def collectors(snapshot: Snapshot, *_: object) -> tuple[Collector, ...]:
        review = RequestReviewCollector(snapshot.people, files, ("job:breakglass-kill",), uid=0)
        return (ChannelCollector(("context.ticket",)), review)

    return Guard.open(home / "policies", key=home / "guard.key", log=home / "audit.db", collectors=collectors)


def acknowledge(home: Path, who: str, request: Request = REQUEST, *, account: str = "") -> None:
    now = time.time_ns() // NANOSECONDS_PER_S * NANOSECONDS_PER_S
    statement = approval_statement(
        subjects={"request": ApprovalTarget(request=request).request_digest},
        action=request.action,
        resource=request.resource.ref,
        approver=account or f"user:{who}",
        reason="seen",
        approved_at=now,
        expires=now + 1800 * NANOSECONDS_PER_S,
    )
    (home / "approvals" / f"{who}.json").write_bytes(statement.payload)
    (home / "approvals" / f"{who}.json.sig").write_bytes(sign(statement.payload, NAMESPACE, KEYS[who]))


def test_a_second_engineer_acknowledges(home: Path) -> None:
    """Scenario 11: denied alone, allowed with the second person, who is named in the signed decision."""
    with guard(home) as guard_:
        assert "needs-approval" in guard_.decide(REQUEST).decision.reason_codes
        acknowledge(home, "omar")
        signed = guard_.decide(REQUEST)
        assert signed.decision.reason_codes == ("breakglass.used",)
        assert b"user:omar" in signed.envelope.payload


def test_an_acknowledgement_is_for_one_request(home: Path) -> None:
    """Another job, another ticket and another requester need their own."""
    other = Request.of("user:ines", "job:breakglass-kill", "job:team/vision/run-21", context={"ticket": "INC-19"})
    with guard(home) as guard_:
        acknowledge(home, "omar")
        denied = guard_.decide(other).decision
        assert not denied.allowed
        assert "approval.other_request" in denied.explain()


def test_a_second_account_acknowledges_nothing(home: Path) -> None:
    """Scenario 12: omar asks, and omar-admin says yes."""
    request = Request.of("user:omar", "job:breakglass-kill", "job:team/vision/run-21", context={"ticket": "INC-18"})
    with guard(home) as guard_:
        acknowledge(home, "omar", request, account="user:omar-admin")
        denied = guard_.decide(request).decision
        assert not denied.allowed
        assert "approval.same_person: `user:omar-admin`" in denied.explain()


def test_a_key_taken_out_of_persons_counts_no_more_after_a_reload(home: Path) -> None:
    """Collectors are made from the policies in force."""
    acknowledge(home, "omar")
    with guard(home) as guard_:
        assert guard_.decide(REQUEST).decision.allowed
        persons = home / "policies" / "persons.yaml"
        persons.write_text(persons.read_text().replace(f', keys: ["{KEYS["omar"].public.text}"]', ""))
        guard_.reload()
        denied = guard_.decide(REQUEST).decision
        assert not denied.allowed
        assert "approval.unknown_signer" in denied.explain()
