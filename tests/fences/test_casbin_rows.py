"""Hazards of casbin's rows (H1-H3, H8-H10, H22, H23): what casbin does with them, and that it cannot reach us."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from casbin.persist import Adapter
from casbin.persist.adapters import StringAdapter

from policyguard.casbin_compat.adapters import bindings_from_adapter
from policyguard.casbin_compat.importer import import_casbin
from policyguard.errors import PolicyErrors
from policyguard.policy.loader import load
from tests.fences.casbin_stock import ALLOW, ANYONE, DENY_OVERRIDE, EQUAL, READERS, WORLD, allows, conf, ours, stock
from tests.fences.notes import noted

WITH_EFFECT = conf(EQUAL, p="sub, obj, act, eft", effect=DENY_OVERRIDE)


def refused(model: str, policy: str) -> str:
    with pytest.raises(PolicyErrors) as caught:
        import_casbin(model, policy)
    return f"{caught.value.errors[0].code} {caught.value.errors[0]}"


def not_loaded(*rules: str) -> str:
    with pytest.raises(PolicyErrors) as caught:
        load({"fence.yaml": (WORLD + "".join(f"  - {rule}\n" for rule in rules)).encode()})
    return f"{caught.value.errors[0].code} {caught.value.errors[0].message}"


def test_h1_a_mistyped_effect_is_ignored_by_casbin_and_refused_by_us() -> None:
    """casbin: `Deny` is no deny, so the allow stands. Here the load stops, and so does the import."""
    policy = "p, alice, data, read, allow\np, alice, data, read, Deny"
    with noted():
        assert stock(WITH_EFFECT, policy).enforce("alice", "data", "read")
    assert refused(WITH_EFFECT, policy).startswith("PG004 policy.csv:2:1: found the effect `Deny`")
    assert not_loaded('{id: a, effect: Deny, actions: ["data:read"]}').startswith("PG004")


def test_h2_a_row_of_an_unknown_kind_is_dropped_by_casbin_and_refused_by_us() -> None:
    """casbin: a deny under `p2` vanishes. Here every row is counted."""
    policy = "p, alice, data, read, allow\np2, alice, data, read, deny"
    with noted():
        assert stock(WITH_EFFECT, policy).enforce("alice", "data", "read")
    assert refused(WITH_EFFECT, policy).startswith(
        "PG010 policy.csv:2:1: found a `p2` row, which the model does not have"
    )
    with pytest.raises(PolicyErrors, match="found a `p2` row, expected only `g` rows"):
        bindings_from_adapter(StringAdapter("g, user:a, role:b, c\np2, x"))


@pytest.mark.parametrize(
    ("matcher", "request_"), [(EQUAL, ("", "", "")), ("regexMatch(r.sub, p.sub)", ("mallory", "data", "read"))]
)
def test_h3_an_empty_policy_admits_in_casbin_and_denies_here(matcher: str, request_: tuple[str, str, str]) -> None:
    """casbin runs the matcher once with empty columns. Here no rules means a denial that says so."""
    with noted():
        assert stock(conf(matcher)).enforce(*request_)
    assert refused(conf(EQUAL), "# nothing").startswith("PG003 model.conf:8:5: found no row that could ever match")
    denies = ours('{id: unrelated, effect: deny, actions: ["data:read"]}')
    assert not allows(denies)


class Stored(Adapter):  # type: ignore[misc]
    """What casbin's SQLAlchemy adapter does: joins the columns to a line, which casbin splits again."""

    def __init__(self, *rows: tuple[str, ...]) -> None:
        self.rows = rows

    def load_policy(self, model: Any) -> None:
        from casbin.persist import load_policy_line

        for row in self.rows:
            load_policy_line(", ".join(row), model)


def test_h8_a_stored_comma_moves_columns_in_casbin_and_is_refused_here() -> None:
    """casbin: `alice, x` becomes two columns. Here the width tells."""
    adapter = Stored(("g", "user:alice, x", "role:reader", "vision"))
    with pytest.raises(PolicyErrors, match="found a row of 4 columns, expected text in 3 or 5"):
        bindings_from_adapter(adapter)


class Failing(Adapter):  # type: ignore[misc]
    """What casbin 2.8 does with a closing bracket in a row."""

    def load_policy(self, model: Any) -> None:
        raise IndexError("pop from empty list")


def test_h8_one_bracket_stops_every_row_of_casbin_and_here_the_last_good_ones_remain() -> None:
    """casbin raises an IndexError out of the reload. Here the caller gets an error and keeps what it has."""
    with noted():
        broken = StringAdapter("p, alice, data), read")
        with pytest.raises(IndexError):
            broken.load_policy(stock(conf(EQUAL)).get_model())
    good = bindings_from_adapter(StringAdapter("g, user:a, role:b, c"))
    with pytest.raises(PolicyErrors, match="the adapter failed: pop from empty list"):
        bindings_from_adapter(Failing())
    assert len(good) == 1
    assert refused(conf(EQUAL), "p, alice, data), read").startswith(
        "PG010 policy.csv:1:15: found `)` without its opening"
    )


def test_h9_priorities_of_two_kinds_break_casbin_and_do_not_exist_here() -> None:
    """casbin sorts integers and texts together. Here there are no priorities: deny trumps."""
    model = conf(EQUAL, p="priority, sub, obj, act, eft", effect="priority(p.eft) || deny")
    with noted(), pytest.raises(TypeError):
        stock(model, "p, 10, alice, data, read, allow\np, -1, alice, data, read, deny")
    assert refused(model, "p, 10, alice, data, read, allow").startswith("PG312 model.conf:6:5: found the effect")
    assert not_loaded('{id: a, effect: allow, priority: 1, actions: ["data:read"]}').startswith("PG003")


def test_h10_a_matcher_that_gives_a_number_breaks_casbin_when_asked_and_is_no_condition_here() -> None:
    """casbin raises at enforce time. Here a condition is a bool or the load stops."""
    with noted(), pytest.raises(RuntimeError):
        stock(conf("r.sub.Age"), "p, a, b, c").enforce(type("Sub", (), {"Age": 1})(), "b", "c")
    assert refused(conf("r.sub.Age"), "p, a, b, c").startswith("PG109 model.conf:8:")
    assert "bool" in not_loaded('{id: a, effect: allow, actions: ["data:read"], when: "size(resource.id)"}')


def test_h22_a_filtered_load_clears_casbins_live_model_first_and_ours_is_never_touched() -> None:
    """casbin: a failing reload leaves nothing loaded. Here a failed build changes nothing that is in use."""

    class Broken(Adapter):  # type: ignore[misc]
        def is_filtered(self) -> bool:
            return True

        def load_filtered_policy(self, model: Any, filter_: Any) -> None:
            raise OSError("database gone")

    with noted():
        enforcer = stock(conf(EQUAL), "p, alice, data, read")
        enforcer.set_adapter(Broken())
        with pytest.raises(OSError, match="database gone"):
            enforcer.load_filtered_policy(None)
        assert not enforcer.enforce("alice", "data", "read")
    snapshot = ours(READERS)
    with pytest.raises(PolicyErrors):
        ours('{id: broken, effect: "?", actions: ["data:read"]}')
    assert allows(snapshot)


def test_h23_casbin_applies_half_a_change_and_we_take_all_or_nothing() -> None:
    """casbin changes the model, then the store: where the store fails they differ. Here one bad row gives none."""

    class Full(StringAdapter):  # type: ignore[misc]
        def update_policy(self, *_: Any) -> None:
            raise OSError("disk full")

    with noted():
        enforcer = stock(conf(EQUAL), "p, alice, data, read")
        enforcer.set_adapter(Full("p, alice, data, read"))
        with pytest.raises(OSError, match="disk full"):
            enforcer.update_policy(["alice", "data", "read"], ["alice", "data", "write"])
        assert enforcer.enforce("alice", "data", "write")
        enforcer.load_policy()
        assert not enforcer.enforce("alice", "data", "write")
    with pytest.raises(PolicyErrors):
        bindings_from_adapter(StringAdapter("g, user:a, role:b, c\ng, half"))


def test_a_deny_that_the_effect_ignores_is_refused() -> None:
    """Kin of H1: under allow-override casbin reads deny rows and ignores them."""
    model = conf(EQUAL, p="sub, obj, act, eft", effect=ALLOW)
    policy = "p, alice, data, read, allow\np, alice, data, read, deny"
    with noted():
        assert stock(model, policy).enforce("alice", "data", "read")
    assert refused(model, policy).startswith("PG306 policy.csv:2:1: found a deny, which this model's effect ignores")
    assert not allows(ours(ANYONE, '{id: never, effect: deny, actions: ["data:read"]}'))


def test_every_hazard_has_a_fence() -> None:
    """H1 to H30 of `docs/casbin.md`: each has a test here that is named for it."""
    fences = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_casbin_*.py"))
    missing = [f"H{n}" for n in range(1, 31) if f"def test_h{n}_" not in fences]
    assert missing == []
