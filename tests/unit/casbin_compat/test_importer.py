"""A casbin model becomes documents, or an error with its place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyguard.casbin_compat.importer import import_casbin
from policyguard.errors import PolicyErrors
from policyguard.model.policy import PolicySet
from policyguard.policy.loader import load
from tests.fences.casbin_stock import ALLOW, DENY_OVERRIDE, EQUAL, conf, stock

RBAC = conf("g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act", g="_, _")
DOMAINS = conf(
    "g(r.sub, p.sub, r.dom) && r.dom == p.dom && r.obj == p.obj && r.act == p.act",
    r="sub, dom, obj, act",
    p="sub, dom, obj, act",
    g="_, _, _",
)


def loaded(model: str, policy: str, *actions: str) -> PolicySet:
    documents = import_casbin(model, policy, actions=actions).documents
    return load({"imported.yaml": documents.encode()})


def refused(model: str, policy: str = "p, alice, data, read", *actions: str) -> list[str]:
    with pytest.raises(PolicyErrors) as caught:
        import_casbin(model, policy, actions=actions)
    return [f"{error.code} {error}" for error in caught.value.errors]


def condition(matcher: str, *actions: str) -> str:
    rule = loaded(conf(matcher), "", *(actions or ("read",))).rules[0]
    assert rule.when is not None
    return rule.when.text


def test_a_small_model_reads_like_one_of_ours() -> None:
    """The whole text, once."""
    found = import_casbin(RBAC, "p, admin, data1, read\np, bob, data2, write\ng, alice, admin\ng, admin, reader")
    assert (
        found.documents
        == """\
# Translated from a casbin model. A subject `alice` is `user:alice`, an object `data1` is `object:data1` (with domains
# `object:domain1/data1`), an action `read` is `object:read`. A subject named like a role no longer holds it.
apiVersion: "policyguard/v1"
kind: "Schema"
metadata: {"name": "imported"}
subjects: {"user": {}}
resources: {"object": {"actions": ["read", "write"]}}
---
apiVersion: "policyguard/v1"
kind: "Roles"
metadata: {"name": "imported"}
roles:
  - {"name": "admin", "inherits": ["reader"]}
  - {"name": "reader"}
---
apiVersion: "policyguard/v1"
kind: "Bindings"
metadata: {"name": "imported"}
bindings:
  - {"subject": "user:alice", "role": "admin", "domain": "*"}
---
apiVersion: "policyguard/v1"
kind: "Policy"
metadata: {"name": "imported"}
rules:
  - {"id": "line-1", "effect": "allow", "roles": ["admin"], "actions": ["object:read"], \
"resources": {"type": "object", "id": "data1"}, "description": "p, admin, data1, read"}
  - {"id": "line-2", "effect": "allow", "subjects": ["user:bob"], "actions": ["object:write"], \
"resources": {"type": "object", "id": "data2"}, "description": "p, bob, data2, write"}
"""
    )


def test_domains_become_the_first_segment_of_an_id() -> None:
    """Roles are held in the domain, inherited ones bound directly, since casbin's inheritance is by domain."""
    found = loaded(DOMAINS, "p, admin, d1, data1, read\ng, alice, admin, d1\ng, admin, reader, d1\ng, bob, admin, d2")
    assert [rule.id_pattern for rule in found.rules] == ["d1/data1"]
    assert found.schema.resources["object"].id_pattern == "{team}/**"
    assert sorted((b.subject, b.role, b.domain) for b in found.bindings) == [
        ("user:alice", "admin", "d1"),
        ("user:alice", "reader", "d1"),
        ("user:bob", "admin", "d2"),
    ]
    assert all(role.inherits == () for role in found.roles)


@pytest.mark.parametrize(
    ("matcher", "expected"),
    [
        ("r.sub == r.obj.Owner", 'subject.id == "user:" + resource.owner'),
        ("r.sub.Age > 18 && r.sub.Age <= 60", "subject.age > 18 && subject.age <= 60"),
        (
            'r.sub.Team == r.obj.TeamName && r.sub.Team != "x"',
            'subject.team == resource.team_name && subject.team != "x"',
        ),
        ('r.obj in ["a", "b"]', 'resource.id in ["a", "b"]'),
        ('r.sub != "root"', 'subject.id != "user:root"'),
        ('r.obj != "a"', 'resource.id != "a"'),
        ('keyMatch(r.obj, "data/*")', 'resource.id.startsWith("data/")'),
        ('keyMatch2(r.obj, "data/:id/x")', 'resource.id.matches("^data/[^/]+/x$")'),
    ],
)
def test_conditions_are_what_the_matcher_says(matcher: str, expected: str) -> None:
    """And they pass the checker, so the schema that was derived fits them."""
    assert condition(matcher) == expected


def test_alternatives_become_rules() -> None:
    """Each row with each alternative that reads it; one that reads no row stands once."""
    found = loaded(conf(f'{EQUAL} || r.sub == "root"'), "p, alice, data1, read\np, bob, data2, read")
    assert [rule.id for rule in found.rules] == ["line-1-1", "line-2-1", "matcher-allow-2"]
    nested = loaded(
        conf('(r.sub == p.sub || p.sub == "any") && r.obj == p.obj && r.act == p.act'),
        "p, any, data1, read\np, bob, data2, read",
    )
    assert [(rule.id, rule.subjects) for rule in nested.rules] == [
        ("line-1-1", ("user:any",)),
        ("line-2-1", ("user:bob",)),
        ("line-1-2", ()),
    ]


def test_an_alternative_that_reads_no_row_has_the_effects_of_all_rows() -> None:
    """casbin tries it with every row: one deny among them denies root everything."""
    model = conf(f'{EQUAL} || r.sub == "root"', p="sub, obj, act, eft", effect=DENY_OVERRIDE)
    policy = "p, alice, a, read, allow\np, bob, a, read, deny"
    assert [(rule.id, rule.effect) for rule in loaded(model, policy).rules] == [
        ("line-1-1", "allow"),
        ("line-2-1", "deny"),
        ("matcher-allow-2", "allow"),
        ("matcher-deny-2", "deny"),
    ]
    assert not stock(model, policy).enforce("root", "a", "read")


def test_a_row_that_nobody_can_match_makes_no_rule() -> None:
    """Two names at once are nobody, which must never be written as everyone."""
    matcher = 'r.sub == p.sub && r.sub == "root" && r.obj == p.obj && r.act == p.act'
    found = loaded(conf(matcher), "p, alice, a, read\np, root, a, read")
    assert [(rule.id, rule.subjects) for rule in found.rules] == [("line-2", ("user:root",))]


def test_a_text_in_parentheses_is_no_list() -> None:
    """Python searches inside the text: casbin admits `dat`. Brackets are a list."""
    inside = conf('r.obj in ("data1")')
    assert stock(inside, "p, a, b, c").enforce("x", "dat", "read")
    assert refused(inside, "", "read") == ["PG109 model.conf:8:11: expected a list in brackets after `in`"]
    assert condition('r.obj in ("data1", "data2")') == 'resource.id in ["data1", "data2"]'


def test_actions_that_differ_in_case_are_refused() -> None:
    """They would become one."""
    assert refused(conf(EQUAL), "p, alice, a, read\np, bob, a, READ") == [
        "PG006 model.conf:8:5: found actions that differ in case only, expected one name for each"
    ]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (("alice", "READ", "data1", "d1"), "found the action `READ`, which no row names"),
        (("alice", "read", "y", "d1/x"), "found the domain `d1/x`, expected a name without `/`"),
        (("alice", "read", "/y", "d1"), "found the object `/y`, which no row could match"),
    ],
    ids=["an action in other letters", "a domain that reaches into the object", "a slash that no row has"],
)
def test_names_that_would_be_mistaken_for_others_are_not_written(ask: tuple[str, str, str, str], message: str) -> None:
    """casbin denies each of these; spelled carelessly they would be somebody else's."""
    names = import_casbin(DOMAINS, "p, alice, d1, data1, read\ng, bob, admin, d1").names
    with pytest.raises(ValueError, match=message):
        names.request(*ask)
    assert names.request("alice", "read", "data1", "d1") == ("user:alice", "object:read", "object:d1/data1")


def test_a_leading_role_goes_without_saying() -> None:
    """`role:admin` is the role `admin`, unless there are both."""
    assert [role.name for role in loaded(RBAC, "p, role:admin, d, read\ng, alice, role:admin").roles] == ["admin"]
    both = "p, role:admin, d, read\ng, alice, role:admin\ng, bob, admin"
    assert refused(RBAC, both)[0].startswith("PG006 policy.csv:1:1: found the roles `admin` and `role:admin`")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (conf("!(r.sub == p.sub)"), "PG109 model.conf:8:5: found `!`, which import does not translate"),
        (conf("r.sub == p.sub &&"), "PG109 model.conf:8:21: the matcher ends, expected more"),
        (conf("(r.sub == p.sub"), "PG109 model.conf:8:19: the matcher ends, expected )"),
        (conf("r.sub == p.sub r.act"), "PG109 model.conf:8:20: found `r.act`, expected `&&`, `||` or the end"),
        (conf("r.sub == p.sub \\\n   && system(r.obj)"), "PG109 model.conf:9:7: found the function `system`, expected"),
        (conf('r.sub == "a#b"'), "PG109 model.conf:8:16: found `#` inside a text, where casbin cuts the matcher"),
        (conf("r.sub.__class__ == p.sub"), "PG011 model.conf:8:5: attribute `__class__` has no name here"),
        (conf("r.sub.a.b == p.sub"), "PG109 model.conf:8:15: attributes of attributes have"),
        (conf("r.who == p.sub"), "PG110 model.conf:8:5: `r.who` is not in the request definition"),
        (conf("r.sub == p.who"), "PG110 model.conf:8:14: found `p.who`, expected a constant or a column of `p`"),
        (conf("r.sub == r.obj"), "PG109 model.conf:8:11: only the subject can be compared"),
        (conf(EQUAL, r="sub, obj, verb"), "PG109 model.conf:2:5: found the request `sub, obj, verb`, expected"),
        (conf(EQUAL, effect="some(where (p.eft == deny))"), "PG109 model.conf:6:5: found the effect `some(where"),
        (conf(EQUAL).replace("[matchers]", "[matcher]"), "PG003 model.conf:7:1: unknown section `[matcher]`"),
        (conf(EQUAL) + "m = r.sub == p.sub\n", "PG002 model.conf:9:1: key `m` is written twice"),
        ("[request_definition]\nr = sub, obj, act\n", "PG003 model.conf:1:1: the model has no `p`"),
    ],
    ids=range(16),
)
def test_a_model_outside_the_grammar_is_refused_with_its_place(model: str, message: str) -> None:
    """File, line and column of the first thing that is not understood."""
    assert refused(model, "p, alice, data, read", "read")[0].startswith(message)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("p, alice, data", "PG010 policy.csv:1:1: found 2 columns after `p`, expected 3"),
        ("p, alice, , read", "PG011 policy.csv:1:1: found the value ``, expected one without quotes"),
        ('p, "alice", data, read', 'PG011 policy.csv:1:1: found the value `"alice"`, expected one without quotes'),
        ("p, alice, a b, read", "PG011 policy.csv:1:1: found the value `a b`"),
        ("p, alice, data(, read", "PG010 policy.csv:1:1: found a bracket that is not closed"),
        ("p, alice, data, r*", "PG011 policy.csv:1:1: found the action `r*`"),
        (
            "p, alice, /a, read\np, alice, b, read",
            "PG011 policy.csv:1:1: found the object `/a`, expected all",
        ),
        ("p, alice, a//b, read", "PG011 policy.csv:1:1: found the object `a//b`, expected no empty"),
    ],
)
def test_a_row_that_is_not_understood_is_refused_with_its_place(row: str, message: str) -> None:
    """casbin reads each of these, as something."""
    assert refused(conf(EQUAL), row)[0].startswith(message)


def test_every_wrong_row_is_reported() -> None:
    """Not only the first."""
    assert len(refused(conf(EQUAL), "p, a\np, b, c, d\nq, e")) == 2


PIECES = st.sampled_from(
    [
        "r.sub",
        "p.sub",
        "r.obj.Owner",
        "==",
        "&&",
        "||",
        "(",
        ")",
        "in",
        "[",
        "]",
        '"x"',
        "1",
        ",",
        "g",
        "keyMatch(",
        "!",
        "#",
        "\\",
        "'",
        "eval(",
        "r.act",
        "p.act",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=12).map(" ".join), st.text(alphabet='pg, ()[]*ab"#\n', max_size=40))
def test_any_text_is_imported_or_refused(matcher: str, policy: str) -> None:
    """Nothing but `PolicyErrors` comes out, and what is imported loads."""
    try:
        documents = import_casbin(conf(matcher, g="_, _", effect=ALLOW), policy, actions=("read",)).documents
    except PolicyErrors:
        return
    assert load({"imported.yaml": documents.encode()}).rules
