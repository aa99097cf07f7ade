"""Attempts to have too few people pass for enough, and the count against brute force."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policyguard.decide.quorum import unmet_approvals
from policyguard.model.facts import Approval, Assurance, Facts
from policyguard.model.policy import Approvers, Quorum
from policyguard.model.request import Request
from policyguard.values import Instant

NOW = 1_800_000_000 * 10**9
S = 10**9
PERSONS = {f"user:{name}": name for name in ("ann", "bob", "cyd", "dee", "eve", "fay")} | {"user:bob2": "bob"}
REQUEST = Request.of("user:ann", "job:submit", "job:team/red/run")
ROLES = {
    "user:bob": ("lead",),
    "user:bob2": ("safety",),
    "user:cyd": ("lead",),
    "user:dee": ("lead", "safety"),
    "user:eve": ("safety",),
    "user:fay": (),
    "user:ann": ("lead", "safety"),
    "user:nobody": ("lead",),
}


def held(account: str, domain: str | None, now: Instant) -> tuple[str, ...]:
    """The lab's roles are held in `red`; dee's everywhere."""
    return ROLES.get(account, ()) if now == NOW and (domain == "red" or account == "user:dee") else ()


def approval(
    account: str, *, assurance: Assurance = Assurance.ATTESTED, approved_at: int = NOW, expires: int = NOW + 1
) -> Approval:
    return Approval(account, assurance, "test", approved_at, expires, "0" * 64)


def unmet(
    quorum: Quorum, *approvals: Approval, contributors: tuple[str, ...] | None = (), domain: str | None = "red"
) -> int:
    facts = Facts(REQUEST, {}, approvals=approvals, contributors=contributors)
    return sum(gap.needed for gap in unmet_approvals(quorum, "rule", facts, domain, NOW, PERSONS, held))


def quorum(count: int = 1, max_age_s: int | None = 60, assurance: Assurance = Assurance.ATTESTED) -> Quorum:
    group = Approvers(count=count, roles=("lead",))
    return Quorum(id="q", approvers=(group,), max_age_s=max_age_s, assurance=assurance)


@pytest.mark.parametrize(
    ("refused", "accepted"),
    [
        (approval("user:bob", assurance=Assurance.MEASURED), approval("user:bob")),
        (approval("user:bob", approved_at=NOW + 1), approval("user:bob", approved_at=NOW)),
        (approval("user:bob", expires=NOW), approval("user:bob", expires=NOW + 1)),
        (approval("user:bob", approved_at=NOW - 60 * S - 1), approval("user:bob", approved_at=NOW - 60 * S)),
        (approval("user:ann"), approval("user:bob")),
        (approval("user:nobody"), approval("user:cyd")),
        (approval("user:eve"), approval("user:dee")),
        (approval("user:BOB"), approval("user:bob")),
    ],
    ids=[
        "weaker than attested",
        "from the future",
        "expired",
        "too old",
        "the requester's own",
        "of nobody known",
        "in another role",
        "in another case",
    ],
)
def test_an_approval_that_does_not_count_and_its_twin(refused: Approval, accepted: Approval) -> None:
    """Each check refuses on its own, and one step away an approval counts."""
    assert unmet(quorum(), refused) == 1
    assert unmet(quorum(), accepted) == 0


def test_an_approval_has_no_age_where_none_is_asked_for() -> None:
    """Without `maxAge` an old approval counts until it expires; with the shortest, only a fresh one does."""
    old = approval("user:bob", approved_at=0)
    assert unmet(quorum(max_age_s=None), old) == 0
    assert unmet(quorum(max_age_s=0), old) == 1
    assert unmet(quorum(max_age_s=0), approval("user:bob")) == 0


@pytest.mark.parametrize("contributors", [None, ("user:ghost",), ("user:cyd", "user:ghost"), ("user:bob2",)])
def test_a_contributor_known_or_not_is_no_approver(contributors: tuple[str, ...] | None) -> None:
    """INVARIANT I8: bob contributed, under whichever account, or nobody can say who did; the twin is independent."""
    assert unmet(quorum(), approval("user:bob"), contributors=contributors) == 1
    assert unmet(quorum(), approval("user:bob"), contributors=("user:cyd",)) == 0


def test_a_requester_nobody_knows_gets_no_approval() -> None:
    """INVARIANT I8: the requester might be any of the approvers."""
    facts = Facts(
        Request.of("user:ghost", "job:submit", "job:team/red/run"),
        {},
        approvals=(approval("user:bob"),),
        contributors=(),
    )
    assert unmet_approvals(quorum(), "rule", facts, "red", NOW, PERSONS, held)


def test_one_person_fills_one_place_however_often_they_approve() -> None:
    """INVARIANT I8: two accounts, two signatures, two roles: one person."""
    twice = (approval("user:bob"), approval("user:bob"), approval("user:bob2"))
    assert unmet(quorum(count=2), *twice) == 1
    both = Quorum(id="q", approvers=(Approvers(count=1, roles=("lead",)), Approvers(count=1, roles=("safety",))))
    assert unmet(both, *twice) == 1
    assert unmet(both, *twice, approval("user:dee")) == 0


def test_a_role_counts_in_its_own_domain() -> None:
    """A lead of red is none of blue, nor of every team; dee is one everywhere."""
    for domain, place in (("blue", None), ("red", "blue"), ("red", "*"), (None, None)):
        group = Quorum(id="q", approvers=(Approvers(count=1, roles=("lead",), domain=place),))
        assert unmet(group, approval("user:bob"), domain=domain) == 1
        assert unmet(group, approval("user:dee"), domain=domain) == 0
    assert (
        unmet(
            Quorum(id="q", approvers=(Approvers(count=1, roles=("lead",), domain="red"),)),
            approval("user:bob"),
            domain="blue",
        )
        == 0
    )


ACCOUNTS = ("user:ann", "user:bob", "user:bob2", "user:cyd", "user:dee", "user:eve", "user:fay", "user:nobody")
groups = st.builds(
    Approvers,
    count=st.integers(1, 2),
    roles=st.sampled_from((("lead",), ("safety",), ("lead", "safety"))),
    domain=st.sampled_from((None, "red", "blue", "*")),
)


def most_filled(asked: tuple[Approvers, ...], accounts: set[str], domain: str) -> int:
    """Return how many places can be filled at once, by trying every order of persons."""
    places = [group for group in asked for _ in range(group.count)]
    people: dict[str, set[str]] = {}
    for account in accounts - {"user:ann", "user:nobody"}:
        people.setdefault(PERSONS[account], set()).add(account)

    def fits(person: str | None, group: Approvers) -> bool:
        where = None if group.domain == "*" else group.domain or domain
        return person is not None and any({*group.roles} & {*held(each, where, NOW)} for each in people[person])

    seats = [*people, *(None for _ in places)]
    return max(sum(map(fits, order, places)) for order in permutations(seats, len(places)))


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(groups, min_size=1, max_size=2).map(tuple),
    st.sets(st.sampled_from(ACCOUNTS), max_size=5),
    st.sampled_from(("red", "blue")),
)
def test_as_many_places_are_filled_as_can_be(asked: tuple[Approvers, ...], accounts: set[str], domain: str) -> None:
    """No more places than distinct people can take, and no fewer, whatever the order of approvals."""
    found = unmet(Quorum(id="q", approvers=asked), *(approval(each) for each in accounts), domain=domain)
    assert found == sum(group.count for group in asked) - most_filled(asked, accounts, domain)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (approval("user:nobody"), "`user:nobody` belongs to no known person"),
        (approval("user:ann"), "`user:ann` contributed to what is to be approved, or asks for it"),
        (approval("user:eve"), "eve holds none of the roles asked for"),
        (approval("user:bob", expires=NOW), "`user:bob` approval has expired"),
    ],
)
def test_a_gap_says_why_an_approval_does_not_count(given: Approval, words: str) -> None:
    """The reason is the approver's own, and nobody who counts is named."""
    facts = Facts(REQUEST, {}, approvals=(given, approval("user:cyd")), contributors=())
    (gap,) = unmet_approvals(quorum(count=2), "rule", facts, "red", NOW, PERSONS, held)
    assert gap.needed == 1
    assert [reason.partition(": ")[2] for reason in gap.because] == [words]
