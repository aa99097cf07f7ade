"""A workload may write to the place where its own policy or its trust root is stored."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import (
    CHANGE_VERBS,
    POLICY_WORDS,
    REPOSITORY_TYPES,
    WORKLOADS,
    split_words,
    type_words,
    with_verb,
)
from policyguard.model.policy import Rule

CODE = "PG211"
NAME = "policy-self-modify"
SEVERITY = "error"
HELP = "let people change policies, with a quorum; let workloads read them"


def check(context: Context) -> Iterator[Hit]:
    """Yield each allow of a change to a policy's repository for a subject that is a workload."""
    for rule in context.allows:
        path_words = {word for part in (rule.id_pattern or "").split("/") for word in split_words(part)}
        changes = [action for action in with_verb(rule.actions, CHANGE_VERBS) if type_words(action) & REPOSITORY_TYPES]
        if changes and path_words & POLICY_WORDS:
            for workload in sorted(_workloads(context, rule))[:1]:
                message = f"`{rule.id}` lets the workload `{workload}` do `{changes[0]}` where policies are kept"
                yield Hit(context.pattern_span(rule), message)


def _workloads(context: Context, rule: Rule) -> set[str]:
    """Return the workloads among the rule's subjects, named directly or bound to one of its roles."""
    subjects = set(rule.subjects)
    for role in rule.roles:
        subjects.update(binding.subject for binding in context.bindings_to(role))
    return {subject for subject in subjects if set(split_words(subject.partition(":")[0])) & WORKLOADS}
