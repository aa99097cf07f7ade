"""The AuthZEN 1.0 request (subject, action, resource, context), parsed once and frozen.

Everything in a request is a claim; measured facts are in `Facts`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from policyguard.errors import RequestError
from policyguard.model.ids import id_problem, is_action, is_type_name
from policyguard.text import quoted, quoted_list
from policyguard.values import (
    EMPTY_MAP,
    FrozenMap,
    Value,
    ValueProblem,
    canonical,
    freeze,
    name_of,
    sha256_digest,
)

MAX_REQUEST_BYTES = 1_048_576
"""Larger requests are refused before they are parsed."""


class Entity(msgspec.Struct, frozen=True):
    """A subject or a resource: `type`, `id`, and the properties that the sender claims."""

    type: str
    id: str
    properties: FrozenMap = EMPTY_MAP

    @property
    def ref(self) -> str:
        """The id in its only text form, `user:alice` or `job:team/vision/run-17`."""
        return f"{self.type}:{self.id}"


class Request(msgspec.Struct, frozen=True):
    """A question: may this subject do this action to this resource, in this context?

    `action` is `type:verb` text such as `job:submit`. All properties are claims.
    """

    subject: Entity
    action: str
    resource: Entity
    context: FrozenMap = EMPTY_MAP

    @classmethod
    def of(
        cls, subject: str, action: str, resource: str, *, context: Mapping[str, Any] | None = None, **properties: Any
    ) -> Request:
        """Build a request from `type:id` texts; keyword arguments are the resource's claimed properties.

        >>> Request.of("user:alice", "job:submit", "job:team/vision/run-17", gpus=8).resource.properties["gpus"]
        8

        Args:
            subject: the subject, `type:id`.
            action: the action, `type:verb`.
            resource: the resource, `type:id`.
            context: the claimed context.

        Raises:
            RequestError: an id, a name or a property is malformed; `.path` says which.
        """
        subject_type, subject_id = _split(subject, "$.subject")
        resource_type, resource_id = _split(resource, "$.resource")
        return cls(
            _entity(subject_type, subject_id, {}, "$.subject"),
            _action(action),
            _entity(resource_type, resource_id, properties, "$.resource"),
            _map(context or {}, "$.context"),
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Request:
        """Parse an AuthZEN request from JSON; duplicate keys, floats, nulls and NaN are refused.

        Raises:
            RequestError: the text is invalid; `.path` is the JSON path of the first problem.
        """
        if len(text) > MAX_REQUEST_BYTES:
            raise RequestError(f"request is {len(text)} bytes, expected at most {MAX_REQUEST_BYTES}")
        return cls.from_data(parse_json(text))

    @classmethod
    def from_data(cls, data: object) -> Request:
        """Parse an AuthZEN request from decoded JSON.

        Raises:
            RequestError: the data is invalid; `.path` is the JSON path of the first problem.
        """
        top = _object(data, "$", required=("subject", "action", "resource"), optional=("context",))
        action = _object(top["action"], "$.action", required=("name",), optional=("properties",))
        if action.get("properties"):
            raise RequestError(
                "found properties of an action, expected none; put them on the resource or the context",
                path="$.action.properties",
            )
        return cls(
            _entity_of(top["subject"], "$.subject"),
            _action(action["name"]),
            _entity_of(top["resource"], "$.resource"),
            _map(top.get("context", {}), "$.context"),
        )

    def to_data(self) -> dict[str, Any]:
        """Return the AuthZEN object; `from_data(to_data(r)) == r`."""
        data = {
            "subject": _entity_data(self.subject),
            "action": {"name": self.action},
            "resource": _entity_data(self.resource),
        }
        if self.context:
            data["context"] = self.context
        return data


def request_digest(request: Request, bound: Mapping[str, Value] = EMPTY_MAP, *, key: bytes = b"") -> str:
    """Compute the SHA-256 over the canonical bytes of the request and its bound facts.

    The worker measures the same paths again and must get the same digest (step V7). An empty value and an absent one
    give different digests.

    Args:
        request: the request.
        bound: attribute paths (`resource.code`) to measured values.
        key: the digest key of a decision that hides values; without it, who guesses a hidden value cannot tell whether
            the guess is right.
    """
    encoded = _encode(_Digested(bound, key.hex() or msgspec.UNSET, _request_data(request)))
    # ASCII text has one order and one escaping, so the fast encoder's bytes are the canonical ones.
    if not encoded.isascii():
        keyed = {"key": key.hex()} if key else {}
        encoded = canonical({"bound": bound, **keyed, "request": request.to_data()})
    return sha256_digest(encoded)


class _Name(msgspec.Struct, frozen=True, gc=False):
    name: str


class _Named(msgspec.Struct, frozen=True, gc=False):
    id: str
    properties: FrozenMap | msgspec.UnsetType
    type: str


class _RequestData(msgspec.Struct, frozen=True, gc=False):
    """`Request.to_data` with its fields in sorted order."""

    action: _Name
    context: FrozenMap | msgspec.UnsetType
    resource: _Named
    subject: _Named


class _Digested(msgspec.Struct, frozen=True, gc=False):
    bound: Mapping[str, Value]
    key: str | msgspec.UnsetType
    request: _RequestData


def _request_data(request: Request) -> _RequestData:
    subject, resource, unset = request.subject, request.resource, msgspec.UNSET
    return _RequestData(
        _Name(request.action),
        request.context or unset,
        _Named(resource.id, resource.properties or unset, resource.type),
        _Named(subject.id, subject.properties or unset, subject.type),
    )


_encode = msgspec.json.Encoder(order="deterministic").encode
"""Sorts the members of mappings and writes the fields of structs in their declared order."""


def parse_json(text: str | bytes) -> object:
    """Parse JSON strictly.

    Raises:
        RequestError: not JSON, a duplicate key, NaN, bytes that are not UTF-8, or nested too deeply.
    """
    try:
        if type(text) is bytes:
            text = _as_text(text)
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except RecursionError:
        raise RequestError("found JSON nested too deeply to be a request") from None
    except UnicodeDecodeError as problem:
        raise RequestError(f"found a byte that is not UTF-8 at offset {problem.start}") from None
    except json.JSONDecodeError as problem:
        raise RequestError(f"not JSON: {problem.msg.lower()} at line {problem.lineno} column {problem.colno}") from None
    except ValueError as problem:
        # Integers of more than 4300 digits end here: the interpreter refuses to convert them.
        raise RequestError(f"not JSON we read: {str(problem).lower().split(';')[0]}") from None


def _as_text(data: bytes) -> str:
    """Decode UTF-8 with or without a byte order mark; `json` would also accept UTF-16 and UTF-32."""
    # INVARIANT I5: one request has one encoding: tools that read UTF-8 only see the request that is decided.
    if b"\0" in data[:4] or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise RequestError("found UTF-16 or UTF-32, expected UTF-8")
    return data.removeprefix(b"\xef\xbb\xbf").decode()


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        again = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise RequestError(f"found the key `{again}` twice in one object")
    return members


def _no_constant(name: str) -> object:
    raise RequestError(f"found `{name}`, expected a JSON value")


def _split(ref: object, path: str) -> tuple[str, str]:
    if type(ref) is not str:
        raise RequestError(f"found {name_of(ref)}, expected `type:id` text", path=path)
    kind, colon, identifier = ref.partition(":")
    if not colon:
        raise RequestError(f"found `{ref}`, expected `type:id` such as `user:alice`", path=path)
    return kind, identifier


def _entity_of(data: object, path: str) -> Entity:
    members = _object(data, path, required=("type", "id"), optional=("properties",))
    return _entity(members["type"], members["id"], members.get("properties", {}), path)


def _entity(kind: object, identifier: object, properties: object, path: str) -> Entity:
    if type(kind) is not str or not is_type_name(kind):
        raise RequestError(f"found {_preview(kind)}, expected a type name such as `user`", path=f"{path}.type")
    if type(identifier) is not str:
        raise RequestError(f"found {name_of(identifier)}, expected an id as text", path=f"{path}.id")
    # INVARIANT I5: an id has one form and is literal.
    problem = id_problem(identifier)
    if problem is not None:
        raise RequestError(problem, path=f"{path}.id")
    return Entity(kind, identifier, _map(properties, f"{path}.properties"))


def _action(name: object) -> str:
    if type(name) is not str or not is_action(name):
        raise RequestError(f"found {_preview(name)}, expected `type:verb` such as `job:submit`", path="$.action.name")
    return name


def _map(data: object, path: str) -> FrozenMap:
    if not isinstance(data, Mapping):
        raise RequestError(f"found {name_of(data)}, expected a map", path=path)
    try:
        return freeze(data, path)  # type: ignore[return-value]
    except ValueProblem as problem:
        raise RequestError(problem.message, path=problem.path) from None


def _object(data: object, path: str, *, required: tuple[str, ...], optional: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise RequestError(f"found {name_of(data)}, expected an object with {quoted_list(required)}", path=path)
    for name in required:
        if name not in data:
            raise RequestError(f"`{name}` is missing, expected an object with {quoted_list(required)}", path=path)
    for name in data:
        if name not in required and name not in optional:
            raise RequestError(
                f"unknown field {quoted(str(name))}, expected {quoted_list((*required, *optional))}", path=path
            )
    return data


def _preview(data: object) -> str:
    if type(data) is not str:
        return name_of(data)
    return quoted(data) if data else "empty text"


def _entity_data(entity: Entity) -> dict[str, Any]:
    data: dict[str, Any] = {"type": entity.type, "id": entity.id}
    if entity.properties:
        data["properties"] = entity.properties
    return data
