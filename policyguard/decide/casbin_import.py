"""From a casbin `model.conf` and its policy rows to our YAML documents: translated exactly, or refused with the place.

    sub  alice          ->  user:alice         a name on the right of a `g` row is a role, no longer a user (H12)
    obj  data1          ->  object:data1       with domains object:domain1/data1
    obj  /data/1        ->  object:data/1      where every object begins with a slash
    act  read           ->  object:read        the actions are those that the rows and the matcher name
    r.sub.Age, r.obj.Owner  ->  subject.age, resource.owner

INVARIANT I66: what cannot be translated so that it decides alike is refused; nothing is dropped and nothing is guessed.
Pure: texts in, text out. Does not import casbin. `docs/casbin.md` has the table of what is translated and refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from policyguard.decide.casbin_conf import Conf, Row, Text, read_conf, read_rows
from policyguard.decide.casbin_matcher import Alternative, Atom, Operand, alternatives
from policyguard.decide.casbin_patterns import glob_regex, key_match2_regex, key_match_prefix, words
from policyguard.errors import PolicyError, PolicyErrors
from policyguard.values import Span

PARTS = {
    "sub": "sub", "subject": "sub", "user": "sub", "obj": "obj", "object": "obj", "resource": "obj", "thing": "obj",
    "act": "act", "action": "act", "dom": "dom", "domain": "dom", "tenant": "dom",
}  # fmt: skip

EFFECTS = {
    "some(where(p.eft==allow))": ("allow",),
    "some(where(p.eft==allow))&&!some(where(p.eft==deny))": ("allow", "deny"),
}

MAX_LINKS = 9
"""casbin follows so many links of a chain of groups (H11); a longer one would mean more here than there."""

_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_ACTION = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_SEGMENTS = re.compile(r"[^\s/{}\[\]?\\*]+(?:/[^\s/{}\[\]?\\*]+)*")
_ATTRIBUTE = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Names:
    """How names of a casbin request are spelled in ours. `rooted`: every object begins with `/`, which is left out."""

    actions: frozenset[str]
    domains: bool
    rooted: bool = False

    def request(self, subject: str, action: str, resource: str, domain: str | None = None) -> tuple[str, str, str]:
        """Return (subject, action, resource) as `Request.of` takes them.

        Raises:
            ValueError: a name that no row could match, and that would be mistaken for one that a row does.
        """
        if action not in self.actions:
            raise ValueError(f"found the action `{action}`, which no row names")
        if self.domains and (not domain or "/" in domain):
            raise ValueError(f"found the domain `{domain}`, expected a name without `/`")
        if resource.startswith("/") != self.rooted:
            raise ValueError(f"found the object `{resource}`, which no row could match by its first character")
        own = resource.removeprefix("/")
        place = f"{domain}/{own}" if self.domains else own
        return f"user:{subject}", f"object:{action.lower()}", f"object:{place}"


@dataclass(frozen=True, slots=True)
class Imported:
    """The YAML documents, and how names are spelled in them."""

    documents: str
    names: Names


def import_casbin(
    model: str, policy: str, *, model_file: str = "model.conf", policy_file: str = "policy.csv",
    actions: Sequence[str] = (),
) -> Imported:  # fmt: skip
    """Return the documents that decide as this casbin model and these rows do.

    Args:
        actions: actions that no row names by itself, where the model matches them by pattern or not at all.

    Raises:
        PolicyErrors: each thing that is not translated, with file, line and column and what to do about it.
    """
    try:
        found = _Import(read_conf(model, model_file), policy, policy_file, actions)
        return Imported(found.documents(), Names(frozenset(found.universe), found.domains, found.rooted))
    except PolicyError as error:
        raise PolicyErrors([error]) from None


@dataclass(slots=True)
class _Draft:
    """One rule in the making. `subjects`, `objects` and `domains` None mean any."""

    subjects: set[str] | None = None
    role: str | None = None
    objects: set[str] | None = None
    domains: set[str] | None = None
    actions: set[str] = field(default_factory=set)
    tests: list[tuple[str, str]] = field(default_factory=list)
    """(condition text with `{id}` for the prefix of the id, place kind)."""


class _Import:
    def __init__(self, conf: Conf, policy: str, policy_file: str, actions: Sequence[str]) -> None:
        self.conf = conf
        _single(conf)
        self.requests = _request_parts(conf.r["r"])
        self.columns = [column.strip() for column in conf.p["p"].text.split(",")]
        self.domains = "dom" in self.requests.values()
        self.groups = {name: _group_width(name, text) for name, text in conf.g.items()}
        self.effects = _effects(conf.e["e"])
        self.alternatives = alternatives(conf.m["m"])
        widths = {"p": len(self.columns), **self.groups}
        self.rows, errors = read_rows(policy, policy_file, widths)
        errors += [error for row in self.rows if (error := self.effect_error(row)) is not None]
        if errors:
            raise PolicyErrors(errors)
        self.attributes: dict[str, dict[str, str]] = {"subject": {}, "resource": {}}
        self.links = {name: [row for row in self.rows if row.kind == name] for name in self.groups}
        self.role_names = {row.values[1] for row in self.links.get("g", [])}
        self.universe = {*actions, *self.named("act")}
        objects = [name.startswith("/") for name in self.named("obj")]
        self.rooted = bool(objects) and all(objects)

    def effect_error(self, row: Row) -> PolicyError | None:
        if row.kind != "p" or "eft" not in self.columns:
            return None
        effect = row.values[self.columns.index("eft")]
        if effect not in ("allow", "deny"):
            return PolicyError(f"found the effect `{effect}`, expected `allow` or `deny`: casbin ignores the row (H1)",
                               span=row.span, code="PG004")  # fmt: skip
        if effect not in self.effects:
            return PolicyError("found a deny, which this model's effect never looks at", span=row.span, code="PG306",
                               help="add `&& !some(where (p.eft == deny))` to the effect")  # fmt: skip
        return None

    # --- names that rows and matcher mention: casbin has no list of actions, a schema needs one ---------------------

    def named(self, part: str) -> Iterator[str]:
        """Yield every constant that is compared or matched with this part of the request."""
        for alternative in self.alternatives:
            for row in self.rows_for(alternative):
                for atom in alternative:
                    if self.is_request(atom.arguments[0], part) and atom.arguments[1].kind != "r":
                        yield from self.constants_in(atom, row)

    def constants_in(self, atom: Atom, row: Row | None) -> Iterable[str]:
        value = self.constant(atom.arguments[1], row)
        if atom.function == "regexMatch" and self.is_request(atom.arguments[0], "act"):
            return words(str(value), self.place(atom, row))
        if atom.function in self.groups:
            return self.members(atom.function, str(value))
        return [str(one) for one in (value if isinstance(value, tuple) else (value,))]

    def rows_for(self, alternative: Alternative) -> Sequence[Row | None]:
        """Return the rows an alternative is tried with; once without a row if it reads none."""
        reads = any(operand.kind == "p" for atom in alternative for operand in atom.arguments)
        return [row for row in self.rows if row.kind == "p"] if reads else [None]

    # --- one alternative and one row make one rule ------------------------------------------------------------------

    def draft(self, alternative: Alternative, row: Row | None) -> _Draft | None:
        """Return the rule this row makes of the alternative, or None if it can never match."""
        draft = _Draft(actions=set(self.universe))
        for atom in alternative:
            if not self.apply(atom, row, draft):
                return None
        if draft.role is not None and draft.subjects is not None:
            raise self.refusal(alternative[0], row, "the subject is compared and asked for a role at once")
        # An empty set is "nobody" or "nothing"; written as an empty list it would be everyone.
        return None if set() in (draft.actions, draft.subjects, draft.objects, draft.domains) else draft

    def apply(self, atom: Atom, row: Row | None, draft: _Draft) -> bool:
        """Narrow the draft by one atom; return False if the atom is false for this row."""
        left, *others = atom.arguments
        if left.kind != "r":
            return self.static(atom, row, draft)
        if len(left.path) > 1 or (others and others[0].kind == "r" and atom.function in ("==", "!=")):
            self.attribute(atom, row, draft)
            return True
        part = self.part(left)
        value = self.constant(others[0], row) if others else ""
        if atom.function in ("==", "in"):
            narrowed = {str(one) for one in (value if isinstance(value, tuple) else (value,))}
            self.narrow(part, {self.located_name(part, one, atom, row) for one in narrowed}, draft)
        elif atom.function in self.groups:
            self.group(atom, part, str(value), draft, row)
        else:
            self.match(atom, part, str(value), draft, row)
        return True

    def static(self, atom: Atom, row: Row | None, draft: _Draft) -> bool:
        """A comparison of constants and columns is decided now; one with the request on the right is turned round."""
        left, *others = atom.arguments
        if atom.function in ("==", "!=") and others[0].kind == "r":
            return self.apply(Atom(atom.function, (others[0], left), atom.span), row, draft)
        if atom.function not in ("==", "!=", "in") or others[0].kind == "r":
            raise self.refusal(atom, row, f"`{atom.function}` is not about the request")
        one, two = self.constant(left, row), self.constant(others[0], row)
        if atom.function == "in":
            return one in two if isinstance(two, tuple) else False
        return bool(one == two) == (atom.function == "==")

    def narrow(self, part: str, values: set[str], draft: _Draft) -> None:
        if part == "act":
            draft.actions &= values
        elif part == "sub":
            draft.subjects = values if draft.subjects is None else draft.subjects & values
        elif part == "obj":
            draft.objects = values if draft.objects is None else draft.objects & values
        else:
            draft.domains = values if draft.domains is None else draft.domains & values

    def group(self, atom: Atom, part: str, value: str, draft: _Draft, row: Row | None) -> None:
        width = self.groups[atom.function]
        if len(atom.arguments) != width or (width == 3 and not self.is_request(atom.arguments[2], "dom")):
            raise self.refusal(atom, row, f"`{atom.function}` takes the request's name, a group"
                               + (" and the request's domain" if width == 3 else ""))  # fmt: skip
        if part != "sub":
            if width == 3:
                raise self.refusal(atom, row, "groups of resources by domain have no counterpart")
            members = self.members(atom.function, value)
            self.narrow(part, {self.located_name(part, one, atom, row) for one in members}, draft)
        elif atom.function != "g":
            raise self.refusal(atom, row, "only `g` can give roles to subjects")
        elif value not in self.role_names:
            self.narrow("sub", {value}, draft)
        elif draft.role not in (None, value):
            raise self.refusal(atom, row, "two roles are asked for at once")
        else:
            draft.role = value

    def match(self, atom: Atom, part: str, value: str, draft: _Draft, row: Row | None) -> None:
        """Apply `!=` and the matching functions."""
        place = self.place(atom, row)
        raw, value = value, self.located_name(part, value, atom, row)
        if part == "act" and atom.function in ("regexMatch", "!="):
            kept = {a for a in self.universe if (a != value if atom.function == "!=" else re.match(value, a))}
            draft.actions &= kept
        elif part == "obj" and atom.function == "!=":
            draft.tests.append(("resource.id != {id}", value))
        elif part == "sub" and atom.function == "!=":
            draft.tests.append((f"subject.id != {_quoted('user:' + value)}", ""))
        elif part == "obj" and atom.function == "keyMatch":
            prefix, exact = key_match_prefix(raw, place)
            prefix = prefix.removeprefix("/")
            if exact:
                self.narrow("obj", {prefix}, draft)
            else:
                draft.tests.append(("resource.id.startsWith({id})", prefix))
        elif part == "obj" and atom.function in ("keyMatch2", "keyMatch3"):
            draft.tests.append(("resource.id.matches({regex})", key_match2_regex(raw, atom.function, place)))
        elif part == "obj" and atom.function == "globMatch":
            draft.tests.append(("resource.id.matches({regex})", glob_regex(raw, place)))
        else:
            raise self.refusal(atom, row, f"`{atom.function}` on `{part}` has no exact counterpart")

    def attribute(self, atom: Atom, row: Row | None, draft: _Draft) -> None:
        """Turn a comparison with an attribute into a condition, and learn the attribute's type from it."""
        if atom.function not in ("==", "!=", "<", "<=", ">", ">="):
            raise self.refusal(atom, row, f"`{atom.function}` on an attribute has no exact counterpart")
        left, right = atom.arguments
        constants = [self.constant(one, row) for one in atom.arguments if one.kind != "r"]
        kind = "int" if constants and type(constants[0]) is int else "string"
        if kind == "string" and atom.function not in ("==", "!="):
            raise self.refusal(atom, row, "texts are compared by order")
        spelled = [self.spelled(operand, row, kind, atom) for operand in (left, right)]
        draft.tests.append((f"{spelled[0]} {atom.function} {spelled[1]}", ""))

    def spelled(self, operand: Operand, row: Row | None, kind: str, atom: Atom) -> str:
        if operand.kind != "r":
            value = self.constant(operand, row)
            return str(value) if type(value) is int else _quoted(str(value))
        part = self.part(operand)
        if len(operand.path) == 1:
            if part != "sub" or kind != "string" or all(len(one.path) < 2 for one in atom.arguments):
                raise self.refusal(atom, row, "only the subject can be compared with an attribute")
            return "subject.id"
        if len(operand.path) != 2 or part not in ("sub", "obj"):
            raise self.refusal(atom, row, "attributes of attributes have no counterpart")
        name = self.learned("subject" if part == "sub" else "resource", operand, kind)
        beside_subject = any(one.kind == "r" and len(one.path) == 1 for one in atom.arguments)
        return f'"user:" + {name}' if beside_subject else name

    def learned(self, entity: str, operand: Operand, kind: str) -> str:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", operand.path[1]).lower()
        if not _ATTRIBUTE.fullmatch(name) or name in ("id", "type", "domain"):
            raise PolicyError(f"attribute `{operand.path[1]}` has no spelling here", span=operand.span, code="PG011")
        if self.attributes[entity].setdefault(name, kind) != kind:
            raise PolicyError(f"attribute `{operand.path[1]}` is compared with text and with integers",
                              span=operand.span, code="PG104")  # fmt: skip
        return f"{entity}.{name}"

    # --- names --------------------------------------------------------------------------------------------------------

    def part(self, operand: Operand) -> str:
        token = operand.path[0]
        if token not in self.requests:
            raise PolicyError(f"`r.{token}` is not in the request definition", span=operand.span, code="PG110")
        return self.requests[token]

    def located_name(self, part: str, name: str, atom: Atom, row: Row | None) -> str:
        """Return an object's name as an id spells it: without the leading slash, where all have one."""
        if part != "obj":
            return name
        if name.startswith("/") != self.rooted:
            raise PolicyError(f"found the object `{name}`, expected all objects or none to begin with `/`",
                              span=self.place(atom, row), code="PG011")  # fmt: skip
        own = name.removeprefix("/")
        if any(segment in ("", ".", "..") for segment in own.split("/")[:-1]) or not own:
            raise PolicyError(f"found the object `{name}`, expected no empty, `.` or `..` segment",
                              span=self.place(atom, row), code="PG011")  # fmt: skip
        return own

    def is_request(self, operand: Operand, part: str) -> bool:
        return operand.kind == "r" and len(operand.path) == 1 and self.requests.get(operand.path[0]) == part

    def constant(self, operand: Operand, row: Row | None) -> Any:
        if operand.kind == "constant":
            return operand.value
        if operand.kind != "p" or row is None or len(operand.path) != 1 or operand.path[0] not in self.columns:
            raise PolicyError(f"found `{operand.value}`, expected a constant or a column of `p`", span=operand.span,
                              code="PG110")  # fmt: skip
        return row.values[self.columns.index(operand.path[0])]

    def members(self, group: str, value: str) -> list[str]:
        """Return the names that casbin counts into a group, itself included."""
        found = {value}
        for _ in range(MAX_LINKS + 1):
            more = {row.values[0] for row in self.links[group] if row.values[1] in found} - found
            found |= more
        if more:
            row = next(row for row in self.links[group] if row.values[0] in more)
            raise PolicyError(f"a chain of `{group}` rows is longer than the {MAX_LINKS} links casbin follows (H11)",
                              span=row.span, code="PG502")  # fmt: skip
        return sorted(found)

    def role_name(self, name: str, span: Span) -> str:
        """Return the role's name here: a leading `role:`, which many write to keep roles apart, goes without saying."""
        short = name.removeprefix("role:")
        if short != name and short in self.role_names:
            raise PolicyError(f"found the roles `{short}` and `{name}`, expected one of them", span=span, code="PG006")
        return _named(_ROLE, short, "a role", span)

    def place(self, atom: Atom, row: Row | None) -> Span:
        return row.span if row is not None else atom.span

    def refusal(self, atom: Atom, row: Row | None, why: str) -> PolicyError:
        where = f" (row {row.span})" if row is not None else ""
        return PolicyError(f"{why}{where}, which import does not translate", span=atom.span, code="PG109")

    # --- documents ----------------------------------------------------------------------------------------------------

    def documents(self) -> str:
        """Return the YAML text, else raise `PolicyErrors` with everything that has no counterpart."""
        errors: list[PolicyError] = []
        rules: list[dict[str, Any]] = []
        for number, alternative in enumerate(self.alternatives):
            for row in self.rows_for(alternative):
                try:
                    draft = self.draft(alternative, row)
                    if draft is not None:
                        rules += [self.rule(draft, row, number, effect) for effect in self.effects_of(row)]
                except PolicyError as error:
                    errors.append(error)
        self.link_errors(errors)
        if len({action.lower() for action in self.universe}) < len(self.universe):
            errors.append(PolicyError("found actions that differ in case only, expected one spelling of each",
                                      span=self.conf.m["m"].at(0), code="PG006"))  # fmt: skip
        if not rules and not errors:
            errors.append(PolicyError("found no row that could ever match, expected at least one",
                                      span=self.conf.m["m"].at(0), code="PG003"))  # fmt: skip
        if errors:
            raise PolicyErrors(_distinct(errors))
        return _HEADER + "---\n".join(_yaml(document) for document in self.all_documents(rules))

    def effects_of(self, row: Row | None) -> list[str]:
        """Return the row's effect; an alternative that reads no row matches with each, so it has all their effects."""
        if "eft" not in self.columns:
            return ["allow"]
        at = self.columns.index("eft")
        rows = [row] if row is not None else [one for one in self.rows if one.kind == "p"]
        return sorted({one.values[at] for one in rows}) or ["allow"]

    def rule(self, draft: _Draft, row: Row | None, number: int, effect: str) -> dict[str, Any]:
        span = row.span if row is not None else self.conf.m["m"].at(0)
        several = f"-{number + 1}" if len(self.alternatives) > 1 else ""
        name = f"line-{span.line}" if row is not None else f"matcher-{effect}"
        rule: dict[str, Any] = {"id": name + several, "effect": effect}
        if draft.role is not None:
            rule["roles"] = [self.role_name(draft.role, span)]
        elif draft.subjects is not None:
            rule["subjects"] = [f"user:{name}" for name in sorted(draft.subjects)]
        rule["actions"] = [f"object:{_verb(action, span)}" for action in sorted(draft.actions)]
        rule["resources"] = {"type": "object"}
        conditions = self.placed(draft, rule["resources"], span)
        if conditions:
            rule["when"] = " && ".join(conditions)
        if row is not None:
            rule["description"] = ", ".join((row.kind, *row.values))
        return rule

    def placed(self, draft: _Draft, resources: dict[str, Any], span: Span) -> list[str]:
        """Return the conditions on the id, and set its pattern where one says the same."""
        domains = None if draft.domains is None else sorted(draft.domains)
        if domains is not None and len(domains) != 1:
            raise PolicyError("several domains in one alternative", span=span, code="PG109")
        where = "" if not self.domains else "{team}" if domains is None else _named(_ROLE, domains[0], "a domain", span)
        objects = None if draft.objects is None else sorted(draft.objects)
        simple = objects is not None and len(objects) == 1 and _SEGMENTS.fullmatch(objects[0])
        conditions = []
        if objects is None and where not in ("", "{team}"):
            resources["id"] = f"{where}/**"
        elif objects is not None and simple:
            resources["id"] = f"{where}/{objects[0]}" if where else objects[0]
        elif objects is not None:
            listed = ", ".join(_quoted(self.located(one, where, span)) for one in objects)
            conditions.append(f"resource.id in [{listed}]")
        for text, value in draft.tests:
            if "{regex}" in text:
                head = f"{re.escape(self.located('', where, span))}" if where else ""
                text = text.replace("{regex}", _quoted(f"^{head}{value}$"))
            elif "{id}" in text:
                text = text.replace("{id}", _quoted(self.located(value, where, span)))
            conditions.append(text)
        return conditions

    def located(self, name: str, where: str, span: Span) -> str:
        if where == "{team}":
            raise PolicyError(
                "a pattern over resources of every domain has no exact counterpart", span=span, code="PG206"
            )
        return f"{where}/{name}" if where else name

    def link_errors(self, errors: list[PolicyError]) -> None:
        for row in self.links.get("g", []):
            try:
                self.role_name(row.values[1], row.span)
                if self.groups["g"] == 3:
                    _named(_ROLE, row.values[2], "a domain", row.span)
                self.members("g", row.values[1])
            except PolicyError as error:
                errors.append(error)

    def all_documents(self, rules: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the documents; roles by domain are bound directly, since ours inherit alike in all domains."""
        resource: dict[str, Any] = {"actions": sorted({_verb(a, self.conf.m["m"].at(0)) for a in self.universe})}
        if self.domains:
            resource = {"id": "{team}/**", **resource}
        subject: dict[str, Any] = {}
        for body, entity in ((subject, "subject"), (resource, "resource")):
            if self.attributes[entity]:
                body["attributes"] = {n: {"type": t, "optional": True} for n, t in self.attributes[entity].items()}
        yield _document("Schema", subjects={"user": subject}, resources={"object": resource})
        links = self.links.get("g", [])
        if links:
            flat = self.groups["g"] == 3
            at = self.conf.m["m"].at(0)
            short = {name: self.role_name(name, at) for name in self.role_names}
            parents = {one: sorted({short[r.values[1]] for r in links if r.values[0] == one}) for one in short}
            yield _document("Roles", roles=[
                {"name": short[one], **({"inherits": parents[one]} if parents[one] and not flat else {})}
                for one in sorted(short)
            ])  # fmt: skip
            yield _document("Bindings", bindings=[
                {"subject": f"user:{user}", "role": short[role], "domain": domain}
                for user, role, domain in sorted(set(self.flat_bindings(links) if flat else self.plain_bindings(links)))
            ])  # fmt: skip
        yield _document("Policy", rules=rules)

    def plain_bindings(self, links: Iterable[Row]) -> Iterator[tuple[str, str, str]]:
        yield from ((row.values[0], row.values[1], "*") for row in links if row.values[0] not in self.role_names)

    def flat_bindings(self, links: Sequence[Row]) -> Iterator[tuple[str, str, str]]:
        for domain in {row.values[2] for row in links}:
            inside = [row for row in links if row.values[2] == domain]
            for row in inside:
                if row.values[0] not in self.role_names:
                    held = {row.values[1]}
                    for _ in inside:
                        held |= {other.values[1] for other in inside if other.values[0] in held}
                    yield from ((row.values[0], role, domain) for role in held)


_HEADER = """\
# Translated from a casbin model. A subject `alice` is `user:alice`, an object `data1` is `object:data1` (with domains
# `object:domain1/data1`), an action `read` is `object:read`. Whoever is named like a role no longer holds it.
"""


def _single(conf: Conf) -> None:
    for letter in "rpem":
        found: dict[str, Text] = getattr(conf, letter)
        if letter not in found:
            raise PolicyError(f"the model has no `{letter}`", span=Span("model.conf", 1, 1), code="PG003")
        for key, text in found.items():
            if key != letter:
                raise PolicyError(f"found `{key}`, expected only `{letter}`: casbin ignores it unless asked in code",
                                  span=text.at(0), code="PG109")  # fmt: skip


def _request_parts(definition: Text) -> dict[str, str]:
    tokens = [token.strip() for token in definition.text.split(",")]
    parts = {token: PARTS.get(token.lower(), "") for token in tokens}
    if "" in parts.values() or len(set(parts.values())) != len(tokens):
        raise PolicyError(f"found the request `{definition.text}`, expected `sub`, `dom`, `obj`, `act` at most once",
                          span=definition.at(0), code="PG109")  # fmt: skip
    return parts


def _group_width(name: str, definition: Text) -> int:
    shape = definition.text.replace(" ", "")
    if shape not in ("_,_", "_,_,_"):
        raise PolicyError(f"found `{name} = {definition.text}`, expected `_, _` or `_, _, _`", span=definition.at(0),
                          code="PG109", help="roles with conditions need `notBefore` and `expires`")  # fmt: skip
    return shape.count("_")


def _effects(definition: Text) -> tuple[str, ...]:
    shape = definition.text.replace(" ", "").replace("p_eft", "p.eft")
    if shape in EFFECTS:
        return EFFECTS[shape]
    if shape == "!some(where(p.eft==deny))":
        raise PolicyError("this effect allows what nothing matches (H5)", span=definition.at(0), code="PG220",
                          help="write `some(where (p.eft == allow)) && !some(where (p.eft == deny))`")  # fmt: skip
    code = "PG312" if "riority" in shape else "PG109"
    raise PolicyError(f"found the effect `{definition.text}`, expected allow-override or deny-override",
                      span=definition.at(0), code=code, help="our rules have no priorities: deny trumps")  # fmt: skip


def _named(pattern: re.Pattern[str], name: str, what: str, span: Span) -> str:
    if not pattern.fullmatch(name):
        raise PolicyError(
            f"found `{name}`, expected {what} of letters, digits, `.`, `_` and `-`", span=span, code="PG011"
        )
    return name


def _verb(action: str, span: Span) -> str:
    verb = action.lower()
    if not _ACTION.fullmatch(verb):
        raise PolicyError(
            f"found the action `{action}`, expected letters, digits, `_` and `-`", span=span, code="PG011"
        )
    return verb


def _distinct(errors: Sequence[PolicyError]) -> list[PolicyError]:
    found = {(error.span, error.message): error for error in errors}
    return sorted(found.values(), key=lambda error: (error.span or Span("", 0, 0), error.message))


def _quoted(text: str) -> str:
    """Return the text as a CEL literal; JSON's escapes are CEL's."""
    return json.dumps(text, ensure_ascii=False)


def _document(kind: str, **body: Any) -> dict[str, Any]:
    return {"apiVersion": "policyguard/v1", "kind": kind, "metadata": {"name": "imported"}, **body}


def _yaml(document: dict[str, Any]) -> str:
    """Return a document as YAML: one line for each member, one for each item of a list; scalars are JSON's, quoted."""
    lines = []
    for key, value in document.items():
        if isinstance(value, list):
            lines += [f"{key}:", *(f"  - {json.dumps(item, ensure_ascii=False)}" for item in value)]
        else:
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"
