"""The transitive closure of role inheritance, for the loader, the engine and lint. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policyguard.errors import PolicyError
from policyguard.model.policy import Role
from policyguard.text import quoted_list

MAX_CHAIN = 64
"""The maximum number of roles in a chain of inheritance. casbin's own role manager silently stops at ten links."""

MAX_CLOSED_ROLES = 500_000
"""The maximum sum of all roles' inherited roles; a larger graph, which would fill the memory, is refused."""

_MAX_LISTED = 8


def close_roles(roles: Sequence[Role]) -> tuple[dict[str, frozenset[str]], list[PolicyError]]:
    """Map each role to itself and all roles it inherits, and list the errors in the graph.

    The errors are PG501 for each circle, PG502 for a chain that is too long, and PG010 when the roles inherit too much
    in all. A closure with errors is incomplete and may only serve to find more errors. Unknown parents are skipped;
    they are reported where references are checked.
    """
    closing = _Closing({role.name: role for role in roles})
    for role in roles:
        closing.close(role.name)
    return closing.closed, closing.errors


class _Closing:
    def __init__(self, roles: Mapping[str, Role]) -> None:
        self.roles = roles
        self.closed: dict[str, frozenset[str]] = {}
        self.errors: list[PolicyError] = []
        self._length: dict[str, int] = {}
        self._total = 0

    def close(self, start: str) -> None:
        """Close one role depth first, with an explicit stack, so that a long chain cannot overflow it."""
        path: list[str] = [start] if start not in self.closed else []
        on_path = set(path)
        while path:
            here = path[-1]
            parents = [parent for parent in self.roles[here].inherits if parent in self.roles]
            pending = next((parent for parent in parents if parent not in self.closed and parent not in on_path), None)
            if pending is not None:
                path.append(pending)
                on_path.add(pending)
                continue
            for parent in parents:
                if parent in on_path:
                    # INVARIANT I6: a circle of roles stops the load, it is never silently cut.
                    between = path[path.index(parent) : -1][:_MAX_LISTED]
                    circle = quoted_list((here, *between, here), joiner=" -> ")
                    self._error(here, "PG501", f"role `{here}` inherits itself: {circle}")
            self._finish(here, [parent for parent in parents if parent in self.closed])
            on_path.discard(path.pop())

    def _finish(self, here: str, parents: Sequence[str]) -> None:
        length = self._length[here] = 1 + max((self._length[parent] for parent in parents), default=0)
        # INVARIANT I6: inheritance is followed to its end, or the load stops.
        if length == MAX_CHAIN + 1:
            self._error(
                here, "PG502", f"role `{here}` inherits through a chain of {length} roles, expected at most {MAX_CHAIN}"
            )
        # A chain that is too long is not closed: the sets of ten thousand roles would exhaust the memory.
        if length > MAX_CHAIN or self._total > MAX_CLOSED_ROLES:
            self.closed[here] = frozenset((here,))
            return
        self.closed[here] = frozenset((here,)).union(*(self.closed[parent] for parent in parents))
        self._total += len(self.closed[here])
        if self._total > MAX_CLOSED_ROLES:
            self._error(here, "PG010", f"roles inherit each other more than {MAX_CLOSED_ROLES} times in all")

    def _error(self, role: str, code: str, message: str) -> None:
        self.errors.append(PolicyError(message, span=self.roles[role].span, code=code))
