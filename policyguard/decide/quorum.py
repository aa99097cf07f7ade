"""Checks whether enough distinct persons approved. One person fills one seat; contributors and requester fill none.

Pure. An account that is not in `Persons` disqualifies every approver, because it might belong to any of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from policyguard.model.decision import UnmetQuorum
from policyguard.model.facts import Approval, Facts
from policyguard.model.policy import ANY_DOMAIN, Quorum
from policyguard.values import NANOSECONDS_PER_S, Instant

RolesAt = Callable[[str, str | None, Instant], Sequence[str]]


def unmet_approvals(
    quorum: Quorum,
    rule_id: str,
    facts: Facts,
    domain: str | None,
    now: Instant,
    persons: Mapping[str, str],
    roles_at: RolesAt,
) -> tuple[UnmetQuorum, ...]:
    """List the groups of approvers that are still missing; empty if the quorum is met.

    Args:
        persons: account (`user:alice`) to person.
        roles_at: (account, domain, now) to the roles held there, inherited ones included.
    """
    eligible, because = _eligible(quorum, facts, now, persons)
    seats = _seats(quorum, domain)
    candidates = {
        person: [
            number
            for number, (_, roles, where) in enumerate(seats)
            if any(not set(roles).isdisjoint(roles_at(account, _domain(where), now)) for account in accounts)
        ]
        for person, accounts in eligible.items()
    }
    unsuitable = [person for person, open_to in candidates.items() if not open_to]
    because += [f"approval.no_role: {person} holds none of the roles asked for" for person in unsuitable]
    filled = _assign(candidates, len(seats))
    missing = Counter(index for number, (index, _, _) in enumerate(seats) if number not in filled)
    return tuple(
        UnmetQuorum(
            quorum.id,
            rule_id,
            count,
            quorum.approvers[index].roles,
            quorum.approvers[index].domain or domain or ANY_DOMAIN,
            tuple(sorted(set(because))),
        )
        for index, count in sorted(missing.items())
    )


SCENARIOS: Mapping[str, str] = {
    "approval.contributor": "sod.approver_is_contributor",
    "approval.same_person": "sod.same_person",
    "approval.other_tree": "bind.tree_mismatch",
}
"""Reasons why approvals do not count, with the reason code of the decision."""


def rejection_codes(missing: Sequence[UnmetQuorum]) -> set[str]:
    """Collect the reason codes of submitted approvals that do not count."""
    lines = [line.partition(":")[0] for gap in missing for line in gap.because]
    return {SCENARIOS[code] for code in lines if code in SCENARIOS}


def _seats(quorum: Quorum, domain: str | None) -> list[tuple[int, tuple[str, ...], str | None]]:
    """List the seats to fill: the group of approvers, its roles, and the domain where these must be held."""
    return [
        (index, approvers.roles, approvers.domain or domain)
        for index, approvers in enumerate(quorum.approvers)
        for _ in range(approvers.count)
    ]


def _domain(where: str | None) -> str | None:
    return None if where == ANY_DOMAIN else where


def _eligible(
    quorum: Quorum, facts: Facts, now: Instant, persons: Mapping[str, str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the persons whose approvals count, with their accounts, and the reasons why others do not."""
    # INVARIANT I8: without the fact `contributors` no approver counts, nor with a contributor nobody knows.
    if facts.contributors is None:
        return {}, ["who contributed is not known, so nobody can be shown to be independent", *facts.unusable]
    conflicted: set[str] = set()
    asker = facts.request.subject.ref
    for account in (*facts.contributors, asker):
        person = persons.get(account)
        if person is None:
            unknown_person = f"`{account}` belongs to no known person, so any approver might be the same human"
            return {}, [unknown_person, *facts.unusable]
        conflicted.add(person)
    eligible: dict[str, list[str]] = {}
    because = list(facts.unusable)
    for approval in facts.approvals:
        reason = _unusable(approval, quorum, now)
        person = persons.get(approval.account)
        if reason is None and approval.account != asker and person == persons.get(asker):
            reason = "same_person", "is a second account of who asks"
        elif reason is None and person in conflicted:
            reason = "contributor", "contributed to what is to be approved, or asks for it"
        elif reason is None and person in eligible:
            because.append(f"approval.same_person: `{approval.account}` is {person}, who counts already")
        if reason is not None or person is None:
            code, text = reason or ("unknown_person", "belongs to no known person")
            because.append(f"approval.{code}: `{approval.account}` {text}")
        else:
            # INVARIANT I8: a second account of one person adds no approver.
            eligible.setdefault(person, []).append(approval.account)
    return eligible, because


def _unusable(approval: Approval, quorum: Quorum, now: Instant) -> tuple[str, str] | None:
    """Return the reason code and text if an approval cannot be used, else None."""
    if approval.assurance < quorum.assurance:
        return "too_weak", f"approval is only {approval.assurance.word}, {quorum.assurance.word} counts"
    if not approval.approved_at <= now:
        return "not_yet_valid", "approved in the future"
    if not now < approval.expires:
        return "expired", "approval has expired"
    if quorum.max_age_s is not None and now - approval.approved_at > quorum.max_age_s * NANOSECONDS_PER_S:
        return "too_old", f"approved more than {quorum.max_age_s} s ago"
    return None


def _assign(candidates: Mapping[str, list[int]], seats: int) -> dict[int, str]:
    """Assign persons to seats so that as many seats as possible are filled (augmenting paths)."""
    filled: dict[int, str] = {}

    def seat(person: str, seen: set[int]) -> bool:
        for seat_number in candidates[person]:
            if seat_number not in seen:
                seen.add(seat_number)
                if seat_number not in filled or seat(filled[seat_number], seen):
                    filled[seat_number] = person
                    return True
        return False

    for person in sorted(candidates):
        if len(filled) < seats:
            seat(person, set())
    return filled


def satisfied_until(
    quorum: Quorum,
    rule_id: str,
    facts: Facts,
    domain: str | None,
    now: Instant,
    until: Instant,
    persons: Mapping[str, str],
    roles_at: RolesAt,
) -> Instant:
    """Return the latest time, at most `until`, up to which a quorum that is met now stays met.

    Who holds which role is asked as of `now`. More approvals than are needed count in favour: the end is that of the
    last set of them that suffices.

    Args:
        quorum: the quorum.
        rule_id: the rule that requires it.
        facts: the facts about the request.
        domain: the domain; None where the resource type has none.
        now: the current time.
        until: the latest possible end.
        persons: account (`user:alice`) to person.
        roles_at: (account, domain, now) to the roles held there.
    """
    ends = {until}
    for approval in facts.approvals:
        ends.add(approval.expires)
        if quorum.max_age_s is not None:
            ends.add(approval.approved_at + quorum.max_age_s * NANOSECONDS_PER_S)

    def roles_now(account: str, where: str | None, _: Instant) -> tuple[str, ...]:
        return tuple(roles_at(account, where, now))

    for end in sorted((end for end in ends if now < end <= until), reverse=True):
        # INVARIANT I9: a decision lives no longer than the approvals that it rests on.
        if not unmet_approvals(quorum, rule_id, facts, domain, end - 1, persons, roles_now):
            return end
    return now + 1
