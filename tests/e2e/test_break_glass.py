"""Break-glass from the emergency to its review: ticket, second person, an hour at most, and somebody who looks."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from policyguard.attest.approval import NAMESPACE, ApprovalTarget, approval_statement
from policyguard.attest.dsse import parse
from policyguard.attest.keys import PrivateKey
from policyguard.attest.sshsig import sign
from policyguard.attest.statement import parse_statement
from policyguard.audit.receipt import SignedDecision
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.verbs.init_ import create_files
from policyguard.decide.snapshot import Snapshot
from policyguard.evidence.approvals.collectors import RequestReviewCollector, ReviewFiles
from policyguard.evidence.breakglass import list_uses
from policyguard.evidence.collector import Collector
from policyguard.evidence.platform import ChannelCollector
from policyguard.guard import Guard
from policyguard.model.request import Request
from policyguard.values import NANOSECONDS_PER_S, Instant, parse_instant
from tests.e2e.cli_lab import LOGIN, Ended

VERBS = ("stop", "kill", "suspend", "modify", "exec", "attach")
ACTIONS = tuple(f"job:breakglass-{verb}" for verb in VERBS)
HOUR = 3_600 * NANOSECONDS_PER_S
KEYS = {name: PrivateKey(bytes([number]) * 32) for number, name in enumerate(("omar", "ines"), 1)}


def asked(who: str = "ines", verb: str = "kill", ticket: str = "INC-18") -> Request:
    context = {"ticket": ticket} if ticket else {}
    size = {"gpus": 8} if verb == "modify" else {}
    return Request.of(f"user:{who}", f"job:breakglass-{verb}", "job:team/vision/run-21", context=context, **size)


def whole_seconds() -> Instant:
    return time.time_ns() // NANOSECONDS_PER_S * NANOSECONDS_PER_S


class House:
    """The example lab, with keys of two engineers, a folder of approvals, and a long lifetime of decisions."""

    def __init__(self, folder: Path, here: Callable[..., Ended]) -> None:
        self.folder, self.here = folder, here
        create_files(folder)
        persons = folder / "policies" / "persons.yaml"
        text = persons.read_text()
        for name, key in KEYS.items():
            mail = f"emails: [{name}@lab.example]"
            text = text.replace(mail, f'{mail}, keys: ["{key.public.text}"]')
        persons.write_text(text)
        (folder / "approvals").mkdir()

    def decide(self, request: Request, *, observed: bool = True, now: Instant | None = None) -> SignedDecision:
        files = ReviewFiles(approvals=self.folder / "approvals")

        def collectors(snapshot: Snapshot, *_: object) -> tuple[Collector, ...]:
            review = RequestReviewCollector(snapshot.people, files, ACTIONS, uid=0)
            return (*([ChannelCollector(("context.ticket",))] if observed else []), review)

        with Guard.open(
            self.folder / "policies",
            key=self.folder / "guard.key",
            log=self.folder / "audit.db",
            collectors=collectors,
            lifetime_s=7 * 86_400,
        ) as guard:
            if now is not None:
                guard._clock = guard._issuer._clock = lambda: now
            return guard.decide(request)

    def acknowledge(self, who: str, request: Request, *, account: str = "", at: Instant | None = None) -> None:
        at = at or whole_seconds()
        statement = approval_statement(
            subjects={"request": ApprovalTarget(request=request).request_digest},
            action=request.action,
            resource=request.resource.ref,
            approver=account or f"user:{who}",
            reason="seen",
            approved_at=at,
            expires=at + 20 * HOUR,
        )
        (self.folder / "approvals" / f"{who}.json").write_bytes(statement.payload)
        (self.folder / "approvals" / f"{who}.json.sig").write_bytes(sign(statement.payload, NAMESPACE, KEYS[who]))

    def audit(self, *words: str, code: int = 0) -> str:
        """Run this verb of `policyguard audit` on the lab and return what it prints."""
        options = {"log": "audit.db"}
        if words[0] != "prove":
            options["key"] = "guard.key"
        if words[0] == "review":
            options |= {"policies": "policies", "config": "policyguard.yaml"}
        paths = [f"--{name}={self.folder / path}" for name, path in options.items()]
        ended = self.here("audit", words[0], *paths, *words[1:])
        assert ended.code == code, ended.err
        return ended.out + ended.err


@pytest.fixture
def house(tmp_path: Path, here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.delenv("POLICYGUARD_CONFIG", raising=False)
    return House(tmp_path / "house", here)


@pytest.mark.parametrize("verb", VERBS)
def test_scenario_11_every_way_to_reach_into_a_job_wants_a_second_person(house: House, verb: str) -> None:
    """Denied alone, allowed once another engineer acknowledged exactly this request; what follows is an obligation."""
    request = asked(verb=verb)
    alone = house.decide(request).decision
    assert "breakglass.unacknowledged" in alone.reason_codes
    house.acknowledge("omar", request)
    decision = house.decide(request).decision
    assert decision.reason_codes == ("breakglass.used",)
    assert {"review.within_24h", "notify.security"} <= set(decision.obligations)
    other = asked(verb=VERBS[VERBS.index(verb) - 1])
    assert not house.decide(other).decision.allowed


def test_scenario_11_a_ticket_that_nobody_observed_is_none(house: House) -> None:
    """The ticket comes from the ticket system's channel; in the request it is only a claim."""
    house.acknowledge("omar", asked())
    assert house.decide(asked(), observed=False).decision.reason_codes == ("engine.no_allow",)
    assert house.decide(asked()).decision.allowed


def test_scenario_11_it_ends_within_an_hour(house: House) -> None:
    """I9: an acknowledgement of forty minutes ago leaves twenty, though decisions live a week; an old one is none."""
    now = whole_seconds()
    house.acknowledge("omar", asked(), at=now - 40 * 60 * NANOSECONDS_PER_S)
    signed = house.decide(asked())
    expires = parse_instant(parse_statement(signed.envelope.payload).predicate.expires)
    assert expires == now + 20 * 60 * NANOSECONDS_PER_S
    house.acknowledge("omar", asked(), at=now - HOUR - 5 * NANOSECONDS_PER_S)
    denied = house.decide(asked()).decision
    assert not denied.allowed
    assert "approval.too_old" in denied.explain()


def test_scenario_12_the_same_person_twice_is_one(house: House) -> None:
    """A second account acknowledges nothing, for no verb."""
    request = asked("omar", "exec")
    house.acknowledge("omar", request, account="user:omar-admin")
    assert "sod.same_person" in house.decide(request).decision.reason_codes


def test_a_use_stays_open_until_somebody_else_reviewed_it(house: House) -> None:
    """I8: whoever used or acknowledged it reviews nothing; a keeper of the policies does, and the log says so."""
    house.decide(asked())
    assert "nothing to review" in house.audit("open-reviews")
    house.acknowledge("omar", asked())
    use = house.decide(asked()).receipt.index
    assert "open until" in house.audit("open-reviews")
    for who in ("user:ines", "user:omar", "user:omar-admin", "user:alice"):
        house.audit("review", str(use), "--as", who, "--finding", "all well", code=77)
    house.audit("review", str(use), "--as", "user:sam", "--finding", "", code=77)
    assert "open until" in house.audit("open-reviews")
    said = house.audit("review", str(use), "--as", "user:sam", "--finding", "the node had lost its disk")
    assert "ALLOW" in said
    assert "nothing to review" in house.audit("open-reviews")
    (line,) = house.audit("open-reviews", "--all", "--json").splitlines()
    data = json.loads(line)
    assert (data["entry"], data["requester"], data["reviewed_by"]) == (use, "user:ines", "user:sam")
    with SqliteStore.open(house.folder / "audit.db", read_only=True) as store:
        row = next(iter(store.read(data["review_entry"], data["review_entry"] + 1)))
    assert b"the node had lost its disk" in parse(row.leaf).payload


def test_nobody_reviews_in_the_name_of_another(house: House) -> None:
    """`--as` is for accounts under `speakFor:`; another one's denial says who asked. The log names the account."""
    house.acknowledge("omar", asked())
    use = str(house.decide(asked()).receipt.index)
    config = house.folder / "policyguard.yaml"
    with_speaker = config.read_text()
    config.write_text("".join(line for line in with_speaker.splitlines(True) if not line.startswith("speakFor:")))
    said = house.audit("review", use, "--as", "user:sam", "--finding", "all well", code=77)
    assert "id.subject_not_allowed" in said
    assert "open until" in house.audit("open-reviews")
    # Without `--as` the account itself reviews; it has no role here.
    assert f"user:{LOGIN}" in house.audit("review", use, "--finding", "all well", code=77)
    with_account = config.read_text() + f'accounts: {{{LOGIN}: "user:sam"}}\n'
    config.write_text(with_account)
    house.audit("review", use, "--finding", "all well")
    with SqliteStore.open(house.folder / "audit.db", read_only=True) as store:
        last = store.last()
        assert last is not None
        leaf = next(iter(store.read(last.entry, last.entry + 1))).leaf
    predicate = parse_statement(parse(leaf).payload).predicate
    assert (predicate.requester, bytes(predicate.facts["subject.account"].value or b"")) == ("user:sam", b'"user:sam"')


def test_a_use_that_nobody_reviewed_in_a_day_is_overdue(house: House) -> None:
    """Told with exit code 1, so that a timer can ask; one of today is not."""
    yesterday = whole_seconds() - 25 * HOUR
    house.acknowledge("omar", asked(), at=yesterday)
    house.decide(asked(), now=yesterday)
    assert "OVERDUE" in house.audit("open-reviews", code=1)
    with SqliteStore.open(house.folder / "audit.db", read_only=True) as store:
        (use,) = list_uses(store)
    assert use.is_overdue(yesterday + 25 * HOUR)
    assert not use.is_overdue(yesterday + 24 * HOUR)


def test_only_uses_can_be_reviewed(house: House) -> None:
    """An entry that is no use of break-glass is named; nothing is decided."""
    house.decide(asked())
    said = house.audit("review", "0", "--as", "user:sam", "--finding", "x", code=78)
    assert "no use of break-glass" in said


def test_a_log_that_does_not_add_up_lists_nothing(house: House, tmp_path: Path) -> None:
    """I13: taking a use out of the log is told, instead of an empty list; at its end, against a kept checkpoint."""
    house.acknowledge("omar", asked())
    for verb in ("kill", "stop", "kill"):
        house.decide(asked(verb=verb))
    note = tmp_path / "note"
    note.write_text(house.audit("prove").rstrip("\n") + "\n")
    assert "nothing" not in house.audit("open-reviews", "--checkpoint", str(note))
    for entry in (2, 0):
        with closing(sqlite3.connect(house.folder / "audit.db")) as connection:
            connection.execute("DELETE FROM entries WHERE idx = ?", (entry,))
            connection.commit()
        said = house.audit("open-reviews", "--checkpoint", str(note), code=69)
        assert said.startswith("policyguard: ")
        assert len(said.splitlines()) <= 2
