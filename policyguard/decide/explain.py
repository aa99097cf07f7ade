"""Explains decisions: the result, the facts with their assurance, what would change it, and who can help.

Uses the decision's own facts and time and the exact evaluator, so it explains the decision as it was made. Sensitive
values are hidden. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from policyguard.conditions.ast import paths_read
from policyguard.conditions.exact import AtomValue, EvalError, trace
from policyguard.conditions.rendering import render
from policyguard.decide.admission import Admitted, FactAdmission, apply_minimum_assurance
from policyguard.decide.compiled_form import ALLOW, DENY, REQUIRE
from policyguard.decide.compiled_rule import CompiledRule
from policyguard.decide.conversion import Malformed
from policyguard.decide.evaluate import refusal_code
from policyguard.decide.redaction import reads_traced
from policyguard.decide.snapshot import Snapshot
from policyguard.model.decision import Decision, UnmetQuorum
from policyguard.model.facts import COMMANDS, Facts
from policyguard.text import counted, printable, quoted_list
from policyguard.values import format_instant

MAX_EXPLAINED_RULES = 5
"""The maximum number of rules explained that could have allowed the request, nearest first."""

MAX_NAMES = 6
_VERBS = {ALLOW: "allows", DENY: "denies", REQUIRE: "asks for approval"}
_WIDTH = 46
_LONGEST_VALUE = 160
_LONGEST_ATOM = 72


def explain(snapshot: Snapshot, decision: Decision, *, full: bool = False, viewer: str | None = None) -> str:
    """Explain a decision in lines of plain text; fields for `trace` only to a viewer with such a role.

    Args:
        snapshot: the policies.
        decision: the decision.
        full: shows all rules and facts, not only those that matter.
        viewer: the subject that reads it, `type:id`; None hides the fields for `trace`.
    """
    request = decision.facts.request
    head = "ALLOW" if decision.allowed else "DENY"
    lines = [f"{head}  {request.subject.ref}  {request.action}  {request.resource.ref}"]
    lines.append(f"reason   {', '.join(decision.reason_codes)}")
    explanation = _Explanation(snapshot, decision, viewer)
    # INVARIANT I14: who holds no role of `trace` sees no full trace and nothing that is kept for it.
    lines += explanation.lines(full=full and (viewer is None or explanation.may_see_trace))
    lines += [f"must     {obligation}" for obligation in decision.obligations]
    lines.append(
        f"policy   {decision.policy_digest[:16]} epoch {decision.epoch}, decided at {format_instant(decision.now)}"
    )
    return "\n".join(lines)


class _Explanation:
    """Builds the explanation of one decision; `admitted` is None if step 1 refused the request."""

    def __init__(self, snapshot: Snapshot, decision: Decision, viewer: str | None) -> None:
        self.snapshot = snapshot
        self.decision = decision
        self.facts: Facts = decision.facts
        self.request = decision.facts.request
        self.admission: FactAdmission | None = snapshot.admissions_by_type.get(
            (self.request.subject.type, self.request.resource.type)
        )
        self.admitted: Admitted | None = None
        self.malformed: Malformed | None = None
        if self.admission is not None:
            try:
                self.admitted = self.admission.admit(decision.facts, decision.now)
            except Malformed as problem:
                self.malformed = problem
        self.may_see_trace = viewer is not None and self._may_trace(viewer)

    def _may_trace(self, viewer: str) -> bool:
        domain = self.admitted.domain if self.admitted is not None else None
        held = self.snapshot.grants.roles_at(viewer, domain, self.decision.now)
        return not set(self.snapshot.trace_roles).isdisjoint(held)

    def lines(self, *, full: bool) -> Iterator[str]:
        known = (self.request.action, self.request.resource.type) in self.snapshot.rule_indexes
        if self.malformed is not None and known:
            yield f"because  the request does not fit the schema: {self.malformed}"
            return
        if self.admitted is None or not known or not self.snapshot.rules:
            yield f"because  {self._refusal()}"
            return
        failed = [self.snapshot.by_id[rule_id] for rule_id in self.decision.errored]
        fired = [
            self.snapshot.by_id[rule_id]
            for rule_id in self.decision.determining
            if rule_id not in self.decision.errored
        ]
        for rule in fired:
            yield f"because  rule `{rule.id}` {_VERBS[rule.effect]}  ({rule.span})"
            yield from self._atoms(rule, self.admitted)
        yield from self._all_failed(failed, self.admitted, full=full)
        if not self.decision.allowed and not self.decision.determining:
            yield from self._nearly(self.admitted)
        for gap in self.decision.unmet_approvals:
            yield from self._gap(gap)
        yield from self._help(fired)
        if full:
            yield from self._trace(self.admitted)

    def _refusal(self) -> str:
        reason = refusal_code(self.snapshot, self.facts)
        schema = self.snapshot.schema
        if reason == "engine.no_rules":
            return "no rules are loaded"
        if reason == "engine.unknown_action":
            names = [*schema.resources[self.request.resource.type].actions]
            return f"unknown action `{self.request.action}` on a {self.request.resource.type}" + _near(
                self.request.action, names
            )
        if self.request.resource.type not in schema.resources:
            type_name = self.request.resource.type
            return f"unknown resource type `{type_name}`" + _near(type_name, list(schema.resources))
        type_name = self.request.subject.type
        return f"unknown subject type `{type_name}`" + _near(type_name, list(schema.subjects))

    def _all_failed(self, failed: Sequence[CompiledRule], admitted: Admitted, *, full: bool) -> Iterator[str]:
        """Explain the rules that failed; a fact that several of them need is one block, unless all is shown."""
        reasons = {rule.id: self._reasons(rule, admitted) for rule in failed}
        uses = Counter(reason for rule_reasons in reasons.values() for reason in rule_reasons)
        grouped: dict[str, list[CompiledRule]] = {}
        for rule in failed:
            if full or all(uses[reason] == 1 for reason in reasons[rule.id]):
                yield from self._failed(rule, admitted)
                continue
            for reason in reasons[rule.id]:
                grouped.setdefault(reason, []).append(rule)
        named, further = set[str](), list[str]()
        # What denies comes before what does not allow, and what concerns most rules first.
        for reason, rules in sorted(grouped.items(), key=lambda block: -sum(rule.effect == DENY for rule in block[1])):
            if named.issuperset(rule.id for rule in rules):
                further.append(reason)
                continue
            named |= {rule.id for rule in rules}
            yield f"because  {reason}, so {counted(len(rules), 'rule')} could not be evaluated"
            for effect, result in ((DENY, "denied by"), (ALLOW, "not allowed by"), (REQUIRE, "approval needed by")):
                if names := [rule.id for rule in rules if rule.effect == effect]:
                    yield f"           {result} {quoted_list(names, max_names=MAX_NAMES)}"
        if further:
            yield "because  some of these rules need more than that"
            yield from (f"           {reason}" for reason in further)

    def _reasons(self, rule: CompiledRule, admitted: Admitted) -> tuple[str, ...]:
        """List what the errors of a rule come from: each fact that is missing or too weak, else the error itself."""
        admitted = apply_minimum_assurance(admitted, rule.assurance)
        reasons: dict[str, None] = {}
        for atom, seen in self._values(rule, admitted):
            if isinstance(atom.outcome, EvalError):
                paths = sorted(path for path in paths_read(atom.expression) if len(path) > 1)
                absent = [self._fact(path, admitted) for path in paths if self._is_missing(path, admitted)]
                reasons |= dict.fromkeys(absent or [seen or atom.outcome.message])
        return tuple(reasons)

    def _is_missing(self, path: tuple[str, ...], admitted: Admitted) -> bool:
        dotted = f"{path[0]}.{path[1]}"
        if dotted in (admitted.weak or ()):
            return True
        return dotted not in self.facts.entries and path[1] not in getattr(admitted, path[0])

    def _failed(self, rule: CompiledRule, admitted: Admitted) -> Iterator[str]:
        """Explain a rule that failed: each missing fact once, and the consequence."""
        consequence = {ALLOW: "so it does not allow", DENY: "so it denies", REQUIRE: "so it asks for approval"}
        yield f"because  rule `{rule.id}` could not be evaluated, {consequence[rule.effect]}  ({rule.span})"
        messages: dict[str, None] = {}
        for atom, seen in self._values(rule, admitted):
            if isinstance(atom.outcome, EvalError):
                messages[seen or atom.outcome.message] = None
        yield from (f"           {line}" for line in messages)

    def _atoms(self, rule: CompiledRule, admitted: Admitted) -> Iterator[str]:
        for atom, seen in self._values(rule, admitted):
            text = printable(render(atom.expression), _LONGEST_ATOM)
            yield f"           {text:<{_WIDTH}}  {self._outcome(atom):<5}  {seen}".rstrip()

    def _outcome(self, atom: AtomValue) -> str:
        if isinstance(atom.outcome, EvalError):
            return "error"
        # A comparison reveals something about a sensitive value, and all of a bool.
        for dotted in {f"{path[0]}.{path[1]}" for path in paths_read(atom.expression) if len(path) > 1}:
            if self._is_sensitive(dotted) or self._reads_traced(atom, dotted):
                return "hidden"
        return "true" if atom.outcome else "false"

    def _is_sensitive(self, dotted: str) -> bool:
        rule = self.admission.rules.get(dotted) if self.admission is not None else None
        return rule is not None and (rule.sensitive or (rule.withheld and not self.may_see_trace))

    def _reads_traced(self, atom: AtomValue, dotted: str) -> bool:
        rule = self.admission.rules.get(dotted) if self.admission is not None and not self.may_see_trace else None
        return rule is not None and reads_traced(atom.expression, rule.traced)

    def _values(self, rule: CompiledRule, admitted: Admitted) -> Iterator[tuple[AtomValue, str]]:
        """Describe each atom of the rule's condition, with the facts it read."""
        condition = rule.condition
        if condition is None:
            return
        admitted = apply_minimum_assurance(admitted, rule.assurance)
        for atom in trace(
            condition, admitted.subject, admitted.resource, admitted.context, self.request.action, self.decision.now
        ):
            yield atom, self._read(sorted(paths_read(atom.expression)), admitted)

    def _read(self, paths: Sequence[tuple[str, ...]], admitted: Admitted) -> str:
        messages = dict.fromkeys(self._fact(path, admitted) for path in paths if len(path) > 1)
        return "; ".join(filter(None, messages))

    def _fact(self, path: tuple[str, ...], admitted: Admitted) -> str:
        entity, name = path[0], path[1]
        dotted = f"{entity}.{name}"
        built_in = {"id", "type", "domain"} | ({"name"} if entity == "subject" else set())
        if name in built_in and entity != "context" and dotted not in self.facts.entries:
            return f"{dotted} = {getattr(admitted, entity).get(name, 'none')}"
        fact = self.facts.entries.get(dotted)
        if admitted.weak and dotted in admitted.weak:
            return f"{dotted} {admitted.weak[dotted]}"
        if fact is None:
            reason = None if self._is_sensitive(dotted) else self.facts.missing.get(dotted)
            return f"{dotted} is missing" + (f": {reason}" if reason else "")
        if self._is_sensitive(dotted):
            return f"{dotted} is hidden ({fact.assurance.word}, {fact.source})"
        value: Any = fact.value
        redact = (
            self.admission.redactions.get(dotted) if self.admission is not None and not self.may_see_trace else None
        )
        if redact is not None:
            value = redact(value)
        if dotted in COMMANDS:
            # Only an explanation that quotes a command pays for loading the module.
            from policyguard.model.secret_arguments import hide_secrets, without_digests

            # INVARIANT I14: explanations are printed where others read them, so they show no secret of a command.
            value = hide_secrets(value, without_digests)
        # A path continues as `[]` into lists and maps; their value is shown whole.
        path = path[: path.index("[]")] if "[]" in path else path
        for step in path[2:]:
            value = value.get(step, "missing") if isinstance(value, dict) else value
        return f"{'.'.join(path)} = {_render(value)} ({fact.assurance.word}, {fact.source})"

    def _nearly(self, admitted: Admitted) -> Iterator[str]:
        """Explain why each rule that could have allowed the request did not."""
        candidates = [
            rule
            for rule in self.snapshot.rules
            if rule.effect == ALLOW
            and self.request.action in rule.actions
            and self.request.resource.type in rule.resource_types
        ]
        yield f"because  no rule allows it; {len(candidates)} could have"
        obstacles = [(self._obstacles(rule, admitted), rule) for rule in candidates]
        obstacles.sort(key=lambda item: (len(item[0]), item[1].id))
        for reasons, rule in obstacles[:MAX_EXPLAINED_RULES]:
            yield f"         rule `{rule.id}`  ({rule.span})"
            for reason in reasons:
                yield f"           {reason}"
            if not reasons:
                yield from self._atoms(rule, admitted)
        if len(obstacles) > MAX_EXPLAINED_RULES:
            yield f"         and {len(obstacles) - MAX_EXPLAINED_RULES} more"

    def _obstacles(self, rule: CompiledRule, admitted: Admitted) -> list[str]:
        subject = self.request.subject.ref
        obstacles: list[str] = []
        held = self.snapshot.grants.roles_at(subject, admitted.domain, self.decision.now)
        if rule.roles and set(rule.roles).isdisjoint(held):
            where = f"in `{admitted.domain}`" if admitted.domain else "everywhere"
            have = f"holds {quoted_list(held)} there" if held else "holds no role there"
            obstacles.append(f"needs role {_or(rule.roles)} {where}; `{subject}` {have}")
        if rule.subjects and subject not in rule.subjects:
            obstacles.append(f"is for {_or(rule.subjects)} only")
        if rule.scope is not None and rule.scope != admitted.domain:
            obstacles.append(f"is confined to `{rule.scope}`")
        if not rule.fits(self.request.resource.id):
            obstacles.append(f"is for ids like `{rule.id_pattern}`")
        if rule.not_before is not None and self.decision.now < rule.not_before:
            obstacles.append(f"starts at {format_instant(rule.not_before)}")
        if rule.expires is not None and self.decision.now >= rule.expires:
            obstacles.append(f"expired at {format_instant(rule.expires)}")
        return obstacles

    def _gap(self, gap: UnmetQuorum) -> Iterator[str]:
        people = "more person" if gap.needed == 1 else "more persons"
        yield f"missing  {gap.needed} {people} with role {_or(gap.roles)} in `{gap.domain}` (quorum `{gap.quorum}`)"
        for reason in gap.because:
            yield f"           {reason}"
        domain = None if gap.domain == "*" else gap.domain
        able = sorted(
            {who for role in gap.roles for who in self.snapshot.grants.holders(role, domain, self.decision.now)}
            - {self.request.subject.ref}
        )
        if able:
            yield f"ask      {_and(able)}"

    def _help(self, determining: Sequence[CompiledRule]) -> Iterator[str]:
        if self.decision.allowed:
            return
        yield from dict.fromkeys(f"remedy   {rule.remedy}" for rule in determining if rule.remedy)
        yield from dict.fromkeys(f"ask      {rule.contact}" for rule in determining if rule.contact)

    def _trace(self, admitted: Admitted) -> Iterator[str]:
        yield "trace"
        for rule in self.snapshot.rules:
            if self.request.action not in rule.actions or self.request.resource.type not in rule.resource_types:
                continue
            obstacles = self._obstacles(rule, admitted)
            yield f"         rule `{rule.id}` {_VERBS[rule.effect]}  ({rule.span})"
            yield from (f"           {reason}" for reason in obstacles)
            if not obstacles:
                yield from self._atoms(rule, admitted)


def _near(unknown: str, names: list[str]) -> str:
    # Imported here, so that only an unknown name pays for it and not the start of every hook.
    from difflib import get_close_matches

    close = get_close_matches(unknown, names, n=1)
    return f", did you mean `{close[0]}`" if close else f", expected {_or(sorted(names))}" if names else ""


def _or(names: Sequence[str]) -> str:
    return quoted_list(names[:MAX_NAMES], joiner=" or ") + (" or others" if len(names) > MAX_NAMES else "")


def _and(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _render(value: Any) -> str:
    """Format a value for people, on one line of limited length."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        text = "[" + ", ".join(map(_render, value)) + "]"
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{key}: {_render(item)}" for key, item in value.items()) + "}"
    else:
        text = str(value)
    return printable(text, _LONGEST_VALUE)
