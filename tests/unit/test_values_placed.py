"""Values that stand somewhere in a file are equal wherever they stand."""

from __future__ import annotations

import copy
import pickle

import msgspec
import pytest

from policyguard.model.expression import Call, Constant, Expression, Select, Variable
from policyguard.model.policy import Condition, Role, Rule
from policyguard.values import LazyPattern, Placed, Span

GPUS = Select(Variable("resource", "resource"), "gpus", "int")
HERE, THERE = Span("a.yaml", 1, 2), Span("b.yaml", 3, 4)


def condition(offset: int) -> Expression:
    return Call("less_int64", (GPUS, Constant(8, "int", offset)), "bool", offset)


PAIRS: dict[str, tuple[Placed, Placed, Placed]] = {
    "a node and its offset": (condition(1), condition(2), Call("less_int64", (GPUS, Constant(9, "int")), "bool")),
    "a role and its span": (Role(name="r", span=HERE), Role(name="r", span=THERE), Role(name="s", span=HERE)),
    "a condition and its positions": (
        Condition(text="t", expression=condition(1), span=HERE, positions=((0, 1, 1),)),
        Condition(text="t", expression=condition(2), span=THERE),
        Condition(text="u", expression=condition(1), span=HERE),
    ),
}


@pytest.mark.parametrize(("value", "moved", "other"), PAIRS.values(), ids=PAIRS.keys())
def test_a_place_takes_no_part_in_equality(value: Placed, moved: Placed, other: Placed) -> None:
    """The same value elsewhere is equal and hashes alike; another value in the same place is not."""
    assert (value == moved, hash(value) == hash(moved)) == (True, True)
    assert value != other
    assert len({value, moved, other}) == 2


def test_nodes_of_two_kinds_are_never_equal() -> None:
    """Equal fields do not make a variable a constant."""
    assert Variable("x", "string") != Constant("x", "string")


def test_a_noun_cannot_be_changed_but_replaced() -> None:
    """Assignment is refused; a replacement is a new value, and copies are equal."""
    rule = Rule(id="r", effect="deny", actions=("job:submit",), resource_types=("job",), span=HERE)
    with pytest.raises(AttributeError, match="immutable"):
        setattr(rule, "id", "s")  # noqa: B010
    assert msgspec.structs.replace(rule, id="s").id == "s"
    assert copy.deepcopy(rule) == rule == pickle.loads(pickle.dumps(rule))


def test_a_pattern_is_compiled_once_and_matches_as_its_expression() -> None:
    """The first match compiles; later ones use what is there."""
    pattern = LazyPattern(r"[a-z]+")
    assert pattern.fullmatch("abc") is not None
    assert pattern.fullmatch("ABC") is None
    assert [found[0] for found in pattern.finditer("ab cd")] == ["ab", "cd"]
    with pytest.raises(AttributeError):
        pattern.match
