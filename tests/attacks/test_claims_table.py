"""The table of claims is not signed: what somebody writes into it, or takes out, is found by `audit verify`."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path

import pytest

from policyguard.audit.check import check_chain
from policyguard.audit.check_claims import check_claims
from policyguard.audit.continuity import rotate
from policyguard.audit.head import HeadLocation
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import AuditError
from policyguard.guard import Guard
from tests.attacks import test_quota_race as quota
from tests.e2e.cli_lab import CliLab
from tests.e2e.conftest import here, initial_folder, lab
from tests.unit.audit.test_approval_use import HOUR, KEY, NOW, approved, folder, guard_in, without_claims

__all__ = ["folder", "here", "initial_folder", "lab"]


def change(log: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(log)) as connection:
        connection.execute(statement)
        connection.commit()


def check(*logs: Path, now: int = NOW) -> None:
    with contextlib.ExitStack() as opened:
        stores = [opened.enter_context(SqliteStore.open(log, read_only=True)) for log in logs]
        check_chain(stores, None)
        check_claims(stores, now)


APPROVAL_CHANGES = [
    ("DELETE FROM claims", r"entry 0 takes approval .* it was removed from the table"),
    ("UPDATE claims SET entry = 1", "entry 0 takes approval .* its claim names entry 1"),
    ("UPDATE claims SET entry = 99", "entry 0 takes approval .* its claim names entry 99"),
    ("UPDATE claims SET name = 'x'", "entry 0 takes approval"),
    ("INSERT INTO claims VALUES ('approval', 'f00d', '', 0, '')", r"no such entry does: it was added to the table"),
    ("INSERT INTO claims VALUES ('approval', 'f00d', '', 99, '')", r"no such entry does"),
    ("INSERT INTO claims VALUES ('reservation', 'f00d', 'vision', 1, '{}')", r"no such entry does"),
    ("INSERT INTO claims VALUES ('another', 'f00d', '', 1, '')", r"no such entry does"),
]


@pytest.mark.parametrize(("statement", "problem"), APPROVAL_CHANGES)
def test_a_claim_of_an_approval_that_was_changed(folder: Path, statement: str, problem: str) -> None:
    """Removed, it would count again; added, an approval that nobody used counts no more."""
    with guard_in(folder) as guard:
        assert guard.issue(approved()).decision.allowed
        assert not guard.issue(approved()).decision.allowed
    check(folder / "audit.db")
    change(folder / "audit.db", statement)
    with pytest.raises(AuditError, match=problem):
        check(folder / "audit.db")


def test_a_log_without_claims_and_one_that_went_on_agree(folder: Path) -> None:
    """The twins: version 0.1.0 wrote no table, and the first decision that needs it makes it."""
    with guard_in(folder) as guard:
        assert guard.issue(approved()).decision.allowed
    without_claims(folder)
    check(folder / "audit.db")
    with guard_in(folder) as guard:
        assert guard.issue(approved(2)).decision.allowed
    check(folder / "audit.db")


RESERVATION_CHANGES = [
    ("DELETE FROM claims", "takes reservation .* it was removed from the table"),
    ("UPDATE claims SET detail = replace(detail, '64', '1')", "its claim says something else"),
    ("UPDATE claims SET scope = 'nobody'", "its claim says something else"),
    ("UPDATE claims SET detail = 'x'", "its claim says something else"),
]


@pytest.mark.parametrize(("statement", "problem"), RESERVATION_CHANGES)
def test_a_claim_of_a_reservation_that_was_changed(tmp_path: Path, statement: str, problem: str) -> None:
    """What is removed or made smaller frees room in a quota."""
    with quota.guard_in(tmp_path) as guard:
        assert quota.outcomes(guard, quota.submission()) == [True]
    check(tmp_path / "audit.db", now=quota.NOW)
    change(tmp_path / "audit.db", statement)
    with pytest.raises(AuditError, match=problem):
        check(tmp_path / "audit.db", now=quota.NOW)


def test_a_reservation_that_expired_may_be_forgotten(tmp_path: Path) -> None:
    with quota.guard_in(tmp_path) as guard:
        assert quota.outcomes(guard, quota.submission()) == [True]
    change(tmp_path / "audit.db", "DELETE FROM claims")
    check(tmp_path / "audit.db", now=quota.NOW + HOUR * 24)


def test_the_claims_of_a_rotated_log_are_those_of_the_old_one(folder: Path) -> None:
    log = folder / "audit.db"

    def decide(number: int) -> bool:
        with Guard.open(folder / "policies", key=folder / "guard.key", log=log) as guard:
            return guard.issue(approved(number, made=time.time_ns() - HOUR // 60)).decision.allowed

    assert decide(1)
    old = Path(rotate(str(log), KEY, HeadLocation.of(log), archive=None, reason="full", now=NOW))
    assert (decide(2), decide(1)) == (True, False)
    check(log)
    check(old, log)
    with contextlib.closing(sqlite3.connect(log)) as connection:
        before = connection.execute("SELECT * FROM claims").fetchall()
    change(log, f"DELETE FROM claims WHERE name = '{1:064x}'")
    with pytest.raises(AuditError, match="counted in the older log, and this log has no claim of it"):
        check(old, log)
    assert len(before) == 2
    change(log, f"INSERT INTO claims VALUES ('approval', '{1:064x}', '', 0, ''), ('approval', 'f00d', '', 0, '')")
    with pytest.raises(AuditError, match="no such entry does"):
        check(old, log)
    change(log, f"DELETE FROM claims WHERE name = '{2:064x}'")
    with pytest.raises(AuditError, match=r"takes approval .* removed"):
        check(log)


def test_audit_verify_and_doctor_report_it(lab: CliLab) -> None:
    assert lab.here("decide", "requests/allowed.json").code == 0
    assert (lab.here("audit", "verify").code, lab.here("doctor").code) == (0, 0)
    change(lab.path("audit.db"), "INSERT INTO claims VALUES ('approval', 'f00d', '', 0, '')")
    ended = lab.here("audit", "verify")
    assert (ended.code, ended.out.startswith("BROKEN")) == (1, True)
    assert "it was added to the table" in ended.out
    assert lab.here("doctor").code == 1
