"""A casbin adapter over a SQL table that passes rows as lists, so that no value is parsed from text.

The table is the one casbin's own SQLAlchemy adapter keeps (`casbin_rule`: id, ptype, v0 to v5), so that its data can
be read in place. That adapter joins the columns to a line of text and has casbin split it again, which breaks
values with commas and brackets (hazard H8, `docs/casbin.md`). Needs the extra `db`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from casbin.persist import Adapter
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    insert,
    select,
)

from policyguard.errors import PolicyError

COLUMNS = ("v0", "v1", "v2", "v3", "v4", "v5")
TABLE = "casbin_rule"


class SQLAlchemyAdapter(Adapter):  # type: ignore[misc]
    """Reads and writes the rows of a casbin model in one table; each call is one transaction."""

    def __init__(self, engine: Engine | str, table: str = TABLE) -> None:
        self._engine = create_engine(engine) if isinstance(engine, str) else engine
        self._table = Table(
            table,
            MetaData(),
            Column("id", Integer, primary_key=True),
            Column("ptype", String(255)),
            *(Column(name, String(255)) for name in COLUMNS),
        )

    def create_table(self) -> None:
        """Create the table if it does not exist."""
        self._table.metadata.create_all(self._engine)

    def load_policy(self, model: Any) -> None:
        """Add every row of the table to the model, oldest first.

        Raises:
            PolicyError: PG010; a row of a kind the model does not have, or with a gap. The model may then hold some
                rows and must be thrown away, as `bindings_from_adapter` does.
        """
        with self._engine.connect() as connection:
            for kind, row in self._read(connection):
                section = model.model.get(kind[:1])
                # INVARIANT I6: a row that would be ignored is an error, not silence.
                if section is None or kind not in section:
                    where = f"table `{self._table.name}`"
                    raise PolicyError(f"found a `{kind}` row in {where}, which the model does not have", code="PG010")
                section[kind].policy.append(row)

    def save_policy(self, model: Any) -> bool:
        """Replace all rows of the table by those of the model, or change nothing on failure."""
        rows = [
            {"ptype": kind, **dict(zip(COLUMNS, row, strict=False))}
            for section in ("p", "g")
            for kind, assertion in (model.model.get(section) or {}).items()
            for row in map(self._checked, assertion.policy)
        ]
        with self._engine.begin() as connection:
            connection.execute(delete(self._table))
            if rows:
                connection.execute(insert(self._table), [{**dict.fromkeys(COLUMNS), **row} for row in rows])
        return True

    def _checked(self, row: list[str]) -> list[str]:
        if len(row) > len(COLUMNS):
            raise PolicyError(f"found a row of {len(row)} columns, expected at most {len(COLUMNS)}", code="PG010")
        return row

    def _read(self, connection: Connection) -> Iterator[tuple[str, list[str]]]:
        columns = self._table.columns
        query = select(columns["ptype"], *(columns[name] for name in COLUMNS)).order_by(columns["id"])
        for kind, *values in connection.execute(query):
            row = list(values)
            while row and row[-1] is None:
                row.pop()
            if not kind or None in row:
                raise PolicyError(f"found a gap in a row of table `{self._table.name}`: `{kind}`, {row}", code="PG010")
            yield kind, row
