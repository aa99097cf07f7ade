"""Where a log keeps its rows. The seam is `Store`: three methods and the log's name; no code is shared behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol


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
    """What a log needs from its store. One thread at a time; the log sees to that."""

    @property
    def origin(self) -> str:
        """The log's name, written when the store was created."""

    def append(self, grow: Callable[[Row | None], Sequence[Row]]) -> None:
        """Keep the rows that `grow` returns for the last row it is given; return when they are durable.

        No other process can append between the two. On any failure nothing is kept and `AuditError` is raised.
        """

    def read(self, start: int, stop: int) -> Iterator[Row]:
        """Yield the rows from index `start` up to before `stop`, in order."""

    def last(self) -> Row | None:
        """Return the last row, without its leaf's bytes (which may be large)."""
