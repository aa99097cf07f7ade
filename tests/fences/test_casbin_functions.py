"""Hazards of casbin's matching functions (H16-H20): what they match, and what ours do with the same."""

from __future__ import annotations

from typing import Any

import pytest
from casbin.util import ip_match, key_match, key_match2, regex_match
from casbin.util.builtin_operators import time_match_func

from policyguard.casbin_compat.importer import import_casbin
from policyguard.conditions.functions import Failure, glob, ip_in, matches
from policyguard.decide.engine import Engine
from policyguard.errors import PolicyErrors, RequestError
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.request import Request
from policyguard.policy.loader import load
from tests.fences.casbin_stock import ANYONE, WORLD, conf, ours
from tests.fences.notes import noted


def refused(matcher: str, policy: str) -> str:
    with pytest.raises(PolicyErrors) as caught:
        import_casbin(conf(matcher), policy)
    return f"{caught.value.errors[0].code} {caught.value.errors[0]}"


def test_h16_regex_match_is_a_prefix_match_in_casbin_and_not_imported_for_resources() -> None:
    """casbin: `/data` matches `/data_secret`. Here patterns are whole, and the import refuses."""
    with noted():
        assert regex_match("/data_secret", "/data")
    assert not glob("data_secret", "data")
    matcher = "r.sub == p.sub && regexMatch(r.obj, p.obj) && r.act == p.act"
    assert refused(matcher, "p, alice, /data, read").startswith("PG109 model.conf:8:23: `regexMatch` on `obj`")


def test_h16_our_regular_expressions_end() -> None:
    """casbin hands texts to a backtracking engine; 28 letters take seconds there, 2,000 would never end.

    Ours is an automaton, linear in the text: it refuses what only an engine that backtracks can match.
    """
    assert not matches("a" * 2000 + "!", "^(a+)+$")
    assert not matches("a" * 20_000 + "!", "^(a|aa)+b?$")
    for backtracking in (r"(a)\1", r"(?=a)a", r"(?<=a)b", r"(?>a+)b"):
        with pytest.raises(Failure, match="no regular expression of RE2"):
            matches("aab", backtracking)


def test_h17_key_match_ignores_what_follows_the_first_star() -> None:
    """casbin: `/teams/*/public` opens `/teams/a/secret`. Our glob goes segment by segment, and the import refuses."""
    with noted():
        assert key_match("/teams/a/secret", "/teams/*/public")
    assert not glob("/teams/a/secret", "/teams/*/public")
    assert glob("/teams/a/public", "/teams/*/public")
    matcher = "r.sub == p.sub && keyMatch(r.obj, p.obj) && r.act == p.act"
    assert refused(matcher, "p, alice, /teams/*/public, read").startswith(
        "PG206 policy.csv:1:1: found `/teams/*/public`"
    )


@pytest.mark.parametrize(("path", "pattern"), [("/indexXhtml", "/index.html"), ("/data\n", "/data")])
def test_h18_key_match2_is_a_regular_expression_in_disguise(path: str, pattern: str) -> None:
    """casbin: a dot is any character and a trailing newline matches. Here a pattern is itself."""
    with noted():
        assert key_match2(path, pattern)
    assert not glob(path, pattern)


def test_h18_such_patterns_are_not_imported_and_such_ids_are_refused() -> None:
    """The dot in a row, the newline in a request."""
    matcher = "r.sub == p.sub && keyMatch2(r.obj, p.obj) && r.act == p.act"
    assert refused(matcher, "p, alice, /index.html, read").startswith("PG206 policy.csv:1:1: found `index.html`")
    with pytest.raises(RequestError, match="no control characters"):
        Request.of("user:alice", "data:read", "data:vision/x\n")


def test_h19_a_bad_address_raises_out_of_casbin_and_only_takes_access_away_here() -> None:
    """casbin: ValueError. Here the condition errs: an allow does not fire, a deny does."""
    with noted(), pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        ip_match("not an address", "10.0.0.0/8")
    with pytest.raises(Failure):
        ip_in("not an address", "10.0.0.0/8")
    inside = '{id: inside, effect: allow, actions: ["data:read"], when: "ip.in(resource.address, \\"10.0.0.0/8\\")"}'
    outside = inside.replace("id: inside, effect: allow", "id: outside, effect: deny")
    bad = {"resource.address": Fact("not an address", Assurance.CLAIMED, "request", 0)}
    good = {"resource.address": Fact("10.1.2.3", Assurance.CLAIMED, "request", 0)}
    request = Request.of("user:alice", "data:read", "data:vision/x")
    allowed = [
        Engine(ours(*rules)).decide(Facts(request=request, entries=entries), 0).allowed
        for rules in ((inside,), (ANYONE, outside))
        for entries in (bad, good)
    ]
    assert allowed == [False, True, False, False]


def test_h19_a_mapped_address_is_the_address_it_carries() -> None:
    """casbin: `::ffff:10.1.2.3` is outside `10.0.0.0/8`. Here it is inside."""
    with noted():
        assert not ip_match("::ffff:10.1.2.3", "10.0.0.0/8")
    assert ip_in("::ffff:10.1.2.3", "10.0.0.0/8")


def test_h20_time_match_reads_a_clock_without_a_zone_and_we_read_none() -> None:
    """casbin compares strings without zone with the host's local time. Here `now` is an argument, and a time in a
    policy has a zone or the load stops."""
    with noted():
        assert time_match_func("2000-01-01 00:00:00", "2999-01-01 00:00:00")
    naive = '{id: a, effect: allow, actions: ["data:read"], expires: "2999-01-01 00:00:00"}'
    with pytest.raises(PolicyErrors, match="2999-01-01 00:00:00"):
        load({"fence.yaml": (WORLD + f"  - {naive}\n").encode()})
    zoned: Any = ours(naive.replace("2999-01-01 00:00:00", "1970-01-01T00:00:01Z"))
    request = Facts(request=Request.of("user:alice", "data:read", "data:vision/x"))
    assert [Engine(zoned).decide(request, now).allowed for now in (0, 10**9 - 1, 10**9)] == [True, True, False]
    assert refused("timeMatch(r.sub, p.sub)", "p, a, b, c").startswith("PG109 model.conf:8:5: found the function")
