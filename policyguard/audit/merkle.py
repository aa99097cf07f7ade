"""The Merkle tree of RFC 9162: roots, inclusion proofs and consistency proofs, over SHA-256.

Pure: a tree is a function from (level, index) to the hash of a complete subtree, so a store can keep any subset of
hashes. `Range` is all that an appender needs: one hash for each 1 in the binary size.

Source: RFC 9162 section 2.1 (the tree of RFC 6962 section 2.1 with clearer verification algorithms).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TypeAlias

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

Subtree: TypeAlias = Callable[[int, int], bytes]
"""(level, index) to the hash of the complete subtree over leaves index * 2^level up to (index + 1) * 2^level."""


class ProofError(ValueError):
    """The proof has the wrong length or leads to another root."""


def leaf_hash(leaf: bytes) -> bytes:
    """Hash a leaf: SHA-256 over 0x00 and its bytes."""
    # INVARIANT I13: leaves and nodes are hashed under different first bytes, so neither can pass for the other.
    return sha256(b"\x00" + leaf).digest()


def node_hash(left_hash: bytes, right_hash: bytes) -> bytes:
    """Hash an inner node: SHA-256 over 0x01 and both children."""
    return sha256(b"\x01" + left_hash + right_hash).digest()


class Range:
    """A growing tree, stored as the roots of its complete subtrees, largest first."""

    __slots__ = ("nodes", "size")

    def __init__(self, size: int = 0, nodes: Sequence[bytes] = ()) -> None:
        if len(nodes) != size.bit_count():
            raise ValueError(f"nodes: {len(nodes)} given, expected {size.bit_count()} for a tree of {size} leaves")
        self.size = size
        self.nodes = list(nodes)

    def append(self, hash_of_leaf: bytes) -> list[bytes]:
        """Add one leaf; return its hash and those of the subtrees it completes, smallest first."""
        node, size = hash_of_leaf, self.size
        completed = [node]
        while size & 1:
            node = sha256(b"\x01" + self.nodes.pop() + node).digest()
            completed.append(node)
            size >>= 1
        self.nodes.append(node)
        self.size += 1
        return completed

    def root(self) -> bytes:
        """Compute the root hash of the tree; an empty tree has the hash of no bytes."""
        if not self.nodes:
            return EMPTY_ROOT
        node = self.nodes[-1]
        for sibling in self.nodes[-2::-1]:
            node = sha256(b"\x01" + sibling + node).digest()
        return node


def range_of(size: int, subtree: Subtree) -> Range:
    """Build the `Range` of a tree of this size, with one subtree for each 1 in the binary size."""
    return Range(size, [subtree(level, index) for level, index in complete_subtrees(0, size)])


def inclusion_path(index: int, size: int, subtree: Subtree) -> tuple[bytes, ...]:
    """List the sibling hashes from the leaf at `index` up to the root over `size` leaves (RFC 9162, 2.1.3.1).

    Args:
        index: the index of the leaf.
        size: the number of leaves of the tree.
        subtree: looks up the hash of a complete subtree by (level, index).

    Raises:
        ValueError: the leaf is not in the tree.
    """
    if not 0 <= index < size:
        raise ValueError(f"index {index} is not in a tree of {size} leaves")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_hash_between(middle, end, subtree))
            end = middle
        else:
            path.append(_hash_between(start, middle, subtree))
            start = middle
    return tuple(reversed(path))


def root_from_inclusion(hash_of_leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Compute the root that this path leads to; raises `ProofError` if its length is wrong.

    The caller compares the root with one it trusts, and takes `size` from the same place.

    Args:
        hash_of_leaf: the hash of the leaf.
        index: its index.
        size: the number of leaves of the tree.
        path: the sibling hashes, leaf to root.

    Source: RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < size:
        raise ProofError(f"index {index} is not in a tree of {size} leaves")
    inner = (index ^ (size - 1)).bit_length()
    expected = inner + (index >> inner).bit_count()
    # INVARIANT I13: a path has exactly the length that index and size ask for.
    if len(path) != expected or any(len(node) != HASH_BYTES for node in (hash_of_leaf, *path)):
        raise ProofError(f"path has {len(path)} hashes, expected {expected} of 32 bytes")
    node = hash_of_leaf
    for level, sibling in enumerate(path):
        if level >= inner or index >> level & 1:
            node = node_hash(sibling, node)
        else:
            node = node_hash(node, sibling)
    return node


def consistency_path(old: int, new: int, subtree: Subtree) -> tuple[bytes, ...]:
    """List the hashes that prove that the tree of `new` leaves extends that of `old` (RFC 9162, 2.1.4.1).

    Args:
        old: the size of the older tree.
        new: the size of the newer tree.
        subtree: looks up the hash of a complete subtree by (level, index).

    Raises:
        ValueError: the older tree is the larger one.
    """
    if not 0 <= old <= new:
        raise ValueError(f"old size {old} is beyond the new size {new}")
    if old in (0, new):
        return ()
    path: list[bytes] = []
    start, end, whole = 0, new, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(_hash_between(middle, end, subtree))
            end = middle
        else:
            path.append(_hash_between(start, middle, subtree))
            start, whole = middle, False
    if not whole:
        path.append(_hash_between(start, end, subtree))
    return tuple(reversed(path))


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """Check that the tree with `new_root` extends the one with `old_root`; raises `ProofError` if not.

    Args:
        old, old_root: the size and the root of the older tree.
        new, new_root: those of the newer tree.
        path: the hashes of the proof.

    Source: RFC 9162, section 2.1.4.2.
    """
    if not 1 <= old <= new:
        raise ProofError(f"old size is {old}, expected 1 to {new}: every tree begins with nothing")
    if old == new:
        if path or old_root != new_root:
            raise ProofError(f"two trees of {old} leaves do not agree")
        return
    if any(len(node) != HASH_BYTES for node in path):
        raise ProofError("path has hashes that are not 32 bytes")
    nodes = [old_root, *path] if old & (old - 1) == 0 else list(path)
    first, second = old - 1, new - 1
    while first & 1:
        first, second = first >> 1, second >> 1
    if not nodes:
        raise ProofError("path is too short")
    from_old = from_new = nodes[0]
    for node in nodes[1:]:
        if second == 0:
            raise ProofError("path is too long")
        if first & 1 or first == second:
            from_old, from_new = node_hash(node, from_old), node_hash(node, from_new)
            while first and not first & 1:
                first, second = first >> 1, second >> 1
        else:
            from_new = node_hash(from_new, node)
        first, second = first >> 1, second >> 1
    if second != 0:
        raise ProofError("path is too short")
    if from_old != old_root or from_new != new_root:
        raise ProofError(f"the tree of {new} leaves does not begin with that of {old}")


def _split(count: int) -> int:
    """Return the largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def complete_subtrees(start: int, end: int) -> list[tuple[int, int]]:
    """List (level, index) of the largest complete subtrees that cover start to end, left to right."""
    cover: list[tuple[int, int]] = []
    while start < end:
        level = (end - start).bit_length() - 1
        cover.append((level, start >> level))
        start += 1 << level
    return cover


def _hash_between(start: int, end: int, subtree: Subtree) -> bytes:
    """Compute the root over the leaves `start` to `end`."""
    count = end - start
    if not count & (count - 1):
        level = count.bit_length() - 1
        return subtree(level, start >> level)
    nodes = [subtree(level, index) for level, index in complete_subtrees(start, end)]
    node = nodes[-1]
    for sibling in nodes[-2::-1]:
        node = node_hash(sibling, node)
    return node


def inclusion_paths(first: int, size: int, subtree: Subtree) -> list[tuple[bytes, ...]]:
    """Compute the inclusion paths of all leaves from `first` on; they share the walk down the tree.

    Args:
        first: the index of the first leaf.
        size: the number of leaves.
        subtree: looks up the hash of a complete subtree by (level, index).
    """
    paths: list[tuple[bytes, ...]] = []

    def walk(start: int, end: int, above: tuple[bytes, ...]) -> None:
        if end - start == 1:
            paths.append(above)
            return
        middle = start + _split(end - start)
        if first < middle:
            walk(start, middle, (_hash_between(middle, end, subtree), *above))
        walk(middle, end, (_hash_between(start, middle, subtree), *above))

    if first < size:
        walk(0, size, ())
    return paths
