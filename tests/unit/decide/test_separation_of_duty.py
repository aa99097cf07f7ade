"""Separation of duty over time: the sweep finds what a check of each moment finds, in linear time."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from policyguard.decide.separation_of_duty import MAX_COMPARISONS, separation_errors
from policyguard.model.policy import ANY_DOMAIN, Binding, Exclusion, Role
from policyguard.values import ALWAYS, NEVER

ROLES = tuple(Role(name=name) for name in ("author", "approver", "auditor"))
CLOSED = {role.name: frozenset({role.name}) for role in ROLES}
TWO = Exclusion(name="four-eyes", roles=("author", "approver", "auditor"))

times = st.none() | st.integers(0, 6)
some_bindings = st.lists(
    st.builds(
        Binding,
        subject=st.just("user:a"),
        role=st.sampled_from([role.name for role in ROLES]),
        domain=st.sampled_from(["*", "vision", "llm"]),
        not_before=times,
        expires=times,
    ),
    max_size=6,
)


def breached(bindings: Sequence[Binding], limit: int) -> set[str]:
    """The domains in which too many roles are held at some moment; `*` alone if it is one of them."""

    def at(domain: str, moment: int) -> set[str]:
        return {
            binding.role
            for binding in bindings
            if binding.domain in (domain, ANY_DOMAIN)
            and (ALWAYS if binding.not_before is None else binding.not_before) <= moment
            and moment < (NEVER if binding.expires is None else binding.expires)
        }

    domains = {"*", *(binding.domain for binding in bindings)}
    found = {domain for domain in domains if any(len(at(domain, moment)) >= limit for moment in (ALWAYS, *range(8)))}
    return {"*"} if "*" in found else found


@given(some_bindings, st.sampled_from([2, 3]))
def test_the_sweep_finds_what_every_moment_shows(bindings: list[Binding], limit: int) -> None:
    """INVARIANT I8: each domain once, and no other."""
    exclusion = Exclusion(name="four-eyes", roles=TWO.roles, limit=limit)
    errors = [str(error) for error in separation_errors(CLOSED, bindings, ROLES, [exclusion], [])]
    expected = breached(bindings, limit)
    assert len(errors) == len(expected)
    for domain in expected:
        where = "in every domain" if domain == "*" else f"in domain `{domain}`"
        assert any(where in error for error in errors)


def bound(count: int, *, domain: str | None, role: str = "author", period: int = 10) -> list[Binding]:
    """Bindings of one holder one after another, in one domain or each in its own."""
    return [
        Binding(
            subject="user:a",
            role=role if number % 2 else "approver",
            domain=domain or f"team-{number}",
            not_before=number * period,
            expires=number * period + period,
        )
        for number in range(count)
    ]


def test_a_holder_with_thousands_of_periods_everywhere_takes_linear_time() -> None:
    """20,000 periods of one holder, with another binding at the last: hours if each is compared with each."""
    bindings = bound(20_000, domain="*")
    started = time.process_time()
    assert list(separation_errors(CLOSED, bindings, ROLES, [TWO], [])) == []
    late = Binding(subject="user:a", role="auditor", domain="*", not_before=19_999 * 10)
    (error,) = separation_errors(CLOSED, [*bindings, late], ROLES, [TWO], [])
    assert "in every domain" in str(error)
    assert time.process_time() - started < 20


def test_too_many_pairs_of_domains_and_periods_are_refused() -> None:
    """The limit is named; the twin is the largest that is checked."""
    domains, periods = 500, MAX_COMPARISONS // 500
    fine = bound(domains, domain=None) + bound(periods, domain="*", role="approver")
    assert not any("pairs" in str(error) for error in separation_errors(CLOSED, fine, ROLES, [TWO], []))
    more = bound(domains + 1, domain=None) + bound(periods, domain="*", role="approver")
    errors = list(separation_errors(CLOSED, more, ROLES, [TWO], []))
    assert [error.code for error in errors] == ["PG010"]
    assert "expected at most 200000 pairs of them for `four-eyes`" in str(errors[0])
