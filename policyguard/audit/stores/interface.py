"""The interface of a log store. Imported only for annotations: a hook does not load it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol

from policyguard.audit.stores import Row
from policyguard.audit.stores.claims import Claim


class Claims(Protocol):
    """The interface to a store's claims. Write only while `Store.append` calls `grow`."""

    @property
    def is_complete(self) -> bool:
        """True if every entry's claims are stored; False for a log of 0.1.0, which has no table."""

    def begin(self) -> None:
        """Create the table in a log of version 0.1.0."""

    def find(self, kind: str, names: Collection[str]) -> dict[str, Claim]:
        """Return the claims with these names, as a map from name to claim."""

    def list_scope(self, kind: str, scope: str) -> list[Claim]:
        """List the claims of one kind and scope."""

    def list_all(self) -> list[tuple[str, Claim]]:
        """List every claim, each with its kind."""

    def add(self, kind: str, claim: Claim) -> None:
        """Add a claim; raises `AuditError` if one with this name exists."""

    def replace(self, kind: str, claim: Claim) -> None:
        """Add a claim, or overwrite the one with this name."""

    def remove(self, kind: str, name: str) -> None:
        """Delete a claim, if it exists."""


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
