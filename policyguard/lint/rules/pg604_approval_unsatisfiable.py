"""A quorum that too few persons can ever fill: what it guards is denied to everyone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.model.policy import ANY_DOMAIN, Approvers, Quorum

CODE = "PG604"
NAME = "approval-unsatisfiable"
SEVERITY = "error"
HELP = "bind more persons to the roles, list their accounts in `Persons`, or ask for fewer"


def check(context: Context) -> Iterator[Hit]:
    """Yield each quorum that no team has the persons for, at this time. Bindings elsewhere cannot be seen: silent."""
    policies = context.policy_set
    if policies.binding_sources:
        return
    owner = {account: person.id for person in policies.persons for account in person.accounts}
    teams = sorted({binding.domain for binding in policies.bindings} - {ANY_DOMAIN}) or [ANY_DOMAIN]
    for quorum in policies.quorums:
        problems = [_shortage(context, quorum, team, owner) for team in teams]
        if all(problems):
            yield Hit(quorum.span, f"quorum `{quorum.id}` {problems[0]}")


def _shortage(context: Context, quorum: Quorum, team: str, owner: Mapping[str, str]) -> str | None:
    """Return what is missing to fill the quorum for a resource of this team, or None. One person fills one place."""
    asked, together = 0, set()
    for group in quorum.approvers:
        eligible = _eligible(context, group, group.domain or team, owner)
        if len(eligible) < group.count:
            return _words(group.count, len(eligible), "from " + ", ".join(f"`{role}`" for role in group.roles))
        asked += group.count
        together |= eligible
    return _words(asked, len(together), "in all") if len(together) < asked else None


def _words(asked: int, there: int, whom: str) -> str:
    persons = "person" if asked == 1 else "persons"
    return f"asks for {asked} {persons} {whom}, found {there or 'none'}"


def _eligible(context: Context, group: Approvers, domain: str, owner: Mapping[str, str]) -> set[str]:
    """Return the persons with an account that holds one of the roles there and now."""
    return {
        owner[binding.subject]
        for role in group.roles
        for binding in context.bindings_to(role)
        if binding.subject in owner
        and binding.domain in (domain, ANY_DOMAIN)
        and (binding.expires is None or context.now < binding.expires)
        and (binding.not_before is None or binding.not_before <= context.now)
    }
