"""A log that is used with more and more policy sets refuses the one too many, before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.audit.continuity import accept_reset, rotate
from policyguard.audit.group_commit import Waiter
from policyguard.audit.head import HeadLocation, PolicyHead
from policyguard.audit.log import Log
from policyguard.audit.policy_epochs import PolicyUse
from policyguard.errors import ConfigurationError

KEY = PrivateKey.generate(bytes(32))


def use(name: str, epoch: int = 1) -> PolicyUse:
    return PolicyUse(name=name, epoch=epoch, digest="0" * 64, is_signed=True)


def fill(log: Log, names: int, width: int = 0) -> tuple[int, str]:
    """Append an entry for each of so many policy sets; return how many were accepted, and the refusal."""
    for number in range(names):
        try:
            log.append_many([b"entry"], use(f"s{number}".ljust(width, "x")))
        except ConfigurationError as problem:
            return number, str(problem)
    return names, ""


@pytest.mark.parametrize(("width", "expected"), [(0, range(185, 200)), (128, range(70, 78))])
def test_one_policy_set_too_many_is_refused_and_not_logged(tmp_path: Path, width: int, expected: range) -> None:
    """clk, probe: the 207th set was logged without a receipt, and so was every later decision of any set."""
    path = tmp_path / "audit.db"
    with Log.open(path, KEY, create=True) as log:
        accepted, message = fill(log, 300, width)
        assert "the head file of the log has no room for more" in message
        assert accepted in expected
        for _ in range(3):
            with pytest.raises(ConfigurationError, match="has no room"):
                log.append_many([b"entry"], use("one-more"))
        # The twins: sets that the log knows go on, with a new epoch as well.
        receipts = log.append_many([b"entry"], use("s0".ljust(width, "x"), 2))
        assert receipts[0].index == accepted
    with Log.open(path, KEY) as log:
        assert log.append_many([b"entry"], use("s1".ljust(width, "x")))[0].index == accepted + 1
        with pytest.raises(ConfigurationError, match="has no room"):
            log.append_after(lambda *_: None, lambda: [b"entry"], use("one-more"))
        with pytest.raises(ConfigurationError, match="has no room"):
            log.remember_list([f"key{number}" * 10 for number in range(20)], 1, 0)
        assert log.append(b"entry").index == accepted + 2


def test_a_full_log_is_rotated_and_reset(tmp_path: Path) -> None:
    """Both keep the epochs of all sets."""
    path = tmp_path / "audit.db"
    with Log.open(path, KEY, create=True) as log:
        accepted, _ = fill(log, 300)
    rotate(str(path), KEY, HeadLocation.of(path), archive=None, reason="full", now=10**18)
    with Log.open(path, KEY) as log:
        assert len(log.policies_of_all()) == accepted
        assert log.append_many([b"entry"], use("s0"))
        with pytest.raises(ConfigurationError, match="has no room"):
            log.append_many([b"entry"], use("one-more"))
    for name in ("audit.db", "audit.db-wal", "audit.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    accept_reset(str(path), KEY, HeadLocation.of(path), reason="the disk was lost", now=10**18)
    with Log.open(path, KEY) as log:
        assert log.append_many([b"entry"], use("s0"))
        with pytest.raises(ConfigurationError, match="are of epoch 0"):
            log.append_many([b"entry"], use("s0", 0))


def test_a_group_of_threads_is_refused_one_by_one(tmp_path: Path) -> None:
    """Of two that wait for one commit, the set that the log knows is logged."""
    with Log.open(tmp_path / "audit.db", KEY, create=True) as log:
        fill(log, 300)
        known, new = log._seen.policies, use("one-more")
        waiters = [Waiter([b"a"], use("s0")), Waiter([b"b"], new), Waiter([b"c"], None)]
        for waiter in waiters:
            log._queue.add(waiter)
        log._lead()
        assert [waiter.problem is None for waiter in waiters] == [True, False, True]
        assert log._seen.policies == known


def test_a_head_file_that_is_over_full_stops_the_log_before_the_commit(tmp_path: Path) -> None:
    """As the former version left it: nothing is added without a receipt."""
    path = tmp_path / "audit.db"
    with Log.open(path, KEY, create=True) as log:
        log.append(b"entry")
        policies = {f"set{number}": PolicyHead(1, "0" * 64) for number in range(300)}
        log._seen.policies = policies
        with pytest.raises(ConfigurationError, match="has no room"):
            log.append(b"entry")
    with Log.open(path, KEY) as log:
        assert log.append(b"entry").index == 1
