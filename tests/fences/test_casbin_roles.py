"""Hazards of casbin's role manager (H11-H15, H27): what it does, and that it cannot reach us."""

from __future__ import annotations

import pytest

from policyguard.casbin_compat.importer import import_casbin
from policyguard.decide.assign_roles import assign_roles
from policyguard.errors import PolicyErrors
from policyguard.model.policy import Binding, Role
from tests.fences.casbin_stock import DENY_OVERRIDE, READERS, allows, conf, ours, stock
from tests.fences.notes import noted

RBAC = conf("g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act", g="_, _")
RBAC_DENY = conf(
    "g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act", p="sub, obj, act, eft", g="_, _", effect=DENY_OVERRIDE
)


def chain(links: int) -> str:
    return "\n".join(f"g, {'alice' if n == 0 else f'r{n}'}, r{n + 1}" for n in range(links))


@pytest.mark.parametrize(("links", "seen"), [(9, True), (10, False)])
def test_h11_casbin_sees_nine_links_and_we_see_all(links: int, seen: bool) -> None:
    """casbin: a deny ten links away does not exist. Here inheritance is followed to its end."""
    policy = f"p, alice, data, read, allow\np, r{links}, data, read, deny\n{chain(links)}"
    with noted():
        assert stock(RBAC_DENY, policy).enforce("alice", "data", "read") is not seen
    roles = [Role(name=f"r{n}", inherits=(f"r{n + 1}",) if n < links else ()) for n in range(1, links + 1)]
    grants = assign_roles(roles, [Binding(subject="user:alice", role="r1", domain="*")])
    assert f"r{links}" in grants.roles_at("user:alice", "vision", 0)


def test_h11_a_chain_that_casbin_would_cut_is_not_imported() -> None:
    """It would mean more here than there."""
    policy = f"p, r10, data, read\n{chain(10)}"
    with pytest.raises(PolicyErrors, match="longer than the 9 links casbin follows"):
        import_casbin(RBAC, policy)
    assert import_casbin(RBAC, f"p, r9, data, read\n{chain(9)}").documents


def test_h12_a_subject_named_like_a_role_holds_it_in_casbin_and_nothing_here() -> None:
    """casbin: whoever registers as `admin` is admin. Here roles have a namespace of their own."""
    with noted():
        assert stock(RBAC, "p, admin, data, read\ng, alice, admin").enforce("admin", "data", "read")
    admins = ours('{id: admins, effect: allow, roles: [admin], actions: ["data:read"]}')
    assert not allows(admins, "user:admin")
    with pytest.raises(PolicyErrors, match="found the subject `role:admin`"):
        assign_roles([Role(name="admin")], [Binding(subject="role:admin", role="admin", domain="*")])


def test_h13_casbin_accepts_a_circle_of_roles_and_we_stop_the_load() -> None:
    """PG501."""
    with noted():
        circle = stock(RBAC, "p, a, data, read\ng, a, b\ng, b, a")
        assert circle.enforce("b", "data", "read")
    with pytest.raises(PolicyErrors, match="role `b` inherits itself: `b` -> `a` -> `b`"):
        assign_roles([Role(name="a", inherits=("b",)), Role(name="b", inherits=("a",))], [])


def test_h14_asking_about_strangers_grows_casbin_and_changes_nothing_here() -> None:
    """casbin: 2 names become 502 after 500 questions. Here asking writes nothing (I6)."""
    with noted():
        enforcer = stock(RBAC, "p, admin, data, read\ng, alice, admin")
        names = enforcer.get_role_manager().all_roles
        before = len(names)
        for n in range(500):
            enforcer.enforce(f"stranger-{n}", "data", "read")
        assert (before, len(names)) == (2, 502)
    snapshot = ours(READERS)
    held = snapshot.grants.to_data()
    assert not any(allows(snapshot, f"user:stranger-{n}") for n in range(500))
    assert snapshot.grants.to_data() == held


def test_h15_each_unknown_name_scans_all_roles_of_a_domain_in_casbin_and_is_one_lookup_here() -> None:
    """casbin: the domain manager installs a matching function, so each new name is compared with every role. Counted
    rather than timed: 200 roles, one stranger, 200 comparisons. Here it is a dictionary look-up."""
    model = conf("g(r.sub, p.sub, r.dom) && r.obj == p.obj && r.act == p.act", r="sub, dom, obj, act", g="_, _, _")
    links = "\n".join(f"g, u{n}, admin, d" for n in range(200))
    with noted():
        manager = stock(model, f"p, admin, data, read\n{links}").get_role_manager()
        compared: list[str] = []

        def same(one: str, two: str) -> bool:
            compared.append(two)
            return one == two

        manager.add_matching_func(same)
        manager.has_link("u1", "admin", "d")
        compared.clear()
        manager.has_link("stranger", "admin", "d")
        assert len(compared) >= 200
    bindings = [Binding(subject=f"user:u{n}", role="admin", domain="d") for n in range(2000)]
    grants = assign_roles([Role(name="admin")], bindings)
    equalities: list[object] = []

    class Counted(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            equalities.append(other)
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    assert grants.roles_at(Counted("user:u7"), "d", 0) == ("admin",)
    assert equalities
    equalities.clear()
    assert not any(grants.roles_at(Counted(f"user:stranger-{n}"), "d", 0) for n in range(100))
    assert len(equalities) <= 100


def test_h27_role_matching_grants_nothing_that_no_binding_says() -> None:
    """A casbin release once matched roles too widely (pycasbin#121); this fence runs before the pinned minor moves.
    Names that contain, begin or look like each other are different roles and different subjects."""
    names = ["admin", "admin2", "adm", "Admin", "admin-x"]
    enforcer = stock(RBAC, "p, admin, data, read\n" + "\n".join(f"g, user-{name}, {name}" for name in names))
    assert [name for name in names if enforcer.enforce(f"user-{name}", "data", "read")] == ["admin"]
    grants = assign_roles(
        [Role(name=name) for name in names],
        [Binding(subject=f"user:{name}", role=name, domain="vision") for name in names],
    )
    assert [name for name in names if "admin" in grants.roles_at(f"user:{name}", "vision", 0)] == ["admin"]
    assert grants.holders("admin", "vision", 0) == ("user:admin",)
