"""The claims table of a log: each consumed approval and each open reservation, once.

It is written in the transaction that logs the entry.

There are two kinds: approvals that an allow counted, by digest, and reservations, by decision id. The log entries are
the record; the claims are an index over them, so that nobody has to search the log. A log of version 0.1.0 has no
claims: the first decision that needs them reads all entries once and creates the table (`audit/approval_use.py`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

import msgspec
from msgspec import structs

from policyguard.errors import AuditError
from policyguard.fs.open_databases import reason_of_error

APPROVAL, RESERVATION = "approval", "reservation"

CLAIMS_SCHEMA = (
    "CREATE TABLE claims (kind TEXT NOT NULL, name TEXT NOT NULL, scope TEXT NOT NULL, entry INTEGER NOT NULL, "
    "detail TEXT NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID"
)
_COLUMNS = "name, scope, entry, detail"


class Claim(msgspec.Struct, frozen=True, gc=False):
    """One consumed approval or open reservation: its entry, its scope (such as a team), and details as JSON."""

    name: str
    scope: str
    entry: int
    detail: str


class SqliteClaims:
    """Claims in a table of the log's own SQLite file, on the log's own connection."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    @property
    def is_complete(self) -> bool:
        return self._execute("SELECT 1 FROM sqlite_master WHERE name = 'claims'", ()).fetchone() is not None

    def begin(self) -> None:
        self._execute(CLAIMS_SCHEMA, ())

    def find(self, kind: str, names: Collection[str]) -> dict[str, Claim]:
        claims: dict[str, Claim] = {}
        for name in names:
            rows = self._execute(f"SELECT {_COLUMNS} FROM claims WHERE kind = ? AND name = ?", (kind, name))
            claims |= {row[0]: Claim(*row) for row in rows}
        return claims

    def list_scope(self, kind: str, scope: str) -> list[Claim]:
        if not self.is_complete:
            return []
        rows = self._execute(f"SELECT {_COLUMNS} FROM claims WHERE kind = ? AND scope = ?", (kind, scope))
        return [Claim(*row) for row in rows]

    def list_all(self) -> list[tuple[str, Claim]]:
        return [(row[0], Claim(*row[1:])) for row in self._execute(f"SELECT kind, {_COLUMNS} FROM claims", ())]

    def add(self, kind: str, claim: Claim) -> None:
        try:
            self._connection.execute("INSERT INTO claims VALUES (?, ?, ?, ?, ?)", (kind, *structs.astuple(claim)))
        except sqlite3.IntegrityError:
            raise taken(kind, claim.name) from None
        except sqlite3.Error as problem:
            raise self._refusal(problem) from problem

    def replace(self, kind: str, claim: Claim) -> None:
        self._execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?)", (kind, *structs.astuple(claim)))

    def remove(self, kind: str, name: str) -> None:
        self._execute("DELETE FROM claims WHERE kind = ? AND name = ?", (kind, name))

    def _execute(self, statement: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as problem:
            raise self._refusal(problem) from problem

    def _refusal(self, problem: sqlite3.Error) -> AuditError:
        return AuditError(f"log `{self._path}`: {reason_of_error(problem)}; nothing was added")


def taken(kind: str, name: str) -> AuditError:
    """Build the error for a name that another decision has already claimed."""
    return AuditError(f"{kind} `{name[:16]}` is taken already, expected one that no entry has; nothing was added")
