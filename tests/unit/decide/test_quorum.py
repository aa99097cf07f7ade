"""Quorums: persons fill places, one each, and whoever might not be independent fills none."""

from __future__ import annotations

from itertools import combinations, permutations, product

import pytest

from policyguard.decide.quorum import unmet_approvals
from policyguard.model.decision import UnmetQuorum
from policyguard.model.facts import Approval, Assurance, Facts
from policyguard.model.policy import Approvers, Quorum
from policyguard.model.request import Request

NOW = 1_800_000_000 * 10**9
HOUR = 3600 * 10**9
REQUEST = Request.of("user:alice", "job:submit", "job:team/vision/run-17")
PERSONS = {f"user:{name}": name for name in ("alice", "bob", "carol", "dan", "erin")} | {"user:carol-admin": "carol"}
ROLES = {"user:carol": ("lead",), "user:carol-admin": ("infra",), "user:dan": ("lead",), "user:erin": ("lead", "infra")}
TWO_LEADS = Quorum(id="two-leads", approvers=(Approvers(count=2, roles=("lead",)),))


def approval(account: str, *, assurance: Assurance = Assurance.ATTESTED, ago: int = 0, left: int = HOUR) -> Approval:
    return Approval(f"user:{account}", assurance, "test", NOW - ago, NOW + left, "00")


def missing(
    quorum: Quorum, *approvals: Approval, contributors: tuple[str, ...] | None = (), domain: str | None = "vision"
) -> tuple[UnmetQuorum, ...]:
    facts = Facts(request=REQUEST, approvals=approvals, contributors=contributors)
    return unmet_approvals(quorum, "rule", facts, domain, NOW, PERSONS, lambda account, where, _: roles(account, where))


def roles(account: str, where: str | None) -> tuple[str, ...]:
    return ROLES.get(account, ()) if where in ("vision", None) else ()


def test_two_leads_are_two_leads() -> None:
    """The twin of everything below: two independent leads, and nothing is missing."""
    assert missing(TWO_LEADS, approval("carol"), approval("dan")) == ()


REFUSED = {
    "nobody": ((), 2, ""),
    "one lead": ((approval("carol"),), 1, ""),
    "one lead twice": ((approval("carol"), approval("carol")), 1, "approval.same_person"),
    "two accounts of one lead": ((approval("carol"), approval("carol-admin")), 1, "approval.same_person"),
    "the requester": ((approval("carol"), approval("alice")), 1, "approval.contributor"),
    "somebody without the role": ((approval("carol"), approval("bob")), 1, "approval.no_role"),
    "a stranger": ((approval("carol"), approval("zoe")), 1, "approval.unknown_person"),
    "an expired one": ((approval("carol"), approval("dan", left=0)), 1, "approval.expired"),
    "one of the future": ((approval("carol"), approval("dan", ago=-1)), 1, "approval.not_yet_valid"),
    "one that is only measured": (
        (approval("carol"), approval("dan", assurance=Assurance.MEASURED)),
        1,
        "approval.too_weak",
    ),
}


@pytest.mark.parametrize(("approvals", "needed", "because"), REFUSED.values(), ids=list(REFUSED))
def test_who_does_not_count(approvals: tuple[Approval, ...], needed: int, because: str) -> None:
    """The gap says how many are still missing, from which role, and why the others do not count."""
    [gap] = missing(TWO_LEADS, *approvals)
    assert (gap.needed, gap.roles, gap.domain) == (needed, ("lead",), "vision")
    assert because in " ".join(gap.because)


TWICE_WRONG = {
    "expired, by the requester": (approval("alice", left=0), "approval.expired"),
    "expired, by nobody known": (approval("zoe", left=0), "approval.expired"),
    "too weak, by one who counts already": (approval("carol-admin", assurance=Assurance.MEASURED), "approval.too_weak"),
    "of the future, without the role": (approval("bob", ago=-1), "approval.not_yet_valid"),
}


@pytest.mark.parametrize(("given", "because"), TWICE_WRONG.values(), ids=TWICE_WRONG)
def test_the_first_reason_is_the_one_reported(given: Approval, because: str) -> None:
    """One line for an approval: what is wrong with itself before what is wrong with its approver."""
    [gap] = missing(TWO_LEADS, approval("carol"), given)
    assert [line.partition(":")[0] for line in gap.because] == [because]


def test_a_gap_names_where_the_role_is_asked_for() -> None:
    """The quorum's own domain, else the request's, else every one; gaps come in the quorum's order."""
    groups = (Approvers(count=1, roles=("infra",), domain="ops"), Approvers(count=2, roles=("lead",)))
    for domain, shown in (("vision", "vision"), (None, "*")):
        found = missing(Quorum(id="q", approvers=groups), domain=domain)
        assert [(gap.needed, gap.roles, gap.domain) for gap in found] == [
            (1, ("infra",), "ops"),
            (2, ("lead",), shown),
        ]


def test_why_nobody_counts_is_reported_with_what_could_not_be_used() -> None:
    """I8: who contributed is not known, or one of them, or the asker is not; refused approvals keep their reasons."""
    refused = ("approval.forged: x",)
    for contributors, words in ((None, "who contributed is not known"), (("user:zoe",), "`user:zoe` belongs to no")):
        facts = Facts(request=REQUEST, approvals=(), contributors=contributors, unusable=refused)
        [gap] = unmet_approvals(TWO_LEADS, "rule", facts, "vision", NOW, PERSONS, lambda *_: ())
        assert "approval.forged: x" in gap.because
        assert any(line.startswith(words) for line in gap.because)
        assert list(gap.because) == sorted(gap.because)


def test_without_knowing_who_contributed_nobody_counts() -> None:
    """I8: no `contributors`, or one that no person owns, and every approver might be the same human."""
    both = approval("carol"), approval("dan")
    assert missing(TWO_LEADS, *both, contributors=None)[0].needed == 2
    assert missing(TWO_LEADS, *both, contributors=("user:zoe",))[0].needed == 2
    assert missing(TWO_LEADS, *both, contributors=("user:bob",)) == ()


def test_a_contributor_does_not_approve_by_another_account() -> None:
    """Who contributed as one account does not count as another."""
    both = approval("carol"), approval("dan")
    assert missing(TWO_LEADS, *both, contributors=("user:carol-admin",))[0].needed == 1


def test_approvals_grow_old() -> None:
    """With `maxAge` an approval counts to the second and not beyond."""
    quorum = Quorum(id="fresh", approvers=(Approvers(count=1, roles=("lead",)),), max_age_s=60)
    assert missing(quorum, approval("dan", ago=60 * 10**9)) == ()
    [gap] = missing(quorum, approval("dan", ago=60 * 10**9 + 1))
    assert "approval.too_old" in gap.because[0]


def test_roles_are_asked_for_where_the_resource_is() -> None:
    """A lead of vision is none elsewhere, unless the quorum names a place."""
    both = approval("carol"), approval("dan")
    assert missing(TWO_LEADS, *both, domain="llm")[0].needed == 2
    named = Quorum(id="named", approvers=(Approvers(count=2, roles=("lead",), domain="vision"),))
    assert missing(named, *both, domain="llm") == ()


MIXES = [
    mix
    for length in (1, 2)
    for mix in product(((1, ("lead",)), (1, ("infra",)), (2, ("lead",)), (1, ("lead", "infra"))), repeat=length)
]


def test_places_are_filled_as_well_as_can_be() -> None:
    """All small quorums against all sets of approvers: nothing is missing exactly if some seating fills every place."""
    people = ("bob", "carol", "dan", "erin")
    for mix in MIXES:
        quorum = Quorum(id="q", approvers=tuple([Approvers(count=count, roles=names) for count, names in mix]))
        places = [names for count, names in mix for _ in range(count)]
        for size in range(len(people) + 1):
            for chosen in combinations(people, size):
                found = missing(quorum, *map(approval, chosen))
                best = max(seated(seats, places) for seats in permutations([*chosen, *[""] * len(places)], len(places)))
                assert sum(gap.needed for gap in found) == len(places) - best, (mix, chosen)


def test_one_who_fits_two_places_leaves_the_one_that_another_needs() -> None:
    """Whoever of them comes first; with one of them only, a place is empty."""
    quorum = Quorum(id="q", approvers=(Approvers(count=1, roles=("lead",)), Approvers(count=1, roles=("infra",))))
    swapped = Quorum(id="q", approvers=quorum.approvers[::-1])
    for each in (quorum, swapped):
        assert missing(each, approval("carol"), approval("carol-admin"), approval("dan")) == ()
        assert missing(each, approval("erin"), approval("dan")) == ()
        assert len(missing(each, approval("erin"))) == 1


def seated(seats: tuple[str, ...], places: list[tuple[str, ...]]) -> int:
    """Return how many places these persons fill, one place each."""
    return sum(
        bool(set(ROLES.get(f"user:{person}", ())) & set(names)) for person, names in zip(seats, places, strict=True)
    )
