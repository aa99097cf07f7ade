"""Until when an allow may be used: no longer than the approvals that it rests on count. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from policyguard.decide.quorum import RolesAt, gaps
from policyguard.model.facts import Facts
from policyguard.model.policy import Quorum
from policyguard.values import NANOSECONDS_PER_S, Instant


def met_until(
    quorum: Quorum,
    rule_id: str,
    facts: Facts,
    domain: str | None,
    now: Instant,
    until: Instant,
    persons: Mapping[str, str],
    roles_at: RolesAt,
) -> Instant:
    """Return the last end, at most `until`, before which this quorum is met all the time; it is met `now`.

    Who holds which role is asked as of `now`. More approvals than are needed count in favour: the end is that of the
    last set of them that suffices.
    """
    ends = {until}
    for approval in facts.approvals:
        ends.add(approval.expires)
        if quorum.max_age_s is not None:
            ends.add(approval.approved_at + quorum.max_age_s * NANOSECONDS_PER_S)

    def roles_now(account: str, where: str | None, _: Instant) -> tuple[str, ...]:
        return tuple(roles_at(account, where, now))

    for end in sorted((end for end in ends if now < end <= until), reverse=True):
        # INVARIANT I221: a decision lives no longer than the approvals that it rests on.
        if not gaps(quorum, rule_id, facts, domain, end - 1, persons, roles_now):
            return end
    return now + 1
