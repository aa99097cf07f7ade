"""A log store in memory, for tests and experiments. Nothing survives the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from policyguard.audit.stores import Row
from policyguard.audit.stores.claims import MemoryClaims


class MemoryStore:
    """Rows in a list."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self.rows: list[Row] = []
        self.claims = MemoryClaims()

    @property
    def origin(self) -> str:
        return self._origin

    def append(self, grow: Callable[[Row | None], Sequence[Row]]) -> None:
        before = dict(self.claims.rows)
        try:
            self.rows.extend(grow(self.last()))
        except BaseException:
            self.claims.rows = before
            raise

    def read(self, start: int, stop: int) -> Iterator[Row]:
        yield from self.rows[max(start, 0) : max(stop, 0)]

    def last(self) -> Row | None:
        return self.rows[-1]._replace(leaf=b"") if self.rows else None
