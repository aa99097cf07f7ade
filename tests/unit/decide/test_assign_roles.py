"""Roles and bindings become grants: closed, timed, bound to domains, refused when they do not add up."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from policyguard.decide import role_closure, separation_of_duty
from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.role_closure import MAX_CHAIN, close_roles
from policyguard.decide.role_grants import RoleAssignments
from policyguard.errors import PolicyErrors
from policyguard.model.policy import Binding, Exclusion, Person, Role
from policyguard.values import ALWAYS, NEVER, Span

NOW = 1_000


def role(name: str, *inherits: str) -> Role:
    return Role(name=name, inherits=inherits)


def bind(
    subject: str, name: str, domain: str = "vision", since: int | None = None, until: int | None = None
) -> Binding:
    return Binding(subject=subject, role=name, domain=domain, not_before=since, expires=until)


def refused(
    roles: Sequence[Role],
    bindings: Sequence[Binding] = (),
    exclusions: Sequence[Exclusion] = (),
    persons: Sequence[Person] = (),
) -> list[tuple[str, str]]:
    with pytest.raises(PolicyErrors) as caught:
        assign_roles(roles, bindings, exclusions, persons)
    return [(error.code, error.message) for error in caught.value.errors]


LAB = (role("researcher"), role("lead", "researcher"), role("admin", "lead"), role("auditor"))


def test_a_role_is_held_with_everything_it_inherits() -> None:
    """The closure is sorted, and holds the role itself."""
    grants = assign_roles(LAB, [bind("user:alice", "admin")])
    assert grants.roles_at("user:alice", "vision", NOW) == ("admin", "lead", "researcher")


def test_a_role_is_held_in_its_domain_only() -> None:
    """Another domain, and no domain at all, see nothing."""
    grants = assign_roles(LAB, [bind("user:alice", "lead")])
    assert grants.roles_at("user:alice", "speech", NOW) == ()
    assert grants.roles_at("user:alice", None, NOW) == ()


def test_a_star_binding_holds_in_every_domain() -> None:
    """Roles of `*` join those of the domain; asking for `*` or for no domain gives those of `*` only."""
    grants = assign_roles(LAB, [bind("user:alice", "auditor", "*"), bind("user:alice", "lead")])
    assert grants.roles_at("user:alice", "vision", NOW) == ("auditor", "lead", "researcher")
    for domain in ("speech", "*", None):
        assert grants.roles_at("user:alice", domain, NOW) == ("auditor",)


def test_a_binding_holds_from_not_before_until_just_before_expires() -> None:
    """The first instant counts, the last does not."""
    grants = assign_roles(LAB, [bind("user:alice", "lead", since=10, until=20), bind("user:alice", "auditor")])
    held = {now: grants.roles_at("user:alice", "vision", now) for now in (9, 10, 19, 20)}
    assert held == {
        9: ("auditor",),
        10: ("auditor", "lead", "researcher"),
        19: ("auditor", "lead", "researcher"),
        20: ("auditor",),
    }


def test_half_open_bindings_hold_on_their_open_side() -> None:
    """A binding with one bound has no other."""
    grants = assign_roles(LAB, [bind("user:a", "lead", since=10), bind("user:b", "auditor", until=10)])
    assert [grants.roles_at("user:a", "vision", now) for now in (9, 10)] == [(), ("lead", "researcher")]
    assert [grants.roles_at("user:b", "vision", now) for now in (-(10**18), 9, 10)] == [("auditor",), ("auditor",), ()]


def test_times_are_written_as_people_write_them() -> None:
    """A bound that is not there is empty, one that is there is RFC 3339; what is read back is the same."""
    bindings = [bind("user:a", "lead", since=10**9), bind("user:a", "lead", until=2 * 10**9), bind("user:a", "lead")]
    grants = assign_roles(LAB, bindings)
    data = grants.to_data()
    assert [row[3:] for row in data["timed"]] == [["", "1970-01-01T00:00:02Z"], ["1970-01-01T00:00:01Z", ""]]
    assert RoleAssignments.from_data(json.loads(json.dumps(data))).to_data() == data
    assert sorted(RoleAssignments.from_data(data).rows()) == sorted(grants.rows())


def test_asking_about_strangers_leaves_no_trace() -> None:
    """I6: 5,000 unknown subjects hold nothing and change nothing."""
    grants = assign_roles(LAB, [bind("user:alice", "lead")])
    before = json.dumps(grants.to_data())
    assert all(grants.roles_at(f"user:stranger-{n}", "vision", NOW) == () for n in range(5_000))
    assert json.dumps(grants.to_data()) == before
    assert grants.subjects == {"user:alice"}


@pytest.mark.parametrize("links", [9, 10, 11, MAX_CHAIN - 1])
def test_inheritance_is_followed_to_its_end(links: int) -> None:
    """I6: casbin's own check stops after nine links; the closure does not."""
    chain = [role(f"r{n}", f"r{n + 1}") for n in range(links)] + [role(f"r{links}")]
    grants = assign_roles(chain, [bind("user:alice", "r0")])
    assert f"r{links}" in grants.roles_at("user:alice", "vision", NOW)
    assert len(grants.roles_at("user:alice", "vision", NOW)) == links + 1


def test_one_link_too_many_stops_the_load() -> None:
    """I6: deeper than the limit is an error, never a shorter answer."""
    chain = [role(f"r{n}", f"r{n + 1}") for n in range(MAX_CHAIN)] + [role(f"r{MAX_CHAIN}")]
    assert refused(chain) == [("PG502", "role `r0` inherits through a chain of 65 roles, expected at most 64")]


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ([role("a", "a")], "role `a` inherits itself: `a` -> `a`"),
        ([role("b", "a"), role("a", "b")], "role `a` inherits itself: `a` -> `b` -> `a`"),
        (
            [role("z", "c"), role("c", "b"), role("b", "a"), role("a", "c")],
            "role `a` inherits itself: `a` -> `c` -> `b` -> `a`",
        ),
        (
            [role("b", "a", "c"), role("c", "b", "a"), role("a")],
            "role `c` inherits itself: `c` -> `b` -> `c`",
        ),
        (
            [role("a", "c"), role("c", "d"), role("d", "b"), role("b", "c")],
            "role `b` inherits itself: `b` -> `c` -> `d` -> `b`",
        ),
    ],
    ids=[
        "a role that inherits itself",
        "two roles",
        "three roles and one that leads in",
        "two and one in no circle",
        "one that leads into the middle",
    ],
)
def test_a_circle_of_roles_stops_the_load(roles: list[Role], message: str) -> None:
    """I6: PG501 names the circle."""
    assert refused(roles) == [("PG501", message)]


def test_the_longest_way_counts() -> None:
    """I6: a short way to the same role does not hide the long one; the twin is one link shorter."""
    chain = [role(f"r{n}", f"r{n + 1}") for n in range(MAX_CHAIN - 1)] + [role(f"r{MAX_CHAIN - 1}")]
    message = "role `top` inherits through a chain of 65 roles, expected at most 64"
    assert refused([*chain, role("top", f"r{MAX_CHAIN - 1}", "r0")]) == [("PG502", message)]
    assign_roles([*chain, role("top", f"r{MAX_CHAIN - 1}", "r1")], [])


def test_roles_that_inherit_too_much_in_all_stop_the_load() -> None:
    """I6: few lines can spell a closure that fills the memory; it is refused by its size, the twin is loaded."""
    base = [role(f"b{n}") for n in range(1_000)]
    hub = role("hub", *(each.name for each in base))
    many = [role(f"m{n}", "hub") for n in range(497)]
    # 1,000 by themselves, the hub with 1,001, and 1,002 each of the others; five more make it 500,000.
    full = [*base, hub, *many, *(role(f"x{n}") for n in range(5))]
    assign_roles(full, [])
    assert refused([*full, role("y")]) == [("PG010", "roles inherit each other more than 500000 times in all")]


@pytest.mark.parametrize("name", ["", "a b", "a\n", "\u202e", "a" * 513])
def test_names_of_roles_and_domains_hold_no_tricks(name: str) -> None:
    """What would look like another name, or like none, is refused; the longest that is allowed is loaded."""
    assert [code for code, _ in refused([role(name)])] == ["PG011"]
    assert [code for code, _ in refused(LAB, [bind("user:alice", "lead", name)])] == ["PG011"]
    assign_roles([role("a" * 512)], [bind("user:alice", "a" * 512, "d" * 512)])


def test_a_diamond_of_roles_is_no_circle() -> None:
    """Twin of PG501: two ways to one role are fine."""
    roles = [role("top", "left", "right"), role("left", "base"), role("right", "base"), role("base")]
    assert assign_roles(roles, [bind("user:a", "top")]).roles_at("user:a", "vision", 0) == (
        "base",
        "left",
        "right",
        "top",
    )


def test_unknown_roles_are_refused_at_every_position() -> None:
    """PG503 for a parent and for a binding, all at once."""
    codes = refused([role("a", "ghost")], [bind("user:alice", "phantom")])
    assert codes == [
        ("PG503", "role `a` inherits the unknown role `ghost`"),
        ("PG503", "found the unknown role `phantom`, expected one that `Roles` defines"),
    ]


def test_a_role_defined_twice_is_refused() -> None:
    """The second definition would replace what the first one inherits."""
    assert refused([role("a"), role("a", "b"), role("b")]) == [("PG006", "role `a` is defined twice")]


@pytest.mark.parametrize("subject", ["alice", "role:lead", "", "user:", "user:a b", "user:a\n", "User:a"])
def test_a_subject_is_a_type_and_an_id_and_no_role(subject: str) -> None:
    """I6: bare words, roles, empty ids and control characters are no subjects."""
    assert [code for code, _ in refused(LAB, [bind(subject, "lead")])] == ["PG510"]


def test_a_user_named_like_a_role_gains_nothing() -> None:
    """I6: `user:admin` is not `role:admin`."""
    grants = assign_roles(LAB, [bind("user:alice", "lead")])
    for name in ("admin", "user:admin", "role:admin", "role:lead"):
        assert grants.roles_at(name, "vision", NOW) == ()


APART = (Exclusion(name="four-eyes", roles=("lead", "auditor")),)


@pytest.mark.parametrize(
    "bindings",
    [
        [bind("user:alice", "lead"), bind("user:alice", "auditor")],
        [bind("user:alice", "admin"), bind("user:alice", "auditor", "*")],
        [bind("user:alice", "lead", "*"), bind("user:alice", "auditor")],
        [bind("user:alice", "lead", "*"), bind("user:alice", "auditor", "*")],
        [bind("user:alice", "lead", until=11), bind("user:alice", "auditor", since=10)],
        [bind("user:alice", "lead", since=5), bind("user:alice", "auditor", until=20)],
    ],
    ids=[
        "two bindings in one domain",
        "one of them inherited, one everywhere",
        "the wide one first",
        "both everywhere",
        "one instant of overlap",
        "half-open times overlap",
    ],
)
def test_roles_that_exclude_each_other_are_not_held_together(bindings: list[Binding]) -> None:
    """I8: PG506 over the closure, in one domain, at any moment."""
    found = refused(LAB, bindings, APART)
    assert [code for code, _ in found] == ["PG506"]
    assert "holds `auditor`, `lead` in " in found[0][1]
    assert "expected at most 1 of them (`four-eyes`)" in found[0][1]


@pytest.mark.parametrize(
    "bindings",
    [
        [bind("user:alice", "lead"), bind("user:alice", "auditor", "speech")],
        [bind("user:alice", "lead"), bind("user:bob", "auditor")],
        [bind("user:alice", "lead", until=10), bind("user:alice", "auditor", since=10)],
        [bind("user:alice", "lead"), bind("user:alice", "admin")],
    ],
    ids=["two domains", "two persons", "one ends as the other begins", "twice the same role"],
)
def test_roles_that_do_not_meet_are_fine(bindings: list[Binding]) -> None:
    """I8, the twin: no moment, no domain, no holder in common."""
    assert assign_roles(LAB, bindings, APART).subjects


def test_a_role_everywhere_that_begins_later_meets_the_roles_of_each_domain() -> None:
    """I8: each domain is reported once, in its own words, and what is held everywhere once for all."""
    later = bind("user:alice", "auditor", "*", since=10)
    domains = [bind("user:alice", "lead", "speech"), bind("user:alice", "lead", "vision", since=20)]
    words = "`user:alice` holds `auditor`, `lead`"
    rest = "expected at most 1 of them (`four-eyes`)"
    assert sorted(refused(LAB, [*domains, later], APART)) == [
        ("PG506", f"{words} in domain `speech`, {rest}"),
        ("PG506", f"{words} in domain `vision`, {rest}"),
    ]
    everywhere = [bind("user:alice", "lead", "*"), later, *domains]
    assert refused(LAB, everywhere, APART) == [("PG506", f"{words} in every domain, {rest}")]


def test_a_binding_that_holds_at_no_moment_is_not_what_is_named() -> None:
    """An empty period breaks nothing, and the error is placed at a binding that is in force."""
    places = [Span("a.yaml", line, 1) for line in (1, 2, 3)]
    empty = [bind("user:alice", "lead", since=5, until=5), bind("user:alice", "lead", since=6, until=5)]
    bindings = [
        *(replace(binding, span=places[0]) for binding in empty),
        replace(bind("user:alice", "lead"), span=places[1]),
        replace(bind("user:alice", "auditor"), span=places[2]),
    ]
    with pytest.raises(PolicyErrors) as caught:
        assign_roles(LAB, bindings, APART)
    assert [error.span for error in caught.value.errors] == [places[1]]
    assert assign_roles(LAB, [*bindings[:2], bindings[3]], APART).subjects


def test_two_accounts_of_one_person_are_one_holder() -> None:
    """I8: a second account does not separate duties."""
    bindings = [bind("user:alice", "lead"), bind("user:alice-admin", "auditor")]
    person = Person(id="alice", accounts=("user:alice", "user:alice-admin"))
    assert [code for code, _ in refused(LAB, bindings, APART, [person])] == ["PG506"]
    assert assign_roles(LAB, bindings, APART).subjects == {"user:alice", "user:alice-admin"}


def test_a_role_that_contains_both_is_refused_by_itself() -> None:
    """I8: nobody could ever hold it."""
    roles = (*LAB, role("boss", "lead", "auditor"))
    assert refused(roles, [bind("user:alice", "boss")], APART) == [
        ("PG506", "role `boss` contains `auditor`, `lead`, expected at most 1 of them (`four-eyes`)")
    ]


def test_a_limit_of_three_allows_two() -> None:
    """The limit is the first number that is too many."""
    roles = [role("a"), role("b"), role("c")]
    three = (Exclusion(name="x", roles=("a", "b", "c"), limit=3),)
    two = [bind("user:u", "a"), bind("user:u", "b")]
    assert assign_roles(roles, two, three).roles_at("user:u", "vision", 0) == ("a", "b")
    assert [code for code, _ in refused(roles, [*two, bind("user:u", "c")], three)] == ["PG506"]


def test_holders_are_those_who_can_help() -> None:
    """Direct and inherited, in the domain or everywhere, at that moment."""
    grants = assign_roles(
        LAB,
        [
            bind("user:a", "lead"),
            bind("user:b", "admin", "*"),
            bind("user:c", "lead", "speech"),
            bind("user:d", "lead", until=NOW),
            bind("user:e", "researcher"),
        ],
    )
    assert grants.holders("lead", "vision", NOW) == ("user:a", "user:b")
    assert grants.holders("lead", None, NOW) == ("user:b",)
    assert grants.holders("ghost", "vision", NOW) == ()


ROLES = st.sampled_from(["researcher", "lead", "admin", "auditor"])
DOMAINS = st.sampled_from(["vision", "speech", "*"])
TIMES = st.none() | st.integers(-5, 5)
BINDINGS = st.builds(bind, st.sampled_from(["user:a", "user:b", "job:c"]), ROLES, DOMAINS, TIMES, TIMES)


@settings(max_examples=150, deadline=None)
@given(st.lists(BINDINGS, max_size=8), st.data())
def test_what_is_written_is_what_is_read(bindings: list[Binding], data: st.DataObject) -> None:
    """`from_data(to_data(g))` answers alike, over JSON, and writes the same bytes again."""
    grants = assign_roles(LAB, bindings)
    text = json.dumps(grants.to_data())
    again = RoleAssignments.from_data(json.loads(text))
    assert json.dumps(again.to_data()) == text
    subject = data.draw(st.sampled_from(["user:a", "user:b", "job:c", "user:z"]))
    domain = data.draw(st.sampled_from(["vision", "speech", "other", "*", None]))
    now = data.draw(st.integers(-6, 6))
    assert again.roles_at(subject, domain, now) == grants.roles_at(subject, domain, now)
    shuffled = data.draw(st.permutations(bindings))
    assert assign_roles(LAB, [*shuffled, *bindings]).roles_at(subject, domain, now) == grants.roles_at(
        subject, domain, now
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(BINDINGS, max_size=8), st.sampled_from(["vision", "speech", "other", "*", None]), st.integers(-6, 6))
def test_roles_at_agrees_with_the_sentence(bindings: list[Binding], domain: str | None, now: int) -> None:
    """A role is held if some binding counts here and now and leads to it."""
    inherits = {
        "researcher": {"researcher"},
        "lead": {"lead", "researcher"},
        "auditor": {"auditor"},
        "admin": {"admin", "lead", "researcher"},
    }
    expected: set[str] = set()
    for one in bindings:
        begun = one.not_before is None or one.not_before <= now
        over = one.expires is not None and one.expires <= now
        if one.subject == "user:a" and one.domain in (domain, "*") and begun and not over:
            expected |= inherits[one.role]
    assert assign_roles(LAB, bindings).roles_at("user:a", domain, now) == tuple(sorted(expected))


def test_from_data_refuses_what_it_did_not_write() -> None:
    """Another format, an index out of range."""
    with pytest.raises(ValueError, match="grants have format `2`, expected `1`"):
        RoleAssignments.from_data({"format": 2})
    broken = {"format": 1, "roles": ["a"], "closed": [[0]], "shapes": [[["d", 0]]], "subjects": {"user:a": 1}}
    with pytest.raises(ValueError, match="name a role or a shape that is not listed"):
        RoleAssignments.from_data(broken)


def test_equal_sets_of_roles_are_one_object() -> None:
    """A hundred thousand subjects hold a handful of tuples."""
    grants = assign_roles(LAB, [bind(f"user:{n}", "lead", f"team-{n % 2}") for n in range(10)])
    held = {id(grants.roles_at(f"user:{n}", f"team-{n % 2}", 0)) for n in range(10)}
    assert len(held) == 1


def test_reading_grants_never_imports_casbin() -> None:
    """The compiled path pays nothing for casbin."""
    code = "import sys, policyguard.decide.role_grants; sys.exit('casbin' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_building_leaves_every_logger_as_it_was() -> None:
    """Casbin's constructors switch loggers off for the whole process (H28); ours never runs them."""
    names = ("casbin", "casbin.enforcer", "casbin.policy", "casbin.role", "root")
    before = {name: (logging.getLogger(name).disabled, logging.getLogger(name).level) for name in names}
    assign_roles(LAB, [bind("user:alice", "lead")])
    assert {name: (logging.getLogger(name).disabled, logging.getLogger(name).level) for name in names} == before


def test_a_failed_build_leaves_the_last_grants_untouched() -> None:
    """I6: building is a function of its arguments; what it built before stays as it was."""
    good = assign_roles(LAB, [bind("user:alice", "lead")])
    before = json.dumps(good.to_data())
    assert refused([role("a", "a")], [bind("user:alice", "a")])
    assert json.dumps(good.to_data()) == before


def test_every_binding_is_listed_once() -> None:
    """Ordered by subject, those without a time first; a subject may have only one kind."""
    bindings = [
        bind("user:dan", "lead", since=5, until=9),
        bind("user:alice", "researcher"),
        bind("user:alice", "lead", "speech", until=7),
        bind("user:alice", "researcher"),
        bind("user:bob", "auditor", "*"),
    ]
    assert list(assign_roles(LAB, bindings).rows()) == [
        ("user:alice", "researcher", "vision", ALWAYS, NEVER),
        ("user:alice", "lead", "speech", ALWAYS, 7),
        ("user:bob", "auditor", "*", ALWAYS, NEVER),
        ("user:dan", "lead", "vision", 5, 9),
    ]


def test_an_unknown_parent_is_passed_over_by_the_closure() -> None:
    """It is reported where references are checked, as PG503, and the rest of the graph is still judged."""
    closed, errors = close_roles((role("a", "ghost", "b"), role("b")))
    assert closed == {"a": frozenset("ab"), "b": frozenset("b")}
    assert not errors
    assert [code for code, _ in refused((role("a", "ghost"),))] == ["PG503"]


def test_a_chain_that_is_too_long_is_not_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sets of ten thousand roles in a row would fill the memory before the error is read."""
    chain = [role("r0"), *(role(f"r{number}", f"r{number - 1}") for number in range(1, MAX_CHAIN + 2))]
    closed, errors = close_roles(chain)
    assert [error.code for error in errors] == ["PG502"]
    assert [len(closed[f"r{number}"]) for number in (0, MAX_CHAIN - 1, MAX_CHAIN, MAX_CHAIN + 1)] == [
        1,
        MAX_CHAIN,
        1,
        1,
    ]
    monkeypatch.setattr(role_closure, "MAX_CLOSED_ROLES", 5)
    closed, errors = close_roles(chain[:5])
    assert [error.code for error in errors] == ["PG010"]
    assert [len(closed[f"r{number}"]) for number in range(5)] == [1, 2, 3, 1, 1]
    assert not close_roles([*chain[:2], role("a"), role("b")])[1]


def test_one_holder_of_very_many_domains_and_periods_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each domain is compared with all that is held everywhere; at the bound it is still done."""
    monkeypatch.setattr(separation_of_duty, "MAX_COMPARISONS", 4)
    everywhere = [bind("user:alice", "lead", "*", until=5), bind("user:alice", "lead", "*", since=5)]
    domains = [bind("user:alice", "lead", domain) for domain in ("blue", "red", "green")]
    assert assign_roles(LAB, [*everywhere, *domains[:2]], APART).subjects
    [(code, words)] = refused(LAB, [*everywhere, *domains], APART)
    assert code == "PG010"
    assert "3 domains" in words
