"""Where a log keeps its rows. The seam is `Store`: the log's name, its claims, and three methods over rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from policyguard.audit.stores.claims import Claims


class Row(NamedTuple):
    """One entry as stored.

    `hashes` holds the leaf's hash and then the hash of every complete subtree that ends with this leaf, 32 bytes
    each, so any proof needs a handful of rows. `checkpoint` is the signed note of the tree that ends here, present in
    the last row of each transaction.
    """

    entry: int
    leaf: bytes
    hashes: bytes
    checkpoint: bytes | None


class Store(Protocol):
    """The interface of a store: used by one thread at a time, which the log ensures."""

    @property
    def origin(self) -> str:
        """The log's name, written when the store was created."""

    @property
    def claims(self) -> Claims:
        """What the entries have taken; written only while `append` runs."""

    def append(self, grow: Callable[[Row | None], Sequence[Row]]) -> None:
        """Store the rows that `grow` computes from the last row; return when they are durable.

        No other process can append between the two. On any failure nothing is kept and `AuditError` is raised.
        """

    def read(self, start: int, stop: int) -> Iterator[Row]:
        """Yield the rows from index `start` to before `stop`, in order."""

    def last(self) -> Row | None:
        """Read the last row, without its leaf's bytes (which may be large)."""
