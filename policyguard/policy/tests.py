"""The fields of `kind: Tests` and `kind: Invariants` documents. Running them is left to others.

The facts of a case stay nodes with their positions, so that a wrong type in them is reported when the case runs.
Neither kind is part of the policy set or its digest.

Tests are a list of cases, or a matrix in which every action that is not listed must be denied.
"""

from __future__ import annotations

from policyguard.policy.binder import Field, Table, choice, instant, listing, name, nested, prose, raw, table_of, text
from policyguard.policy.people import IDENTIFIER, resource_ref, subject_ref

EXPECTATIONS = ("allow", "deny", "needs-approval")

_ACTION = name("an action", r"[a-z][a-z0-9_]{0,62}:[a-z][a-z0-9_-]{0,62}", "job:submit")
_FACTS = table_of(
    name("a fact's path", r"(?:subject|resource|context)\.[a-z][a-z0-9_]{0,62}", "resource.gpus"), raw, "a map of facts"
)
_REQUEST = Table(
    "a request",
    Field("subject", subject_ref, required=True),
    Field("action", _ACTION, required=True),
    Field("resource", resource_ref, required=True),
)
_CASE = Table(
    "a case",
    Field("name", prose, required=True),
    Field("request", nested(_REQUEST), required=True),
    Field("use", listing(IDENTIFIER)),
    Field("facts", _FACTS),
    Field("approvals", listing(subject_ref, minimum=0)),
    Field("contributors", listing(subject_ref, minimum=0)),
    Field("unusable", listing(text)),
    Field("now", instant),
    Field("expect", choice("expectation", EXPECTATIONS), required=True),
    Field("reason", text),
    Field("obligations", listing(text)),
    Field("skip", prose),
)
_CELL = Table(
    "a row of the matrix",
    Field("subject", subject_ref, required=True),
    Field("resource", resource_ref, required=True),
    Field("use", listing(IDENTIFIER)),
    Field("facts", _FACTS),
    Field("allow", listing(_ACTION, minimum=0), required=True),
    Field("skip", prose),
)
TESTS_FIELDS = (
    Field("now", instant),
    Field("facts", table_of(IDENTIFIER, _FACTS, "a map of named facts")),
    Field("cases", listing(nested(_CASE))),
    Field("matrix", listing(nested(_CELL))),
)

_INVARIANT = Table(
    "an invariant",
    Field("id", IDENTIFIER, required=True),
    Field("never", raw),
    Field("always", raw),
    Field("description", prose),
)
INVARIANTS_FIELDS = (Field("invariants", listing(nested(_INVARIANT)), required=True),)
