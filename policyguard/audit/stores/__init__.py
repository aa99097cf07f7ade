"""Where a log stores its rows. A store implements `Store`: a name, the claims, and three methods over rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from policyguard.audit.stores.claims import Claims


class Row(NamedTuple):
    """One log entry as the store holds it.

    `hashes` holds the leaf's hash and then the hash of every complete subtree that ends with this leaf, 32 bytes
    each, so any proof needs a handful of rows. `checkpoint` is the signed note of the tree that ends here, present in
    the last row of each transaction.
    """

    entry: int
    leaf: bytes
    hashes: bytes
    checkpoint: bytes | None


class Store(Protocol):
    """The interface of a store. `Log` calls it from one thread at a time."""

    @property
    def origin(self) -> str:
        """The log's name, fixed when the store was created."""

    @property
    def claims(self) -> Claims:
        """The table of consumed approvals and open reservations; written only while `append` runs."""

    def append(self, grow: Callable[[Row | None], Sequence[Row]]) -> None:
        """Call `grow` with the last row, store the rows it returns, and return once they are durable.

        No other process can append between the two. On any failure nothing is kept and `AuditError` is raised.
        """

    def read(self, start: int, stop: int) -> Iterator[Row]:
        """Yield the rows from `start` to before `stop`, in order."""

    def last(self) -> Row | None:
        """Read the last row, without the bytes of its leaf, which may be large."""
