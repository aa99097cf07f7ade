"""Nothing that is signed to be used lasts longer than 366 days, and no time overflows anywhere."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.audit.stores.used import UsedDecisions
from policyguard.config.file import read_config
from policyguard.errors import ConfigurationError, SigningError, VerificationError
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.gpu_grants import GrantCollector, sign_grant
from policyguard.guard import Guard
from policyguard.keyfiles import write_private_key
from policyguard.model.decision import MAX_LIFETIME_S
from policyguard.model.facts import GRANTS
from policyguard.model.request import Request
from policyguard.values import NANOSECONDS_PER_S, parse_instant
from policyguard.verify import verify
from tests.attest_lab import AUDIENCE, BOUND, NOW, REQUEST, Lab, payload_of

DAY = 86_400
POLICIES = """
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources: {job: {actions: [submit]}}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: all}
rules: [{id: all, effect: allow, subjects: ["user:alice"], actions: [job:submit]}]
"""
ASKED = Request.of("user:alice", "job:submit", "job:run")
TOO_LONG: list[Any] = [MAX_LIFETIME_S + 1, 2**31, 2**63 // NANOSECONDS_PER_S, 2**63, 10**30]
NO_LIFETIME: list[Any] = [0, -1, True, 1.5, math.nan, math.inf, "900", None]


@pytest.mark.parametrize("lifetime_s", [*TOO_LONG, *NO_LIFETIME])
def test_a_guard_of_endless_decisions_cannot_be_made(lifetime_s: Any, tmp_path: Path) -> None:
    """Every way to make a guard refuses; nothing is written but the log that `open` makes."""
    with pytest.raises(ValueError, match="at most 366 days"):
        Guard.in_memory(POLICIES, lifetime_s=lifetime_s)
    (tmp_path / "p").mkdir()
    (tmp_path / "p/all.yaml").write_text(POLICIES)
    write_private_key(tmp_path / "key", PrivateKey(b"\1" * 32))
    with pytest.raises(ValueError, match="at most 366 days"):
        Guard.open(tmp_path / "p", key=tmp_path / "key", log=tmp_path / "log.db", lifetime_s=lifetime_s)


def test_a_guard_may_sign_for_366_days() -> None:
    """The twin at the limit."""
    with Guard.in_memory(POLICIES, lifetime_s=MAX_LIFETIME_S) as guard:
        assert guard.decide(ASKED).decision.allowed


@pytest.mark.parametrize("text", ["367d", "366d1s", "8785h", "99999999999999999d", "0s", "0d"])
def test_a_configuration_with_an_endless_lifetime_is_refused(text: str, tmp_path: Path) -> None:
    """The line says the limit; exit code 78 as for every mistake in a configuration."""
    path = tmp_path / "policyguard.yaml"
    path.write_text(f"lifetime: {text}\n")
    with pytest.raises(ConfigurationError, match=f"lifetime: found `{text}`, expected more than 0 and at most `366d`"):
        read_config(path)
    path.write_text("lifetime: 366d\n")
    assert read_config(path).lifetime_s == MAX_LIFETIME_S


@pytest.mark.parametrize("now", [2**63 - 1, 2**63, 2**70, 10**30, -(2**63) - 1, -(10**30)])
def test_a_clock_beyond_all_times_signs_nothing(now: int) -> None:
    """One line names the clock, for one decision, for many and for a denial; no overflow, no entry in the log."""
    times = [NOW]
    with Guard.in_memory(POLICIES, clock=lambda: times[-1]) as guard:
        denial = guard.decide(Request.of("user:eve", "job:submit", "job:run")).decision
        times.append(now)
        facts = msgspec.structs.replace(denial.facts)
        for attempt in (
            lambda: guard.issue(facts),
            lambda: guard.issue_many([facts, facts]),
            lambda: guard.issue_denial(denial),
        ):
            with pytest.raises(SigningError, match="set the clock"):
                attempt()
        times.append(NOW)
        assert guard.decide(ASKED).receipt.index == 1


@pytest.mark.parametrize("lifetime_s", [MAX_LIFETIME_S + 1, 3000 * 366 * DAY])
def test_a_worker_refuses_an_endless_decision(lifetime_s: int, tmp_path: Path) -> None:
    """V6: whichever guard signed it; a store of used decisions never meets a number that it cannot hold."""
    lab = Lab()
    signed = lab.issue(payload_of(expires=NOW + lifetime_s * NANOSECONDS_PER_S))
    with UsedDecisions.open(tmp_path / "used.db", clock=lambda: NOW) as used:
        with pytest.raises(VerificationError, match=r"V6: .*at most 366 days"):
            verify(signed, lab.trust(), REQUEST, audience=AUDIENCE, now=NOW, bound=BOUND, used=used)
        allowed = lab.issue(payload_of(expires=NOW + MAX_LIFETIME_S * NANOSECONDS_PER_S))
        verify(allowed, lab.trust(), REQUEST, audience=AUDIENCE, now=NOW, bound=BOUND, used=used)
        last = parse_instant("9999-12-31T23:59:59Z")
        assert used.use("far", last)
        assert not used.use("far", last)


def test_a_grant_without_an_end_in_sight_is_none(tmp_path: Path) -> None:
    """A file that was signed past the verb's own limit gives nothing; the twin ends within 366 days."""
    key = PrivateKey(b"\2" * 32)
    limit = NOW + MAX_LIFETIME_S * NANOSECONDS_PER_S
    for name, expires in {"at": limit, "beyond": limit + 1000, "last": parse_instant("9999-12-31T23:59:59Z")}.items():
        (tmp_path / f"{name}.json").write_bytes(
            sign_grant(grant_id=name, subject="user:alice", gpus=8, expires=expires, key=key)
        )
    grants = GrantCollector(str(tmp_path), (key.public,)).collect(ASKED, JobInputs(), NOW).entries[GRANTS].value
    assert [grant["grant_id"] for grant in grants] == ["at"]  # type: ignore[union-attr, index, call-overload]
