"""Readers read whatever guards wrote: nothing blinds them; and they need no right to write."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from policyguard.attest.statement import MAX_STATEMENT_BYTES, parse_statement
from policyguard.audit.check import check_log
from policyguard.audit.log import Log
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import AuditError, ConfigurationError
from policyguard.fs.mounts import shared_file_system
from policyguard.hooks.launcher.refusals import log_undecided
from policyguard.model.request import Request
from tests.attacks.test_log_continuity import KEY, Lab, ask, entries

ROOT = Path(__file__).parents[2]
NOBODY = 65_533


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


# ---- one request does not blind the auditors


@pytest.mark.parametrize("count", [5_000, 8_000, 20_000])
def test_a_request_of_many_attributes_is_denied_and_stays_readable(lab: Lab, count: int) -> None:
    """`blind.py`: 49 KB of unknown attributes made an entry that nobody could read past."""
    attributes: dict[str, Any] = {f"k{n}": 1 for n in range(count)}
    with lab.guard() as guard:
        signed = guard.decide(Request.of("user:mallory", "job:submit", "job:team/vision/x", **attributes))
        ask(guard)
    assert not signed.decision.allowed
    assert len(signed.envelope.payload) <= MAX_STATEMENT_BYTES
    predicate = parse_statement(signed.envelope.payload).predicate
    assert predicate.reason_codes == ("engine.oversized",)
    assert f"{count} facts" in predicate.missing["request"]
    assert "oversized" in signed.decision.explain()


def test_a_request_of_few_attributes_is_recorded_whole(lab: Lab) -> None:
    """The twin."""
    with lab.guard() as guard:
        signed = guard.decide(Request.of("user:mallory", "job:submit", "job:team/vision/x", unknown=1))
    assert parse_statement(signed.envelope.payload).predicate.reason_codes == ("engine.malformed",)


# ---- auditors without the right to write

READ = """
import os, sys
import policyguard.audit.stores.reading
from policyguard.audit.check import check_log
from policyguard.audit.stores.sqlite import SqliteStore
# The interpreter may lie where only its own account reads: everything is imported by now.
os.setgroups([]); os.setgid(65533); os.setuid(65533)
with SqliteStore.open(sys.argv[1], read_only=True) as store:
    print(check_log(store, None).checkpoint.size)
"""

as_another_account = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")


def read_as_nobody(log: Path) -> subprocess.CompletedProcess[str]:
    for folder in (*log.parents, log.parent):
        if folder.stat().st_uid == os.geteuid() and folder not in (Path("/"), Path("/tmp")):
            folder.chmod(folder.stat().st_mode | 0o055)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", READ, str(log)], capture_output=True, text=True, timeout=60, check=False, env=environment
    )


@as_another_account
@pytest.mark.parametrize("state", ["closed", "open", "killed"])
def test_another_account_verifies_a_log_that_it_may_only_read(lab: Lab, state: str) -> None:
    """Closed: no WAL. Open: a guard holds it. Killed: the WAL holds entries, and nobody has the file open."""
    lab.decide(2)
    guard = lab.guard()
    if state == "open":
        ask(guard)
    if state == "killed":
        copies = lab.folder / "copies"
        copies.mkdir()
        ask(guard)
        for path in lab.files():
            if not path.name.endswith("-shm"):
                (copies / path.name).write_bytes(path.read_bytes())
        lab.log = copies / "audit.db"
    for path in lab.files():
        path.chmod(0o644)
    ended = read_as_nobody(lab.log)
    guard.close()
    assert (ended.returncode, ended.stdout.strip()) == (0, "2" if state == "closed" else "3"), ended.stderr
    assert not Path(f"{lab.log}-journal").exists()


@as_another_account
def test_a_group_reads_a_closed_log_in_a_folder_that_it_may_not_write(lab: Lab) -> None:
    """Nothing lies beside the log, so it is read as immutable: "is not in WAL mode", said the log, which is."""
    lab.decide(2)
    os.chown(lab.log, os.geteuid(), NOBODY)
    lab.log.chmod(0o640)
    for suffix in ("-wal", "-shm"):
        Path(f"{lab.log}{suffix}").unlink(missing_ok=True)
    ended = read_as_nobody(lab.log)
    assert (ended.returncode, ended.stdout.strip()) == (0, "2"), ended.stderr


@as_another_account
def test_a_log_in_another_mode_is_refused_to_a_reader_who_may_not_write(lab: Lab) -> None:
    """The twin: someone switched the file to a rollback journal."""
    lab.decide(2)
    with closing(sqlite3.connect(lab.log)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    lab.log.chmod(0o644)
    ended = read_as_nobody(lab.log)
    assert ended.returncode != 0
    assert "is not in WAL mode" in ended.stderr


@as_another_account
def test_another_account_cannot_read_a_private_log(lab: Lab) -> None:
    """The twin: mode 0600 stays mode 0600."""
    lab.decide()
    ended = read_as_nobody(lab.log)
    assert ended.returncode != 0
    assert "AuditError" in ended.stderr


# ---- modes and file systems


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o666, 0o604, 0o750])
def test_a_log_that_others_may_read_or_change_is_refused(lab: Lab, mode: int) -> None:
    lab.decide()
    lab.log.chmod(mode)
    with pytest.raises(AuditError, match=f"has mode {mode:04o}, expected 0640 or narrower") as caught:
        lab.decide()
    assert caught.value.help == f"chmod 640 {lab.log}"
    assert entries(lab.log) == 1


@pytest.mark.parametrize("mode", [0o640, 0o600])
def test_a_log_that_a_group_may_read_is_written(lab: Lab, mode: int) -> None:
    lab.decide()
    lab.log.chmod(mode)
    assert lab.decide() == [1]


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("nfs4", True),
        ("lustre", True),
        ("fuse.sshfs", True),
        ("9p", True),
        ("cifs", True),
        ("ext4", False),
        ("xfs", False),
    ],
)
def test_a_log_on_a_file_system_of_other_machines_is_refused(
    lab: Lab, kind: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = lab.folder.stat().st_dev
    mounts = lab.folder / "mountinfo"
    mounts.write_text(f"26 1 {os.major(device)}:{os.minor(device)} / / rw,relatime shared:1 - {kind} server:/x rw\n")
    assert shared_file_system(lab.folder, str(mounts)) == (kind if refused else None)
    monkeypatch.setattr(
        "policyguard.audit.stores.location.shared_file_system", lambda path: shared_file_system(path, str(mounts))
    )
    if refused:
        with pytest.raises(ConfigurationError, match=f"lies on `{kind}`") as caught:
            lab.decide()
        assert "PostgreSQL" in str(caught.value.help)
        assert not lab.log.exists()
    else:
        lab.decide()


# ---- a locked log


def test_a_locked_log_is_waited_for_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook waited ten seconds to open the log, and ten more to log its refusal."""
    opened: Any = Log.open
    monkeypatch.setitem(opened.__func__.__kwdefaults__, "wait_s", 1.0)
    lab.decide()
    request = Request.of("user:alice", "job:submit", "job:team/vision/x")
    with closing(sqlite3.connect(lab.log, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        with pytest.raises(AuditError, match="is locked") as caught:
            lab.decide()
        log_undecided(request, caught.value, key=lab.folder / "guard.key", log=lab.log, audience="local")
        assert 0.9 < time.monotonic() - start < 1.8
    assert lab.decide() == [1]


# ---- what mutants showed


def test_a_log_of_another_origin_is_refused_by_every_way_to_open_it(lab: Lab) -> None:
    lab.decide()
    for open_ in (
        lambda: SqliteStore.open(lab.log, origin="other"),
        lambda: SqliteStore.open(lab.log, origin="other", read_only=True),
        lambda: Log.open(lab.log, KEY, "other"),
    ):
        with pytest.raises(AuditError, match="is of origin"):
            open_()
    with SqliteStore.open(lab.log, read_only=True) as store, pytest.raises(AuditError, match="is of origin"):
        Log.open(store, KEY, "other")


def test_a_reader_cannot_append(lab: Lab) -> None:
    lab.decide()
    with SqliteStore.open(lab.log, read_only=True) as store:
        with pytest.raises(AuditError, match=r"readonly|read-only"):
            store.append(lambda _: [structs.replace(next(iter(store.read(0, 1))), entry=1)])
        assert check_log(store, None).checkpoint.size == 1
