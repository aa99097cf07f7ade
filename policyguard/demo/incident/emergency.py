"""Break-glass in the replay: refused to one person alone, used by two, reviewed by a third."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from policyguard.assembly.jobs import review_files
from policyguard.attest.approval import APPROVAL_PAYLOAD_TYPE, ApprovalTarget, approval_statement
from policyguard.attest.dsse import sign
from policyguard.audit.receipt import SignedDecision
from policyguard.cli.files import write_new
from policyguard.decide.snapshot import Snapshot
from policyguard.demo.incident.lab import Lab
from policyguard.demo.incident.story import Story
from policyguard.evidence.approvals.collectors import RequestReviewCollector
from policyguard.evidence.breakglass import REVIEW_ACTION, ReviewCollector, list_uses
from policyguard.evidence.collector import Collector
from policyguard.evidence.platform import ChannelCollector
from policyguard.model.request import Request
from policyguard.values import NANOSECONDS_PER_S

KILL = "job:breakglass-kill"


def break_glass(lab: Lab, story: Story) -> None:
    """Replay an emergency: one person alone is refused, two succeed, a third reviews the use."""
    request = Request.of("user:omar", KILL, "job:team/vision/bob-run", context={"ticket": "INC-18"})
    story.tried("omar breaks the glass off shift, and acknowledges it himself, with his second account")
    _acknowledge(lab, "omar", request, account="user:omar-admin")
    story.denied(
        "denied; two accounts are one person", _decide(lab, request), "sod.same_person", naming="user:omar-admin"
    )
    story.tried("ines acknowledges it")
    _acknowledge(lab, "ines", request)
    signed = _decide(lab, request)
    story.allowed("allowed for an hour at most, and to be reviewed", signed, "breakglass.used", "review.within_24h")
    (use,) = list_uses(lab.store)
    story.fact("until then it is open", f"entry {use.entry}, due a day later", use.review_entry is None, use.entry)
    for who in ("ines", "ivan"):
        decision = _review(lab, who, use.decision_id)
        story.denied(
            f"{who} cannot call it reviewed", decision, *(["sod.reviewer_is_concerned"] if who == "ines" else [])
        )
    story.allowed("a keeper of the policies can", _review(lab, "sam", use.decision_id), "breakglass.reviewed")
    story.fact("nothing is open any more", "reviewed by user:sam", list_uses(lab.store)[0].reviewed_by == "user:sam")


def _decide(lab: Lab, request: Request) -> SignedDecision:
    def collectors(snapshot: Snapshot, *_: object) -> Sequence[Collector]:
        reviewed = RequestReviewCollector(snapshot.people, review_files(lab.config), (KILL,))
        return (ChannelCollector(("context.ticket",)), reviewed)

    return lab.guard_with(collectors).decide(request)


def _review(lab: Lab, who: str, decision_id: str) -> SignedDecision:
    result = "the node had lost its disk"
    request = Request.of(f"user:{who}", REVIEW_ACTION, f"breakglass:{decision_id}", finding=result)

    def collectors(snapshot: Snapshot, *_: object) -> Sequence[Collector]:
        return (ReviewCollector(lab.root / "audit.db", snapshot.people),)

    return lab.guard_with(collectors).decide(request)


def _acknowledge(lab: Lab, who: str, request: Request, *, account: str = "") -> None:
    now = time.time_ns() // NANOSECONDS_PER_S * NANOSECONDS_PER_S
    statement = approval_statement(
        subjects={"request": ApprovalTarget(request=request).request_digest},
        action=request.action,
        resource=request.resource.ref,
        approver=account or f"user:{who}",
        reason="the node is lost",
        approved_at=now,
        expires=now + 3_600 * NANOSECONDS_PER_S,
    )
    envelope = sign(statement.payload, APPROVAL_PAYLOAD_TYPE, [lab.keys[who]])
    write_new(lab.root / "approvals" / f"{who}-{os.urandom(4).hex()}.json", envelope.to_bytes())
