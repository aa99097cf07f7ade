"""The mutants that are made: each kind once, by name, and none of what is no check."""

from __future__ import annotations

import ast

import pytest

from tests.mutants.generate import mutants


def names(body: str) -> set[str]:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return {mutant.change for mutant in mutants("m.py", f"def f(a, b, c):\n{lines}\n")}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("if a:\n    raise b", {"negate: a", "remove: a"}),
        ("if a or b:\n    return", {"negate: a or b", "remove: a or b", "drop: a", "drop: b"}),
        ("if a < b:\n    return", {"negate: a < b", "remove: a < b", "shift: a < b [0]"}),
        ("return a and b", {"negate: a and b", "drop: a", "drop: b"}),
        ("return [d for d in a if d]", {"negate: d", "remove: d"}),
        ("return a if b else c", {"negate: b"}),
        ("check_all(a)", {"remove: check_all(a)"}),
        ("if a:\n    b = c", set()),
        ("return a or b", set()),
        ("call(a)", set()),
    ],
    ids=[
        *("a guard", "a guard of two tests", "a comparison", "a returned test", "a filter", "a conditional"),
        *("a call of a check", "a choice of values", "a default", "a call"),
    ],
)
def test_each_kind_of_check_is_mutated(body: str, expected: set[str]) -> None:
    """Guards, filters, returned tests and calls of checks are mutated; what chooses no way is not."""
    assert names(body) == expected


def test_a_mutant_changes_the_place_that_it_names() -> None:
    """The mutated tree differs from the source in that one place, and two equal checks have two names."""
    source = "def f(a):\n    if a:\n        return 1\n    if a:\n        return 2\n    return 3\n"
    made = {mutant.change: ast.unparse(mutant.tree()) for mutant in mutants("m.py", source)}
    assert set(made) == {"negate: a", "remove: a", "negate: a (2)", "remove: a (2)"}
    assert made["remove: a (2)"] == source.replace("if a:\n        return 2", "if False:\n        return 2").rstrip()
