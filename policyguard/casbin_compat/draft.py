"""Translates one casbin row, under one alternative of the matcher, to a rule.

Pure. Atoms that our language decides the same way narrow a draft; all others are refused with their position.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from policyguard.casbin_compat.conf import Row
from policyguard.casbin_compat.matcher import Alternative, Atom, Operand
from policyguard.casbin_compat.patterns import glob_regex, key_match2_regex, key_match_prefix
from policyguard.casbin_compat.source import Source
from policyguard.conditions.rendering import quoted_in_cel
from policyguard.errors import PolicyError

_ATTRIBUTE = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)


@dataclass(slots=True)
class Draft:
    """A rule under construction. `subjects`, `objects` and `domains` are None while they match anything."""

    subjects: set[str] | None = None
    role: str | None = None
    objects: set[str] | None = None
    domains: set[str] | None = None
    actions: set[str] = field(default_factory=set)
    tests: list[tuple[str, str]] = field(default_factory=list)
    """(condition text with `{id}` for the prefix of the id, place kind)."""


class Drafting:
    """Builds the drafts of one model; `attributes` collects the types of attributes from comparisons."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.attributes: dict[str, dict[str, str]] = {"subject": {}, "resource": {}}

    def draft(self, alternative: Alternative, row: Row | None) -> Draft | None:
        """Build the rule for a row and an alternative; None if it can never match.

        Raises:
            PolicyError: the alternative has no exact counterpart.
        """
        draft = Draft(actions=set(self.source.universe))
        for atom in alternative:
            if not self.apply(atom, row, draft):
                return None
        if draft.role is not None and draft.subjects is not None:
            raise self.source.refusal(alternative[0], row, "the subject is compared and asked for a role at once")
        # An empty set is "nobody" or "nothing"; written as an empty list it would be everyone.
        return None if set() in (draft.actions, draft.subjects, draft.objects, draft.domains) else draft

    def apply(self, atom: Atom, row: Row | None, draft: Draft) -> bool:
        """Narrow the draft by one atom; return False if the atom is false for this row.

        Args:
            atom: one comparison or call of the matcher.
            row: the row, for errors; None without one.
            draft: the rule in progress.
        """
        first, *others = atom.arguments
        if first.kind != "r":
            return self.static(atom, row, draft)
        if len(first.path) > 1 or (others and others[0].kind == "r" and atom.function in ("==", "!=")):
            self.attribute(atom, row, draft)
            return True
        part = self.source.part(first)
        value = self.source.constant(others[0], row) if others else ""
        if atom.function in ("==", "in"):
            narrowed = {str(one) for one in (value if isinstance(value, tuple) else (value,))}
            self.narrow(part, {self.source.located_name(part, one, atom, row) for one in narrowed}, draft)
        elif atom.function in self.source.groups:
            self.group(atom, part, str(value), draft, row)
        else:
            self.match(atom, part, str(value), draft, row)
        return True

    def static(self, atom: Atom, row: Row | None, draft: Draft) -> bool:
        """Decide a comparison of constants and columns; swap one whose request part is on the right.

        Args:
            atom: one comparison or call of the matcher.
            row: the row, for errors; None without one.
            draft: the rule in progress.

        Raises:
            PolicyError: the comparison does not concern the request.
        """
        first, *others = atom.arguments
        if atom.function in ("==", "!=") and others[0].kind == "r":
            return self.apply(Atom(atom.function, (others[0], first), atom.span), row, draft)
        if atom.function not in ("==", "!=", "in") or others[0].kind == "r":
            raise self.source.refusal(atom, row, f"`{atom.function}` is not about the request")
        one, two = self.source.constant(first, row), self.source.constant(others[0], row)
        if atom.function == "in":
            return one in two if isinstance(two, tuple) else False
        return bool(one == two) == (atom.function == "==")

    def narrow(self, part: str, values: set[str], draft: Draft) -> None:
        if part == "act":
            draft.actions &= values
        elif part == "sub":
            draft.subjects = values if draft.subjects is None else draft.subjects & values
        elif part == "obj":
            draft.objects = values if draft.objects is None else draft.objects & values
        else:
            draft.domains = values if draft.domains is None else draft.domains & values

    def group(self, atom: Atom, part: str, value: str, draft: Draft, row: Row | None) -> None:
        width = self.source.groups[atom.function]
        if len(atom.arguments) != width or (width == 3 and not self.source.is_request(atom.arguments[2], "dom")):
            raise self.source.refusal(
                atom,
                row,
                f"`{atom.function}` takes the request's name, a group"
                + (" and the request's domain" if width == 3 else ""),
            )
        if part != "sub":
            if width == 3:
                raise self.source.refusal(atom, row, "groups of resources by domain have no counterpart")
            members = self.source.members(atom.function, value)
            self.narrow(part, {self.source.located_name(part, one, atom, row) for one in members}, draft)
        elif atom.function != "g":
            raise self.source.refusal(atom, row, "only `g` can give roles to subjects")
        elif value not in self.source.role_names:
            self.narrow("sub", {value}, draft)
        elif draft.role not in (None, value):
            raise self.source.refusal(atom, row, "two roles are asked for at once")
        else:
            draft.role = value

    def match(self, atom: Atom, part: str, value: str, draft: Draft, row: Row | None) -> None:
        """Translate `!=` and the matching functions, such as `keyMatch`.

        Args:
            atom: one comparison or call of the matcher.
            part: the part of the request.
            value: the value of the column or constant.
            draft: the rule in progress.
            row: the row; None if the alternative reads none.

        Raises:
            PolicyError: the function has no exact counterpart for this part.
        """
        span = self.source.span_of(atom, row)
        raw, value = value, self.source.located_name(part, value, atom, row)
        if part == "act" and atom.function in ("regexMatch", "!="):
            matching = {
                a for a in self.source.universe if (a != value if atom.function == "!=" else re.match(value, a))
            }
            draft.actions &= matching
        elif part == "obj" and atom.function == "!=":
            draft.tests.append(("resource.id != {id}", value))
        elif part == "sub" and atom.function == "!=":
            draft.tests.append((f"subject.id != {quoted_in_cel('user:' + value)}", ""))
        elif part == "obj" and atom.function == "keyMatch":
            prefix, exact = key_match_prefix(raw, span)
            prefix = prefix.removeprefix("/")
            if exact:
                self.narrow("obj", {prefix}, draft)
            else:
                draft.tests.append(("resource.id.startsWith({id})", prefix))
        elif part == "obj" and atom.function in ("keyMatch2", "keyMatch3"):
            draft.tests.append(("resource.id.matches({regex})", key_match2_regex(raw, atom.function, span)))
        elif part == "obj" and atom.function == "globMatch":
            draft.tests.append(("resource.id.matches({regex})", glob_regex(raw, span)))
        else:
            raise self.source.refusal(atom, row, f"`{atom.function}` on `{part}` has no exact counterpart")

    def attribute(self, atom: Atom, row: Row | None, draft: Draft) -> None:
        """Translate a comparison of an attribute into a condition, and infer the attribute's type.

        Args:
            atom: one comparison or call of the matcher.
            row: the row, for errors; None without one.
            draft: the rule in progress.

        Raises:
            PolicyError: the comparison has no exact counterpart.
        """
        if atom.function not in ("==", "!=", "<", "<=", ">", ">="):
            raise self.source.refusal(atom, row, f"`{atom.function}` on an attribute has no exact counterpart")
        first, second = atom.arguments
        constants = [self.source.constant(one, row) for one in atom.arguments if one.kind != "r"]
        kind = "int" if constants and type(constants[0]) is int else "string"
        if kind == "string" and atom.function not in ("==", "!="):
            raise self.source.refusal(atom, row, "texts are compared by order")
        operands = [self.written(operand, row, kind, atom) for operand in (first, second)]
        draft.tests.append((f"{operands[0]} {atom.function} {operands[1]}", ""))

    def written(self, operand: Operand, row: Row | None, kind: str, atom: Atom) -> str:
        if operand.kind != "r":
            value = self.source.constant(operand, row)
            return str(value) if type(value) is int else quoted_in_cel(str(value))
        part = self.source.part(operand)
        if len(operand.path) == 1:
            if part != "sub" or kind != "string" or all(len(one.path) < 2 for one in atom.arguments):
                raise self.source.refusal(atom, row, "only the subject can be compared with an attribute")
            return "subject.id"
        if len(operand.path) != 2 or part not in ("sub", "obj"):
            raise self.source.refusal(atom, row, "attributes of attributes have no counterpart")
        name = self.learned("subject" if part == "sub" else "resource", operand, kind)
        compares_subject = any(one.kind == "r" and len(one.path) == 1 for one in atom.arguments)
        return f'"user:" + {name}' if compares_subject else name

    def learned(self, entity: str, operand: Operand, kind: str) -> str:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", operand.path[1]).lower()
        if not _ATTRIBUTE.fullmatch(name) or name in ("id", "type", "domain"):
            raise PolicyError(f"attribute `{operand.path[1]}` has no name here", span=operand.span, code="PG011")
        if self.attributes[entity].setdefault(name, kind) != kind:
            raise PolicyError(
                f"attribute `{operand.path[1]}` is compared with text and with integers",
                span=operand.span,
                code="PG104",
            )
        return f"{entity}.{name}"
