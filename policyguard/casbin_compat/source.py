"""The names in a casbin model and its rows: group members, roles, and the values of columns.

Pure. casbin has no list of actions and objects, but a schema needs one: it is collected from the rows and the matcher.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from policyguard.casbin_compat.conf import Row, read_rows
from policyguard.casbin_compat.definitions import Definitions
from policyguard.casbin_compat.matcher import Alternative, Atom, Operand
from policyguard.casbin_compat.patterns import alternatives
from policyguard.errors import PolicyError, PolicyErrors
from policyguard.values import Span

MAX_LINKS = 9
"""The longest chain of groups that casbin follows (H11); a longer one would grant more here than in casbin."""

_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


class Source:
    """Rows and their definitions. `rooted`: every object begins with `/`, which is dropped."""

    def __init__(self, definitions: Definitions, policy: str, policy_file: str, actions: Sequence[str]) -> None:
        self.requests = definitions.requests
        self.columns = definitions.columns
        self.groups = definitions.groups
        self.effects = definitions.effects
        self.alternatives = definitions.alternatives
        self.matcher = definitions.matcher
        self.domains = "dom" in self.requests.values()
        widths = {"p": len(self.columns), **self.groups}
        self.rows, errors = read_rows(policy, policy_file, widths)
        errors += [error for row in self.rows if (error := self.effect_error(row)) is not None]
        if errors:
            raise PolicyErrors(errors)
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
            return PolicyError(
                f"found the effect `{effect}`, expected `allow` or `deny`: casbin ignores the row (H1)",
                span=row.span,
                code="PG004",
            )
        if effect not in self.effects:
            return PolicyError(
                "found a deny, which this model's effect ignores",
                span=row.span,
                code="PG306",
                help="add `&& !some(where (p.eft == deny))` to the effect",
            )
        return None

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
            return alternatives(str(value), self.span_of(atom, row))
        if atom.function in self.groups:
            return self.members(atom.function, str(value))
        return [str(one) for one in (value if isinstance(value, tuple) else (value,))]

    def rows_for(self, alternative: Alternative) -> Sequence[Row | None]:
        """List the rows to combine with an alternative; a single None if it reads no row."""
        reads = any(operand.kind == "p" for atom in alternative for operand in atom.arguments)
        return [row for row in self.rows if row.kind == "p"] if reads else [None]

    def effects_of(self, row: Row | None) -> list[str]:
        """List the effects of a row; an alternative that reads no row has the effects of all rows."""
        if "eft" not in self.columns:
            return ["allow"]
        at = self.columns.index("eft")
        rows = [row] if row is not None else [one for one in self.rows if one.kind == "p"]
        return sorted({one.values[at] for one in rows}) or ["allow"]

    def part(self, operand: Operand) -> str:
        token = operand.path[0]
        if token not in self.requests:
            raise PolicyError(f"`r.{token}` is not in the request definition", span=operand.span, code="PG110")
        return self.requests[token]

    def located_name(self, part: str, name: str, atom: Atom, row: Row | None) -> str:
        """Return an object's name as an id: without the leading slash, if all objects have one.

        Args:
            part: the part of the request.
            name: the object's name.
            atom: one comparison or call of the matcher.
            row: the row, for errors; None without one.

        Raises:
            PolicyError: the name is not a path, or only some objects begin with a slash.
        """
        if part != "obj":
            return name
        if name.startswith("/") != self.rooted:
            raise PolicyError(
                f"found the object `{name}`, expected all objects or none to begin with `/`",
                span=self.span_of(atom, row),
                code="PG011",
            )
        own = name.removeprefix("/")
        if any(segment in ("", ".", "..") for segment in own.split("/")[:-1]) or not own:
            raise PolicyError(
                f"found the object `{name}`, expected no empty, `.` or `..` segment",
                span=self.span_of(atom, row),
                code="PG011",
            )
        return own

    def is_request(self, operand: Operand, part: str) -> bool:
        return operand.kind == "r" and len(operand.path) == 1 and self.requests.get(operand.path[0]) == part

    def constant(self, operand: Operand, row: Row | None) -> Any:
        if operand.kind == "constant":
            return operand.value
        if operand.kind != "p" or row is None or len(operand.path) != 1 or operand.path[0] not in self.columns:
            raise PolicyError(
                f"found `{operand.value}`, expected a constant or a column of `p`", span=operand.span, code="PG110"
            )
        return row.values[self.columns.index(operand.path[0])]

    def members(self, group: str, value: str) -> list[str]:
        """List the names that casbin counts as members of a group, itself included.

        Raises:
            PolicyError: a chain of groups is longer than casbin follows (H11).
        """
        names = {value}
        for _ in range(MAX_LINKS + 1):
            more = {row.values[0] for row in self.links[group] if row.values[1] in names} - names
            names |= more
        if more:
            row = next(row for row in self.links[group] if row.values[0] in more)
            raise PolicyError(
                f"a chain of `{group}` rows is longer than the {MAX_LINKS} links casbin follows (H11)",
                span=row.span,
                code="PG502",
            )
        return sorted(names)

    def role_name(self, name: str, span: Span) -> str:
        """Return a role's name without the prefix `role:`.

        Raises:
            PolicyError: two roles would get one name.
        """
        unprefixed = name.removeprefix("role:")
        if unprefixed != name and unprefixed in self.role_names:
            raise PolicyError(
                f"found the roles `{unprefixed}` and `{name}`, expected one of them", span=span, code="PG006"
            )
        return role_like(unprefixed, "a role", span)

    def span_of(self, atom: Atom, row: Row | None) -> Span:
        return row.span if row is not None else atom.span

    def refusal(self, atom: Atom, row: Row | None, reason: str) -> PolicyError:
        where = f" (row {row.span})" if row is not None else ""
        return PolicyError(f"{reason}{where}, which import does not translate", span=atom.span, code="PG109")


def role_like(name: str, what: str, span: Span) -> str:
    """Return the name if it is a valid role name; otherwise raise.

    Args:
        name: the name.
        what: what it names, for errors.
        span: the position, for errors.

    Raises:
        PolicyError: the name has other characters.
    """
    if not _ROLE.fullmatch(name):
        raise PolicyError(
            f"found `{name}`, expected {what} of letters, digits, `.`, `_` and `-`", span=span, code="PG011"
        )
    return name
