"""Theorems of the Merkle tree, searched completely over all trees up to 64 leaves, against a naive oracle."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyguard.audit.merkle import (
    EMPTY_ROOT,
    ProofError,
    Range,
    check_consistency,
    consistency_path,
    inclusion_path,
    inclusion_paths,
    leaf_hash,
    node_hash,
    range_of,
    root_from_inclusion,
)

LIMIT = 64
LEAVES = tuple(leaf_hash(b"leaf %d" % n) for n in range(LIMIT))
VECTORS = json.loads((Path(__file__).parents[1] / "data/rfc6962/roots.json").read_text())


@cache
def oracle(start: int, end: int) -> bytes:
    """MTH of RFC 9162 section 2.1.1, word for word."""
    if start == end:
        return hashlib.sha256(b"").digest()
    if end - start == 1:
        return LEAVES[start]
    k = 1
    while k * 2 < end - start:
        k *= 2
    return hashlib.sha256(b"\x01" + oracle(start, start + k) + oracle(start + k, end)).digest()


def subtree(level: int, index: int) -> bytes:
    return oracle(index << level, (index + 1) << level)


ROOTS = [oracle(0, size) for size in range(LIMIT + 1)]


def test_published_roots() -> None:
    """The roots of the RFC 6962 reference tests come out."""
    tree = Range()
    roots = [tree.root().hex()]
    for leaf in VECTORS["leaves"]:
        tree.append(leaf_hash(bytes.fromhex(leaf)))
        roots.append(tree.root().hex())
    assert VECTORS["roots"] == roots


def test_incremental_root_is_the_definition() -> None:
    """Appending leaf by leaf, or starting from stored subtrees, gives the root of the definition, up to 64 leaves."""
    tree = Range()
    assert tree.root() == EMPTY_ROOT
    for size, leaf in enumerate(LEAVES, 1):
        completed = tree.append(leaf)
        assert completed == [subtree(level, (size - 1) >> level) for level in range(len(completed))]
        assert ROOTS[size] == tree.root() == range_of(size, subtree).root()


def test_every_inclusion_proof_holds() -> None:
    """Every leaf of every tree has a proof that leads to the root; proofs made together are those made singly."""
    for size in range(1, LIMIT + 1):
        paths = [inclusion_path(index, size, subtree) for index in range(size)]
        assert paths == inclusion_paths(0, size, subtree)
        assert paths[size // 2 :] == inclusion_paths(size // 2, size, subtree)
        for index, path in enumerate(paths):
            assert ROOTS[size] == root_from_inclusion(LEAVES[index], index, size, path)


def leads_to(leaf: bytes, index: int, size: int, path: tuple[bytes, ...]) -> bool:
    try:
        return root_from_inclusion(leaf, index, size, path) == ROOTS[size]
    except ProofError:
        return False


def test_no_inclusion_proof_holds_elsewhere() -> None:
    """No proof holds at another index, for another size with that size's root, or for another leaf. Invariant I13."""
    for size in range(1, LIMIT + 1):
        for index in range(size):
            path = inclusion_path(index, size, subtree)
            assert not any(leads_to(LEAVES[index], other, size, path) for other in range(-1, LIMIT) if other != index)
            assert not any(leads_to(LEAVES[index], index, other, path) for other in range(LIMIT + 1) if other != size)
            assert not leads_to(leaf_hash(b"other"), index, size, path)


def test_no_altered_inclusion_path_holds() -> None:
    """A path with one hash changed, dropped, doubled or added does not hold, up to 32 leaves. Invariant I13."""
    for size in range(1, 33):
        for index in range(size):
            path = inclusion_path(index, size, subtree)
            for at in range(len(path)):
                assert not leads_to(LEAVES[index], index, size, (*path[:at], EMPTY_ROOT, *path[at + 1 :]))
                assert not leads_to(LEAVES[index], index, size, path[:at] + path[at + 1 :])
                assert not leads_to(LEAVES[index], index, size, path[: at + 1] + path[at:])
            assert not leads_to(LEAVES[index], index, size, (*path, EMPTY_ROOT))
            assert not leads_to(LEAVES[index][:31], index, size, path)


def agree(old: int, new: int, path: tuple[bytes, ...], *, old_root: bytes, new_root: bytes) -> bool:
    try:
        check_consistency(old, old_root, new, new_root, path)
    except ProofError:
        return False
    return True


def test_every_consistency_proof_holds_for_its_sizes_only() -> None:
    """Every pair of sizes has a proof; it fails with another root, or one hash changed, dropped or added."""
    for new in range(1, LIMIT + 1):
        for old in range(1, new + 1):
            path = consistency_path(old, new, subtree)
            roots = {"old_root": ROOTS[old], "new_root": ROOTS[new]}
            assert agree(old, new, path, **roots)
            assert not agree(old, new, path, old_root=EMPTY_ROOT, new_root=ROOTS[new])
            assert not agree(old, new, path, old_root=ROOTS[old], new_root=EMPTY_ROOT)
            assert not agree(old, new, (*path, EMPTY_ROOT), **roots)
            assert not path or not agree(old, new, path[:-1], **roots)
            assert not path or not agree(old, new, (EMPTY_ROOT, *path[1:]), **roots)
            assert not path or not agree(old, new, (*path[:-1], EMPTY_ROOT), **roots)


def test_no_consistency_proof_holds_for_other_sizes() -> None:
    """A proof made for one pair of sizes holds for no other pair with their true roots, up to 16 leaves."""
    sizes = range(1, 17)
    for old in sizes:
        for new in range(old + 1, 17):
            path = consistency_path(old, new, subtree)
            for a in sizes:
                for b in range(a + 1, 17):
                    held = agree(a, b, path, old_root=ROOTS[a], new_root=ROOTS[b])
                    assert held == (path == consistency_path(a, b, subtree))


@pytest.mark.parametrize(("old", "new"), [(0, 1), (2, 1), (-1, 1)], ids=["nothing", "shrunk", "negative"])
def test_consistency_from_nothing_is_refused(old: int, new: int) -> None:
    """An empty old tree, or one larger than the new, is consistent with nothing."""
    assert not agree(old, new, (), old_root=ROOTS[max(old, 0)], new_root=ROOTS[new])
    assert agree(1, 1, (), old_root=ROOTS[1], new_root=ROOTS[1])


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=200), st.data())
def test_leaf_never_passes_for_node(leaves: list[bytes], data: st.DataObject) -> None:
    """The bytes of two node hashes, taken as a leaf, never hash to their parent. Invariant I13."""
    tree = Range()
    for leaf in leaves:
        tree.append(leaf_hash(leaf))
    at = data.draw(st.integers(0, len(leaves) - 1))
    assert leaf_hash(tree.nodes[0] + leaf_hash(leaves[at])) != tree.root()


def test_a_path_that_does_not_fit_its_sizes_is_refused_whatever_it_leads_to() -> None:
    """I13: a log that signs a root of its own choice gains nothing by a path that is too short or too long."""
    for old in range(1, 17):
        for new in range(old + 1, 18):
            path, extra = consistency_path(old, new, subtree), leaf_hash(b"extra")
            grown = {"old_root": node_hash(extra, ROOTS[old]), "new_root": node_hash(extra, ROOTS[new])}
            assert not agree(old, new, (*path, extra), **grown)
            # Eight leaves under the root of four: all hashes agree, and nothing shows the other four.
            assert not agree(old, new, (), old_root=ROOTS[old], new_root=ROOTS[old])


def test_a_hash_cut_elsewhere_is_no_hash() -> None:
    """I13: the same bytes cut at another place lead to the same root, so every hash has its 32 bytes."""
    left, right = LEAVES[0], LEAVES[1]
    assert root_from_inclusion(left, 0, 2, (right,)) == ROOTS[2]
    for leaf, path in (
        (left + right[:1], (right[1:],)),
        (left[:31], (right,)),
        (left, (left[31:] + right,)),
        (left, (right[:31],)),
    ):
        with pytest.raises(ProofError, match="of 32 bytes"):
            root_from_inclusion(leaf, 0, 2, path)
    good = consistency_path(3, 7, subtree)
    assert agree(3, 7, good, old_root=ROOTS[3], new_root=ROOTS[7])
    for at in range(len(good)):
        for hash_ in (good[at][:31], good[at] + b"\0", b""):
            with pytest.raises(ProofError, match="not 32 bytes"):
                check_consistency(3, ROOTS[3], 7, ROOTS[7], (*good[:at], hash_, *good[at + 1 :]))


def test_there_is_no_path_beyond_the_tree() -> None:
    """Who asks for a leaf or a size that is not there is told so; the first tree needs no hashes."""
    for index, size in ((-1, 2), (2, 2), (0, 0)):
        with pytest.raises(ValueError, match=f"index {index} is not in a tree of {size} leaves"):
            inclusion_path(index, size, subtree)
    for old, new in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="beyond the new size"):
            consistency_path(old, new, subtree)
    assert consistency_path(0, 5, subtree) == consistency_path(5, 5, subtree) == ()
    assert inclusion_paths(3, 3, subtree) == []
