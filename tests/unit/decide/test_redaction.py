"""What only the roles of `trace` may see is taken out of lists, maps and records, and nothing else is."""

from __future__ import annotations

import pytest

from policyguard.decide.redaction import redactor, traced_names, withheld
from policyguard.model.policy import Attribute, Schema, ValueType
from policyguard.values import FrozenMap, Value, freeze

TEXT = ValueType(kind="string")
LEAF, NODE, PLAIN = (ValueType(kind="record", record=name) for name in ("leaf", "node", "plain"))
SCHEMA = Schema(
    subjects={},
    resources={},
    records={
        "leaf": {
            "name": Attribute(name="name", type=TEXT),
            "path": Attribute(name="path", type=TEXT, audience="trace"),
        },
        "node": {"leaf": Attribute(name="leaf", type=LEAF), "size": Attribute(name="size", type=TEXT)},
        "plain": {"name": Attribute(name="name", type=TEXT)},
    },
)
FULL, SHOWN = {"name": "a", "path": "/x"}, {"name": "a", "path": {"hidden": True}}

CASES: dict[str, tuple[ValueType, object, object]] = {
    "a record": (LEAF, FULL, SHOWN),
    "a record in a record": (NODE, {"leaf": FULL, "size": "1"}, {"leaf": SHOWN, "size": "1"}),
    "a list of records": (ValueType(kind="list", element=LEAF), [FULL, {"name": "b"}], [SHOWN, {"name": "b"}]),
    "a map of records": (ValueType(kind="map", element=LEAF), {"k": FULL}, {"k": SHOWN}),
    "text for a record": (LEAF, "/x", {"hidden": True}),
    "text for a list": (ValueType(kind="list", element=LEAF), "/x", {"hidden": True}),
    "a list for a map": (ValueType(kind="map", element=LEAF), ["/x", "/y"], {"hidden": 2}),
    "a map for a list": (ValueType(kind="list", element=LEAF), {"k": FULL}, {"hidden": 1}),
    "text in a list of records": (ValueType(kind="list", element=LEAF), ["/x"], [{"hidden": True}]),
}


@pytest.mark.parametrize(("kind", "value", "shown"), CASES.values(), ids=CASES)
def test_a_field_for_trace_is_taken_out_wherever_it_is(kind: ValueType, value: object, shown: object) -> None:
    """INVARIANT I14: a value of another shape than the schema's is withheld whole."""
    redact = redactor(kind, SCHEMA)
    assert redact is not None
    assert redact(freeze(value)) == freeze(shown)
    assert traced_names(kind, SCHEMA) == {"path"}


@pytest.mark.parametrize(
    "kind", [TEXT, PLAIN, ValueType(kind="list", element=PLAIN), ValueType(kind="map", element=TEXT)]
)
def test_a_type_without_such_fields_has_nothing_to_take_out(kind: ValueType) -> None:
    """None, so that values are shown without a copy."""
    assert redactor(kind, SCHEMA) is None
    assert traced_names(kind, SCHEMA) == frozenset()


@pytest.mark.parametrize(
    ("value", "count"), [(("a", "b"), 2), (FrozenMap({"a": 1}), 1), ("ab", True), (7, True), ((), 0)]
)
def test_what_is_withheld_leaves_its_count_alone(value: Value, count: object) -> None:
    """Of a list or a map; a text's length would tell more."""
    assert withheld(value) == FrozenMap({"hidden": count})  # type: ignore[dict-item]
