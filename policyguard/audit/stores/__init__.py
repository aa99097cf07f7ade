"""The stores in which a log keeps its rows, and the row itself. The interface is `interface.Store`."""

from __future__ import annotations

import msgspec


class Row(msgspec.Struct, frozen=True, gc=False):
    """One log entry as the store holds it.

    `hashes` holds the leaf's hash and then the hash of every complete subtree that ends with this leaf, 32 bytes
    each, so any proof needs a handful of rows. `checkpoint` is the signed note of the tree that ends here, present in
    the last row of each transaction.
    """

    entry: int
    leaf: bytes
    hashes: bytes
    checkpoint: bytes | None
