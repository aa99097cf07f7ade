"""Facts and approvals that somebody supposes, for tests and for `explain`. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from policyguard.conditions.entities import merged
from policyguard.conditions.former_names import present_fact
from policyguard.model.facts import Approval, Assurance, Fact
from policyguard.model.policy import Attribute, Schema
from policyguard.model.request import Request
from policyguard.policy.nodes import Mapping as MapNode
from policyguard.policy.nodes import Node, Scalar
from policyguard.policy.problems import Problems
from policyguard.policy.reader import to_value
from policyguard.policy.schema import ASSURANCES
from policyguard.values import NANOSECONDS_PER_S, Instant

APPROVAL_LIFETIME = 3_600 * NANOSECONDS_PER_S


class FactReader:
    """Reads facts that are written as `PATH: VALUE` or `PATH: {value: VALUE, assurance: WORD}`."""

    def __init__(self, schema: Schema, problems: Problems, source: str = "test") -> None:
        """Read facts about what this schema declares; `source` is named as where they come from."""
        self._schema, self._problems, self._source = schema, problems, source

    def add(
        self,
        entries: dict[str, Fact],
        request: Request,
        path: str,
        key: Scalar,
        node: Node,
        now: Instant,
        *,
        shared: bool = False,
    ) -> None:
        """Add one fact, or report why it is none.

        Args:
            entries: where it is added.
            request: what it is about.
            path, key, node, now: its path, the nodes of its path and of its value, and its time.
            shared: it may be about other types of resources, and is then left out.
        """
        path = present_fact(path)
        owner, _, name = path.partition(".")
        known = self.attributes(request, owner)
        if name not in known:
            if not shared or not self._is_declared(owner, name):
                paths = [f"{owner}.{attribute}" for attribute in known]
                self._problems.unknown(key, "PG103", "attribute", path, paths)
            return
        assurance = known[name].assurance
        if isinstance(node, MapNode) and node.get("assurance") is not None and node.get("value") is not None:
            assurance = self._assurance(node)
            node = node.get("value") or node
        value = to_value(node, self._problems.errors)
        if value is not None:
            entries[path] = Fact(value, assurance, self._source, now)

    def attributes(self, request: Request, owner: str) -> Mapping[str, Attribute]:
        """Return the attributes that the subject, the resource or the context of a request can have."""
        if owner == "context":
            return self._schema.context
        if owner == "subject":
            return self._schema.subjects[request.subject.type].attributes
        return self._schema.resources[request.resource.type].attributes

    def _is_declared(self, owner: str, name: str) -> bool:
        types = self._schema.subjects if owner == "subject" else self._schema.resources
        return name in (self._schema.context if owner == "context" else merged(list(types.values())))

    def _assurance(self, node: MapNode) -> Assurance:
        at = node.get("assurance")
        word = at.text if isinstance(at, Scalar) else ""
        if word not in ASSURANCES:
            self._problems.unknown(at or node, "PG003", "assurance", word, ASSURANCES)
        return ASSURANCES.get(word, Assurance.CLAIMED)


def supposed_approval(account: str, now: Instant, source: str = "test") -> Approval:
    """Return an approval as if this account had just signed one for the request.

    Args:
        account: who approves.
        now: when.
        source: what an explanation names as its source.
    """
    digest = hashlib.sha256(account.encode()).hexdigest()
    return Approval(account, Assurance.ATTESTED, source, now, now + APPROVAL_LIFETIME, digest)
