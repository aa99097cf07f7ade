"""Bindings from casbin adapters: read whole, or refused whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import casbin
import pytest
from casbin.persist import Adapter
from sqlalchemy import create_engine, text

from policyguard.casbin_compat.adapters import adapter_for, bindings_from_adapter
from policyguard.casbin_compat.sqlalchemy_adapter import SQLAlchemyAdapter
from policyguard.errors import PolicyError, PolicyErrors
from policyguard.model.policy import Binding
from policyguard.values import parse_instant

GOOD = """
# the vision team
g, user:alice, role:lead, vision

g, job:nightly, role:researcher, *
g, user:bob, role:lead, speech, 2026-01-01T00:00:00Z, _
"""

EXPECTED = (
    Binding(subject="user:alice", role="lead", domain="vision"),
    Binding(subject="job:nightly", role="researcher", domain="*"),
    Binding(subject="user:bob", role="lead", domain="speech", not_before=parse_instant("2026-01-01T00:00:00Z")),
)


class Rows(Adapter):  # type: ignore[misc]
    """An adapter as a user might write it: appends rows."""

    def __init__(self, *rows: Sequence[Any]) -> None:
        self.rows = rows

    def load_policy(self, model: Any) -> None:
        for kind, *row in self.rows:
            model.model[kind[0]][kind].policy.append(row)


def csv(tmp_path: Path, content: str) -> Adapter:
    path = tmp_path / "bindings.csv"
    path.write_text(content)
    return adapter_for("csv", str(path))


def database(tmp_path: Path, *rows: Sequence[str | None]) -> Adapter:
    url = f"sqlite:///{tmp_path / 'rules.db'}"
    adapter = adapter_for("sqlalchemy", url)
    assert isinstance(adapter, SQLAlchemyAdapter)
    adapter.create_table()
    insert = text("insert into casbin_rule (ptype, v0, v1, v2, v3, v4) values (:p, :a, :b, :c, :d, :e)")
    engine = create_engine(url)
    with engine.begin() as connection:
        for row in rows:
            connection.execute(insert, dict(zip("pabcde", [*row, *[None] * (6 - len(row))], strict=True)))
    engine.dispose()
    return adapter


def refused(adapter: Adapter) -> list[str]:
    with pytest.raises(PolicyErrors) as caught:
        bindings_from_adapter(adapter, "rows")
    return [f"{error.code} {error}" for error in caught.value.errors]


def test_a_csv_file_gives_its_bindings(tmp_path: Path) -> None:
    """casbin's own file adapter, comments and empty lines left out."""
    assert bindings_from_adapter(csv(tmp_path, GOOD)) == EXPECTED


def test_a_database_gives_its_bindings(tmp_path: Path) -> None:
    """SQLite through SQLAlchemy, in the order of the table."""
    adapter = database(
        tmp_path,
        ("g", "user:alice", "role:lead", "vision"),
        ("g", "job:nightly", "role:researcher", "*"),
        ("g", "user:bob", "role:lead", "speech", "2026-01-01T00:00:00Z", "_"),
    )
    assert bindings_from_adapter(adapter) == EXPECTED


def test_any_adapter_gives_its_bindings() -> None:
    """What casbin's users wrote for themselves works as it is."""
    assert bindings_from_adapter(Rows(("g", "user:alice", "role:lead", "vision"))) == EXPECTED[:1]


def test_an_empty_source_is_no_error(tmp_path: Path) -> None:
    """Nobody holds anything, which denies."""
    assert bindings_from_adapter(csv(tmp_path, "# nobody yet\n")) == ()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("p", "user:a", "x", "y"), "PG010 rows:1:1: found a `p` row, expected only `g` rows: subject, role, domain"),
        (("p2", "a"), "PG010 rows:1:1: found a `p2` row, expected only `g` rows: subject, role, domain"),
        (
            ("g2", "user:a", "role:b", "c"),
            ("PG010 rows:1:1: found a `g2` row, expected only `g` rows: subject, role, domain"),
        ),
        (
            ("g", "user:a", "role:b"),
            (
                "PG010 rows:1:1: found a row of 2 columns, expected text in 3 or 5: subject, "
                "role, domain, not before, expires"
            ),
        ),
        (
            ("g", "user:a", "role:b", "c", "_"),
            (
                "PG010 rows:1:1: found a row of 4 columns, expected text in 3 or 5: "
                "subject, role, domain, not before, expires"
            ),
        ),
        (
            ("g", "user:a", "role:b", 7),
            (
                "PG010 rows:1:1: found a row of 3 columns, expected text in 3 or 5: subject, "
                "role, domain, not before, expires"
            ),
        ),
        (
            ("g", "alice", "role:b", "c"),
            ("PG510 rows:1:1: found the subject `alice`, expected `type:id` such as `user:alice`"),
        ),
        (
            ("g", "role:a", "role:b", "c"),
            ("PG510 rows:1:1: found the subject `role:a`, expected `type:id` such as `user:alice`"),
        ),
        (("g", "user:a", "lead", "c"), "PG510 rows:1:1: found the role `lead`, expected `role:` and a name"),
        (("g", "user:a", "role:b", ""), "PG011 rows:1:1: found the domain ``, expected a name or `*`"),
        (
            ("g", "user:a\u202e", "role:b", "c"),
            ("PG510 rows:1:1: found the subject `user:a\\u202e`, expected `type:id` such as `user:alice`"),
        ),
        (
            ("g", "user:a", "role:b", "c", "2026-01-01", "_"),
            (
                "PG404 rows:1:1: found `2026-01-01`, expected an RFC 3339 "
                "time with a zone such as `2026-03-01T09:00:00Z`"
            ),
        ),
    ],
    ids=[
        "a rule",
        "another kind of rule",
        "another kind of role",
        "too narrow",
        "one time of two",
        "no text",
        "a bare name",
        "a role as subject",
        "a bare role",
        "no domain",
        "a bidi character",
        "a time without zone",
    ],
)
def test_a_row_that_is_no_binding_stops_the_load(row: Sequence[Any], message: str) -> None:
    """I6: casbin would drop most of these without a word."""
    assert refused(Rows(row)) == [message]


def test_every_bad_row_is_named_and_none_is_used() -> None:
    """I6: one good row among bad ones gives nothing."""
    adapter = Rows(("g", "user:a", "role:b", "c"), ("g", "x"), ("g", "user:a", "b", "c"))
    assert [line[:16] for line in refused(adapter)] == ["PG010 rows:2:1: ", "PG510 rows:3:1: "]


@pytest.mark.parametrize("line", ["g, user:a), role:b, c", "g, user:a, role:b, c]"], ids=["parenthesis", "bracket"])
def test_an_adapter_that_fails_gives_nothing(tmp_path: Path, line: str) -> None:
    """I6: casbin's line splitter raises an IndexError on a closing bracket (H8)."""
    assert refused(csv(tmp_path, GOOD + line)) == ["PG010 rows:1:1: the adapter failed: pop from empty list"]


def test_a_bracket_that_swallows_columns_stops_the_load(tmp_path: Path) -> None:
    """I6: an opening bracket makes one column of the rest of the line; the width tells."""
    assert refused(csv(tmp_path, "g, user:a(, role:b, c")) == [
        "PG010 rows:1:1: found a row of 1 columns, expected text in 3 or 5: subject, role, domain, not before, expires"
    ]


def test_a_missing_file_is_an_error_of_the_source(tmp_path: Path) -> None:
    """Not an empty list."""
    assert refused(adapter_for("csv", str(tmp_path / "nowhere"))) == [
        "PG010 rows:1:1: the adapter failed: invalid file path, file path cannot be empty"
    ]


def test_values_with_commas_and_brackets_stay_whole_in_a_database(tmp_path: Path) -> None:
    """H8: no text is parsed on the way."""
    adapter = database(tmp_path, ("g", "user:a,b(c]", "role:x)", "team,1"))
    assert bindings_from_adapter(adapter) == (Binding(subject="user:a,b(c]", role="x)", domain="team,1"),)


def test_a_gap_in_a_database_row_stops_the_load(tmp_path: Path) -> None:
    """A null between values would move the rest one column."""
    adapter = database(tmp_path, ("g", "user:a", None, "vision"))
    assert refused(adapter) == [
        (
            "PG010 rows:1:1: the adapter failed: found a gap in a row of table `casbin_rule`: `g`, ['user:a', None, "
            "'vision']"
        )
    ]


MODEL = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act
"""


def test_a_stock_enforcer_can_read_and_write_through_our_adapter(tmp_path: Path) -> None:
    """The adapter is a casbin adapter: what is saved comes back, commas included."""
    adapter = database(tmp_path)
    model = casbin.Enforcer.new_model(text=MODEL)
    enforcer = casbin.Enforcer(model, adapter)
    enforcer.enable_auto_save(False)
    enforcer.add_policy("alice", "data, first (draft", "read")
    enforcer.add_grouping_policy("bob", "alice")
    enforcer.save_policy()
    again = casbin.Enforcer(casbin.Enforcer.new_model(text=MODEL), adapter)
    assert again.enforce("bob", "data, first (draft", "read")
    assert not again.enforce("bob", "data", "read")


def test_a_row_that_a_stock_model_lacks_is_an_error_and_not_silence(tmp_path: Path) -> None:
    """H2 for users of our adapter: a mistyped deny row does not vanish."""
    adapter = database(tmp_path, ("p2", "alice", "data", "read"))
    with pytest.raises(PolicyError, match="found a `p2` row in table `casbin_rule`, which the model does not have"):
        casbin.Enforcer(casbin.Enforcer.new_model(text=MODEL), adapter)


def test_saving_a_row_too_wide_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    """All rows or none."""
    adapter = database(tmp_path, ("p", "alice", "data", "read"))
    model = casbin.Enforcer.new_model(text=MODEL)
    model.model["p"]["p"].policy.append(["too", "many", "columns", "for", "this", "table", "row"])
    with pytest.raises(PolicyError, match="found a row of 7 columns, expected at most 6"):
        adapter.save_policy(model)
    fresh = casbin.Enforcer.new_model(text=MODEL)
    adapter.load_policy(fresh)
    assert fresh.model["p"]["p"].policy == [["alice", "data", "read"]]
