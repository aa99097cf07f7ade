"""A log store in memory, for tests and experiments; its content ends with the process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from msgspec import structs

from policyguard.audit.stores import Row
from policyguard.audit.stores.claims import Claim, taken


class MemoryClaims:
    """The claims of a log, in a dictionary."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Claim] = {}

    @property
    def is_complete(self) -> bool:
        return True

    def begin(self) -> None:
        """Do nothing: in memory the claims are always complete."""

    def find(self, kind: str, names: Collection[str]) -> dict[str, Claim]:
        return {name: self.rows[kind, name] for name in names if (kind, name) in self.rows}

    def list_scope(self, kind: str, scope: str) -> list[Claim]:
        return [claim for (claim_kind, _), claim in self.rows.items() if claim_kind == kind and claim.scope == scope]

    def list_all(self) -> list[tuple[str, Claim]]:
        return [(kind, claim) for (kind, _), claim in self.rows.items()]

    def add(self, kind: str, claim: Claim) -> None:
        if (kind, claim.name) in self.rows:
            raise taken(kind, claim.name)
        self.rows[kind, claim.name] = claim

    def replace(self, kind: str, claim: Claim) -> None:
        self.rows[kind, claim.name] = claim

    def remove(self, kind: str, name: str) -> None:
        self.rows.pop((kind, name), None)


class MemoryStore:
    """The rows of a log, in a list."""

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
        return structs.replace(self.rows[-1], leaf=b"") if self.rows else None
