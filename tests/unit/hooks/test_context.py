"""Guarding a block or a function: nothing inside runs without an allow, and the decision says that it is advisory."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyguard.errors import AccessDenied, ConfigurationError
from policyguard.hooks.in_process.context import allowed, guarded
from policyguard.model.request import Request
from policyguard.verify import verify_origin
from tests.e2e.launcher_lab import Lab, make_lab, request


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path)


def test_the_block_is_entered_under_an_advisory_allow(lab: Lab) -> None:
    """The decision calls itself advisory, so that no worker takes it for an enforced one."""
    with lab.guard(advisory=True) as guard, allowed(guard, request(), lab.inputs()) as signed:
        assert verify_origin(signed.to_json(), lab.trust).predicate.mode == "advisory"


def test_a_denied_block_is_not_entered(lab: Lab) -> None:
    """The exception carries the signed denial."""
    with (
        lab.guard(advisory=True) as guard,
        pytest.raises(AccessDenied),
        allowed(guard, request(gpus=512), lab.inputs()),
    ):
        pytest.fail("the block was entered")


def test_an_enforcing_guard_is_refused_in_process(lab: Lab) -> None:
    """A line that the user can take out must not claim to enforce."""
    with (
        lab.guard() as guard,
        pytest.raises(ConfigurationError, match="expected advisory ones"),
        allowed(guard, request(), lab.inputs()),
    ):
        pytest.fail("the block was entered")


def test_a_guarded_function_asks_at_each_call(lab: Lab) -> None:
    """The request is made from the call's own arguments; a denied call has no effect."""
    calls: list[int] = []

    def request_of(gpus: int) -> Request:
        return Request.of("user:alice", "job:submit", "job:team/vision/x", gpus=gpus)

    with lab.guard(advisory=True) as guard:

        @guarded(guard, request_of, inputs=lab.inputs())
        def submit(gpus: int) -> str:
            """Submit."""
            calls.append(gpus)
            return f"submitted {gpus}"

        assert submit(8) == "submitted 8"
        with pytest.raises(AccessDenied):
            submit(gpus=512)
    assert calls == [8]
    assert (submit.__name__, submit.__doc__) == ("submit", "Submit.")
