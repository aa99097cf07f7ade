"""Too few persons can fill a quorum, so everything that requires it is denied to everyone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.model.policy import ANY_DOMAIN, Quorum
from policyguard.text import quoted_list

CODE = "PG604"
NAME = "approval-unsatisfiable"
SEVERITY = "error"
HELP = "bind more persons to the roles, list their accounts in `Persons`, or require fewer"

_ByDomain: TypeAlias = "dict[str, set[str]]"


def check(context: Context) -> Iterator[Hit]:
    """Yield each quorum for which no team has enough persons now; nothing if bindings are stored elsewhere."""
    policies = context.policy_set
    if policies.binding_sources:
        return
    teams = sorted({binding.domain for binding in policies.bindings} - {ANY_DOMAIN}) or [ANY_DOMAIN]
    required = {role for quorum in policies.quorums for group in quorum.approvers for role in group.roles}
    persons = {role: _persons(context, role) for role in required}
    for quorum in policies.quorums:
        problems = [_shortage(quorum, team, persons) for team in teams]
        if all(problems):
            yield Hit(quorum.span, f"quorum `{quorum.id}` {problems[0]}")


def _persons(context: Context, role: str) -> _ByDomain:
    """Return the persons with an account that holds the role now, by domain."""
    owner = context.person_of
    persons: dict[str, set[str]] = {}
    for binding in context.bindings_to(role):
        begun = binding.not_before is None or binding.not_before <= context.now
        over = binding.expires is not None and binding.expires <= context.now
        if binding.subject in owner and begun and not over:
            persons.setdefault(binding.domain, set()).add(owner[binding.subject])
    return persons


def _shortage(quorum: Quorum, team: str, persons: Mapping[str, _ByDomain]) -> str | None:
    """Describe why a quorum for a resource of this team cannot be filled, or None. One person fills one seat."""
    required = 0
    together: set[str] = set()
    for group in quorum.approvers:
        eligible: set[str] = set()
        for role in group.roles:
            eligible |= persons[role].get(group.domain or team, set()) | persons[role].get(ANY_DOMAIN, set())
        if len(eligible) < group.count:
            return _describe(group.count, len(eligible), "from " + quoted_list(group.roles))
        required += group.count
        together |= eligible
    return _describe(required, len(together), "in all") if len(together) < required else None


def _describe(required: int, there: int, source: str) -> str:
    persons = "person" if required == 1 else "persons"
    return f"requires {required} {persons} {source}, found {there or 'none'}"
