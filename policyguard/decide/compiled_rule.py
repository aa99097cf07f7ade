"""One rule of a snapshot, ready to match; rules share shapes and texts. Pure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from policyguard.conditions.ast import filled, paths_read
from policyguard.conditions.codegen import compile_shape
from policyguard.conditions.cost import constant_list
from policyguard.conditions.exact import EvalError
from policyguard.conditions.exact import evaluate as evaluate_exactly
from policyguard.conditions.former_names import Renamed, present_constants, present_fact, renamed_values
from policyguard.decide.admission import Admitted, apply_minimum_assurance
from policyguard.decide.compiled_form import LARGE, RuleRow, RuleSource, decode_constant, hole_types
from policyguard.decide.index.keys import Template, extract
from policyguard.model.expression import Expression
from policyguard.model.policy import Schema
from policyguard.patterns.id_pattern import Matcher, literal_slice, matcher
from policyguard.values import Instant, Span, parse_instant

_NO_SEGMENTS: list[str] = []


class Shape:
    """A condition without its constants, compiled once for all rules that share it."""

    __slots__ = ("_large", "_lists", "expression", "hole_types", "reads", "requirements", "run")

    requirements: Template
    reads: frozenset[str]
    run: Callable[..., bool]

    def __init__(self, expression: Expression) -> None:
        self.expression = expression
        self.hole_types = hole_types(expression)
        self._large = not LARGE.isdisjoint(self.hole_types)
        self._lists = any(kind.startswith("list(") for kind in self.hole_types)

    def __getattr__(self, name: str) -> Any:
        """Compile and analyse the condition when a rule with this shape is first matched."""
        if name == "run":
            self.run = _compiled(self.expression)
        elif name == "requirements":
            self.requirements = extract(self.expression)
        elif name == "reads":
            self.reads = frozenset(f"{path[0]}.{path[1]}" for path in paths_read(self.expression) if len(path) > 1)
        else:
            raise AttributeError(name)
        return getattr(self, name)

    def constants(self, data: Sequence[Any]) -> tuple[Any, ...]:
        """Decode a rule's constants, in the order of the holes; `check_compiled` has compared their number."""
        if self._large:
            return tuple(map(decode_constant, data, self.hole_types))
        if not self._lists:
            return tuple(data)
        return tuple([constant_list(value) if type(value) is tuple else value for value in data])


def _compiled(expression: Expression) -> Callable[..., bool]:
    try:
        return compile_shape(expression)
    except Exception:  # noqa: BLE001 - what Python cannot compile is left to the exact evaluator
        return _give_up


def _give_up(*_: object) -> bool:
    raise NotImplementedError("the exact evaluator decides")


class CompiledRule:
    """One rule, ready to match.

    `run`, `test`, `literal_slice`, `literal_segments` and `match_row` are made on first use.

    `run` is the compiled condition, None for a rule without a condition. Where `literal_slice` is not None, an id
    matches if its segments there equal `literal_segments`; otherwise `test` decides, and None matches every id.
    `type_patterns` are the id patterns of the rule's resource types.
    """

    __slots__ = (
        "actions",
        "assurance",
        "constants",
        "contact",
        "effect",
        "expires",
        "has_subject_time_or_assurance",
        "id",
        "id_pattern",
        "ids",
        "literal_segments",
        "literal_slice",
        "match_row",
        "not_before",
        "obligations",
        "owner",
        "quorum",
        "reason",
        "reasons",
        "remedy",
        "resource_types",
        "roles",
        "run",
        "scope",
        "shape",
        "span",
        "subjects",
        "test",
        "text",
        "type_patterns",
    )

    match_row: tuple[Any, ...]
    run: Callable[..., bool] | None
    literal_segments: list[str]
    literal_slice: slice | None
    test: Matcher | None

    def __init__(self, row: RuleRow, source: RuleSource, shapes: Sequence[Shape], intern: Interner) -> None:
        # Ten thousand rules pay for each call here, so that empty fields call nothing.
        texts = intern.texts
        self.id = row.id
        self.effect = row.effect
        self.actions = texts(row.actions)
        self.resource_types, self.type_patterns, renamed = intern.types(row.resource_types)
        self.roles = texts(row.roles) if row.roles else ()
        self.subjects = texts(row.subjects) if row.subjects else ()
        self.id_pattern = row.id_pattern
        self.scope = row.scope
        self.shape = shapes[row.shape] if row.shape >= 0 else None
        self.constants = () if self.shape is None else self.shape.constants(row.constants)
        if renamed and self.shape is not None:
            self.constants = present_constants(self.shape.expression, self.constants, renamed)
        self.quorum = row.quorum
        self.reason = row.reason and sys.intern(row.reason)
        self.remedy = row.remedy and sys.intern(row.remedy)
        self.contact = row.contact and sys.intern(row.contact)
        self.obligations = texts(row.obligations) if row.obligations else ()
        self.not_before = None if row.not_before is None else parse_instant(row.not_before)
        self.expires = None if row.expires is None else parse_instant(row.expires)
        self.assurance: tuple[tuple[str, int], ...] = (
            tuple([(present_fact(path), minimum) for path, minimum in row.assurance]) if row.assurance else ()
        )
        self.ids: tuple[str, ...] = (row.id,)
        self.reasons = texts((row.reason,)) if row.reason else _DEFAULT_REASONS[row.effect]
        self.has_subject_time_or_assurance = bool(
            self.subjects or self.not_before is not None or self.expires is not None or self.assurance
        )
        self.text = source.text
        self.owner = source.owner
        self.span = Span(sys.intern(source.file), source.line, source.column)

    def __getattr__(self, name: str) -> Any:
        """Prepare matching at first use: a process that decides once matches only a few rules."""
        if name == "run":
            self.run = None if self.shape is None else self.shape.run
            return self.run
        if name not in ("match_row", "literal_segments", "literal_slice", "test"):
            raise AttributeError(name)
        literal = literal_slice(self.id_pattern, self.type_patterns)
        tests = {matcher(self.id_pattern, pattern) for pattern in self.type_patterns} - {None}
        self.test = None if literal else next(iter(tests), None)
        self.literal_slice, self.literal_segments = literal or (None, [])
        # A tuple and no struct: the loop in `evaluate` unpacks it in one step. At ten thousand rules reading memory
        # costs more than the work, and nine attributes of a rule are nine places in memory.
        self.match_row = (
            self.literal_slice,
            self.literal_segments,
            self.test,
            self.scope,
            self.has_subject_time_or_assurance,
            self.run,
            self.constants,
            self.effect,
            self,
        )
        return getattr(self, name)

    @property
    def lazy_match_row(self) -> tuple[Any, ...]:
        """Build a `match_row` for a single decision, which analyses and compiles nothing in advance."""
        run = None if self.shape is None else self._run_now
        is_limited = self.has_subject_time_or_assurance
        return None, _NO_SEGMENTS, self.fits, self.scope, is_limited, run, self.constants, self.effect, self

    def _run_now(self, *arguments: Any) -> bool:
        return self.run is None or self.run(*arguments)

    def fits(self, identifier: str) -> bool:
        """Return True if the resource id matches the rule's pattern."""
        if self.literal_slice is not None:
            return identifier.split("/")[self.literal_slice] == self.literal_segments
        return self.test is None or self.test(identifier)

    def concerns(self, subject_ref: str, now: Instant) -> bool:
        """Return True if the rule is in force, and names the subject or no subjects at all."""
        if self.subjects and subject_ref not in self.subjects:
            return False
        if self.not_before is not None and now < self.not_before:
            return False
        return self.expires is None or now < self.expires

    def outcome(self, admitted: Admitted) -> bool | EvalError:
        """Evaluate the condition on the facts that meet the rule's minimum assurance."""
        read = apply_minimum_assurance(admitted, self.assurance)
        return self.evaluate_exactly(
            read.subject, read.resource, read.context, admitted.facts.request.action, admitted.now
        )

    @property
    def condition(self) -> Expression | None:
        """The checked condition with this rule's constants; None if the rule has no condition."""
        return None if self.shape is None else filled(self.shape.expression, self.constants)

    def evaluate_exactly(
        self, subject: dict[str, Any], resource: dict[str, Any], context: dict[str, Any], action: str, now: Instant
    ) -> bool | EvalError:
        """Evaluate the condition with the exact evaluator, where the compiled code cannot decide.

        Args:
            subject: the admitted attributes of the subject.
            resource: the admitted attributes of the resource.
            context: the admitted attributes of the context.
            action: the action.
            now: the current time.
        """
        condition = self.condition
        return True if condition is None else evaluate_exactly(condition, subject, resource, context, action, now)


_DEFAULT_REASONS = (("rule.allow",), ("rule.deny",), ("rule.require",))


class Interner:
    """Shares one object among equal texts and tuples while a snapshot is built."""

    def __init__(self, schema: Schema, written: Schema) -> None:
        self._schema = schema
        self._written = written
        self._types: dict[tuple[str, ...], tuple[tuple[str, ...], frozenset[str | None], Renamed]] = {}
        self._tuples: dict[tuple[str, ...], tuple[str, ...]] = {}

    def texts(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        """Return the shared object equal to these texts."""
        shared = self._tuples.get(texts)
        if shared is None:
            shared = self._tuples[texts] = tuple(map(sys.intern, texts))
        return shared

    def types(self, names: tuple[str, ...]) -> tuple[tuple[str, ...], frozenset[str | None], Renamed]:
        """Return the values that all rules with these resource types share.

        Returns:
            The shared object equal to the names, the id patterns of the types, and the fields with renamed values.
        """
        shared = self._types.get(names)
        if shared is None:
            patterns = frozenset(self._schema.resources[name].id_pattern for name in names)
            shared = self._types[names] = (self.texts(names), patterns, renamed_values(self._written, names))
        return shared
