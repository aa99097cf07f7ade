"""Indices and sizes at their limits; `tests/properties/test_audit_merkle.py` has every tree of some size."""

from __future__ import annotations

import pytest

from policyguard.audit.merkle import ProofError, Range, inclusion_path, leaf_hash, node_hash, root_from_inclusion

LEFT, RIGHT = leaf_hash(b"l"), leaf_hash(b"r")


@pytest.mark.parametrize("index", [-1, 2, 3])
def test_a_leaf_beyond_the_end_of_a_tree_is_not_in_it(index: int) -> None:
    """Whatever path comes with it; the twin is the last leaf."""
    assert root_from_inclusion(RIGHT, 1, 2, (LEFT,)) == node_hash(LEFT, RIGHT)
    for path in ((), (LEFT,), (LEFT, LEFT)):
        with pytest.raises(ProofError, match=f"index {index} is not in a tree of 2 leaves"):
            root_from_inclusion(RIGHT, index, 2, path)
    with pytest.raises(ValueError, match=f"index {index} is not in a tree of 2 leaves"):
        inclusion_path(index, 2, lambda *_: LEFT)


@pytest.mark.parametrize(("size", "count"), [(3, 1), (3, 3), (4, 0), (0, 1)])
def test_a_tree_of_another_size_than_its_nodes_is_no_tree(size: int, count: int) -> None:
    with pytest.raises(ValueError, match=rf"nodes: {count} given, expected {size.bit_count()}"):
        Range(size, [LEFT] * count)
