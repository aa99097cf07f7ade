"""Finds rules that protect nothing in a repository: patterns that match no path, quorums nobody can fill.

Lint finds what no repository could satisfy (PG315, PG505, PG604). Only the repository itself shows whether
`train/optim/**` still exists, whether the rules name its main branch, and whether its team has two leads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator

from policyguard.conditions.functions import Failure, under
from policyguard.conditions.queries import NOT, base_name, is_call, path_of
from policyguard.decide.compiled_rule import CompiledRule
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import EvidenceError
from policyguard.git.directory import GitDir
from policyguard.git.objects import open_objects
from policyguard.git.refs import References
from policyguard.git.trees import files_of, tree_of
from policyguard.model.expression import Call, Constant, Expression, Quantifier, Variable, parts
from policyguard.model.policy import EFFECTS, Approvers, Quorum
from policyguard.patterns.glob import glob
from policyguard.patterns.id_pattern import domain_index
from policyguard.text import printable_name, quoted_list
from policyguard.values import Instant

TIMEOUT_S = 60.0
_ACTIONS = frozenset({"repo:push", "repo:rewrite"})
_PATHS, _REF = ("resource", "changed_paths"), ("resource", "ref")

_FITS: dict[str, Callable[[str, str], bool]] = {
    "glob": glob,
    "under": under,
    "equals": str.__eq__,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
    "contains": str.__contains__,
}
"""Functions that compare a path, first, with a literal, second."""


def ineffective_rules(git: GitDir, resource: str, snapshot: Snapshot, now: Instant) -> Iterator[str]:
    """Yield a line for each rule that protects nothing in this repository.

    Args:
        git: the repository.
        resource: the resource of the policies, `repo:...`.
        snapshot: the policies.
        now: the current time.

    Raises:
        EvidenceError: the tree of the main branch cannot be read.
    """
    protecting = list(_protecting(snapshot, resource, now))
    paths = _paths(git)
    for rule in protecting:
        yield from _pathless(rule, paths)
    yield from _other_branch(git, [rule for rule in protecting if EFFECTS[rule.effect] == "require"])
    for rule in protecting:
        quorum = snapshot.quorums.get(rule.quorum or "")
        shortage = None if quorum is None else _shortage(snapshot, quorum, _domain(snapshot, resource), now)
        if shortage is not None:
            yield f"rule `{rule.id}`: quorum `{rule.quorum}` {shortage}; nobody can push what it guards"


def _protecting(snapshot: Snapshot, resource: str, now: Instant) -> Iterator[CompiledRule]:
    """Yield the rules that now deny pushes to this repository, or require approvals for them."""
    kind, _, identifier = resource.partition(":")
    for rule in snapshot.rules:
        in_time = (rule.not_before is None or rule.not_before <= now) and (rule.expires is None or now < rule.expires)
        here = kind in rule.resource_types and rule.fits(identifier)
        here = here and (rule.scope is None or rule.scope == _domain(snapshot, resource))
        if EFFECTS[rule.effect] != "allow" and in_time and here and not _ACTIONS.isdisjoint(rule.actions):
            yield rule


def _domain(snapshot: Snapshot, resource: str) -> str | None:
    kind, _, identifier = resource.partition(":")
    declared = snapshot.schema.resources.get(kind)
    index = None if declared is None else domain_index(declared.id_pattern)
    segments = identifier.split("/")
    return segments[index] if index is not None and index < len(segments) else None


def _paths(git: GitDir) -> Collection[str] | None:
    """List every path on the main branch; None if the repository has no commit."""
    try:
        commit, _ = References(git).head()
    except EvidenceError:
        return None
    with open_objects(git, commit, time.monotonic() + TIMEOUT_S) as reader:
        return [printable_name(path) for path in files_of(reader, tree_of(reader, commit))]


def _pathless(rule: CompiledRule, paths: Collection[str] | None) -> Iterator[str]:
    """Yield a line for each path that a rule names and the main branch does not have."""
    condition = rule.condition
    for function, literal in _path_tests(condition) if condition is not None and paths is not None else ():
        # INVARIANT I20: a rule that guards a path which does not exist is a finding, not a protection.
        if not any(_fits(function, path, literal) for path in paths or ()):
            yield f"rule `{rule.id}`: no path on the main branch matches `{literal}`; the guarded files may have moved"


def _path_tests(node: Expression) -> Iterator[tuple[str, str]]:
    """Yield function and literal of each test that a changed path must pass; negated tests are skipped."""
    if is_call(node, NOT):
        return
    if isinstance(node, Quantifier) and node.kind in ("exists", "exists_one") and path_of(node.range) == _PATHS:
        yield from _literals(node.body, lambda operand: isinstance(operand, Variable) and operand.name == node.variable)
        return
    for part in parts(node):
        yield from _path_tests(part)


def _literals(node: Expression, is_tested: Callable[[Expression], bool]) -> Iterator[tuple[str, str]]:
    if is_call(node, NOT):
        return
    if isinstance(node, Call) and len(node.arguments) == 2:
        operand, literal = node.arguments
        function = base_name(node.function)
        if (
            function in _FITS
            and is_tested(operand)
            and isinstance(literal, Constant)
            and isinstance(literal.value, str)
        ):
            yield function, literal.value
    for part in parts(node):
        yield from _literals(part, is_tested)


def _fits(function: str, path: str, literal: str) -> bool:
    try:
        return _FITS[function](path, literal)
    except Failure:
        return False


def _other_branch(git: GitDir, demanding: Iterable[CompiledRule]) -> Iterator[str]:
    """Yield a line if rules require approvals for named references, but not for the main branch."""
    named = {
        pair
        for rule in demanding
        if rule.condition is not None
        for pair in _literals(rule.condition, lambda operand: path_of(operand) == _REF)
    }
    content = References(git).head_content()
    main = printable_name(content.removeprefix(b"ref:").strip())
    if named and content.startswith(b"ref:") and not any(_fits(function, main, literal) for function, literal in named):
        guarded = quoted_list(literal for _, literal in sorted(named))
        yield f"the main branch is `{main}`, and approvals are required for {guarded} only"


def _shortage(snapshot: Snapshot, quorum: Quorum, domain: str | None, now: Instant) -> str | None:
    """Say what a quorum lacks in this repository; None if it can be filled."""
    eligible = [_persons(snapshot, group, domain, now) for group in quorum.approvers]
    for group, persons in zip(quorum.approvers, eligible, strict=True):
        if len(persons) < group.count:
            roles = quoted_list(group.roles)
            return f"needs {group.count} of {roles}, found {len(persons) or 'nobody'}"
    needed, available = sum(group.count for group in quorum.approvers), len(frozenset().union(*eligible))
    return f"needs {needed} persons, found {available}" if available < needed else None


def _persons(snapshot: Snapshot, group: Approvers, domain: str | None, now: Instant) -> frozenset[str]:
    where = None if group.domain == "*" else group.domain or domain
    return frozenset(
        snapshot.persons[account]
        for role in group.roles
        for account in snapshot.grants.holders(role, where, now)
        if account in snapshot.persons
    )
