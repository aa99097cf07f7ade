"""An account with a role belongs to no person, so its approvals never count and it blocks those of others."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import WORKLOADS, split_words

CODE = "PG512"
NAME = "account-without-person"
SEVERITY = "warning"
HELP = "list the account in `Persons`, or remove the binding if nobody has the account any more"


def check(context: Context) -> Iterator[Hit]:
    """Yield each bound account that no person has, if there are persons; workloads belong to nobody."""
    if not context.policy_set.persons:
        return
    for binding in context.policy_set.bindings:
        if (
            binding.subject not in context.person_of
            and not set(split_words(binding.subject.partition(":")[0])) & WORKLOADS
        ):
            yield Hit(binding.span, f"`{binding.subject}` has the role `{binding.role}` and belongs to no person")
