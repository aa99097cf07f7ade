"""Attacks on single use: one decision must start one job, whatever threads, processes, forks and clocks do (V11)."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from policyguard.audit.stores.used import UsedDecisions
from policyguard.errors import AuditError
from policyguard.values import NANOSECONDS_PER_S

FAR = 4_000_000_000 * NANOSECONDS_PER_S
DAY = 86_400 * NANOSECONDS_PER_S
NOW = 1_900_000_000 * NANOSECONDS_PER_S
OTHER = """
import sys
from policyguard.audit.stores.used import UsedDecisions
with UsedDecisions.open(sys.argv[1]) as used:
    print([used.use(name, int(sys.argv[2])) for name in sys.argv[3:]])
"""


def elsewhere(path: Path, *names: str) -> list[bool]:
    """Use these decisions in another process."""
    ended = subprocess.run(
        [sys.executable, "-c", OTHER, str(path), str(FAR), *names], capture_output=True, text=True, check=True
    )
    return [word == "True" for word in ended.stdout.strip("[]\n").split(", ")]


def test_two_stores_on_one_file_in_one_process(tmp_path: Path) -> None:
    """Opening a second store took this process's locks away, and another process then removed the WAL."""
    path = tmp_path / "used.db"
    with UsedDecisions.open(path) as one, UsedDecisions.open(path) as two:
        assert one.use("first", FAR)
        assert elsewhere(path, "second") == [True]
        assert one.use("the decision", FAR)
        assert not two.use("the decision", FAR)
        assert elsewhere(path, "the decision") == [False]
        assert not two.use("second", FAR)
        two.close()
        assert elsewhere(path, "third") == [True]
        assert not one.use("third", FAR)
        assert one.use("fourth", FAR)
    assert elsewhere(path, "fourth", "first", "fifth") == [False, False, True]


def test_two_paths_to_one_file(tmp_path: Path) -> None:
    """A hard link, a relative path and a linked folder lead to the same store."""
    path = tmp_path / "used.db"
    (tmp_path / "link").symlink_to(tmp_path)
    with UsedDecisions.open(path) as one, UsedDecisions.open(tmp_path / "link" / "used.db") as two:
        assert one._database is two._database
        assert one.use("d", FAR)
        assert not two.use("d", FAR)
        assert elsewhere(path, "d") == [False]


def test_four_threads_on_one_store(tmp_path: Path) -> None:
    """Transactions of threads do not mix: each decision starts one job, and no thread fails."""
    with UsedDecisions.open(tmp_path / "used.db") as used, ThreadPoolExecutor(4) as pool:
        for number in range(50):
            start = threading.Barrier(4)

            def work(_: int, name: str = f"d-{number}", start: threading.Barrier = start) -> bool:
                start.wait()
                return used.use(name, FAR)

            assert sorted(pool.map(work, range(4))) == [False] * 3 + [True]


def test_threads_times_processes(tmp_path: Path) -> None:
    """Three processes and four threads race for the same decisions, with stores that open and close all the time."""
    path, names = tmp_path / "used.db", [f"d-{number}" for number in range(30)]
    started: list[str] = []

    def work(_: int) -> None:
        for name in names:
            with UsedDecisions.open(path) as used:
                if used.use(name, FAR):
                    started.append(name)

    others = [
        subprocess.Popen([sys.executable, "-c", OTHER, str(path), str(FAR), *names], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    for other in others:
        answers = other.communicate(timeout=60)[0].strip("[]\n").split(", ")
        started += [name for name, answer in zip(names, answers, strict=True) if answer == "True"]
    assert sorted(started) == sorted(names)


@pytest.mark.parametrize("jump", [DAY, 400 * DAY, FAR], ids=["two days", "a year", "far"])
def test_a_clock_that_jumps_ahead_and_back(tmp_path: Path, jump: int) -> None:
    """What was forgotten while the clock was wrong is refused afterwards, and new decisions count again soon."""
    now = [NOW]
    ends = NOW + 900 * NANOSECONDS_PER_S
    with UsedDecisions.open(tmp_path / "used.db", clock=lambda: now[0], min_remembered=8) as used:
        assert all(used.use(f"d-{number}", ends + number) for number in range(20))
        now[0] += jump + DAY
        assert used.use("while-wrong", now[0] + 1)
        now[0] = NOW
        for number in range(20):
            with suppress(AuditError):
                assert not used.use(f"d-{number}", ends + number)
        # The twin: a decision that lasts longer than those forgotten.
        assert used.use("new", ends + DAY)


def test_a_clock_that_jumps_forgets_nothing_of_a_store_of_ordinary_size(tmp_path: Path) -> None:
    """Below the limit nothing is forgotten, so no decision is refused by mistake either."""
    now = [NOW]
    with UsedDecisions.open(tmp_path / "used.db", clock=lambda: now[0]) as used:
        assert used.use("d", NOW + 1)
        now[0] = FAR
        assert used.use("e", FAR)
        now[0] = 0
        assert not used.use("d", NOW + 1)
        assert used.use("f", 1)


def _moved(path: Path) -> None:
    path.rename(path.with_suffix(".old"))


def _without_wal(path: Path) -> None:
    path.with_name("used.db-wal").unlink()


@pytest.mark.parametrize("change", [_moved, Path.unlink, _without_wal], ids=["moved", "removed", "WAL removed"])
def test_a_store_whose_file_is_gone_lets_nothing_start(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """What would be written to a removed file stops no other process. The twin is the file at its place."""
    path = tmp_path / "used.db"
    with UsedDecisions.open(path) as used:
        assert used.use("d", FAR)
        change(path)
        with pytest.raises(AuditError, match="was moved, removed or replaced"):
            used.use("e", FAR)
    with UsedDecisions.open(tmp_path / "other.db") as twin:
        assert twin.use("e", FAR)


def test_a_store_is_not_carried_over_a_fork(tmp_path: Path) -> None:
    """A child has none of its parent's locks, and SQLite in it believes that it has; a file of its own is the twin."""
    path = tmp_path / "used.db"
    script = f"""
import os
from contextlib import suppress
from policyguard.audit.stores.used import UsedDecisions
from policyguard.errors import AuditError
used = UsedDecisions.open({str(path)!r})
assert used.use("parent", {FAR})
child = os.fork()
if not child:
    refusals = []
    for attempt in (lambda: used.use("child", {FAR}), lambda: UsedDecisions.open({str(path)!r})):
        try:
            attempt()
        except AuditError as refusal:
            refusals.append("when this process was forked" in refusal.message)
    with UsedDecisions.open({str(path)!r} + ".twin") as twin:
        os._exit(0 if refusals == [True, True] and twin.use("child", {FAR}) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert used.use("child", {FAR})
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert elsewhere(path, "child", "parent") == [False, False]


def test_a_log_is_not_carried_over_a_fork(tmp_path: Path) -> None:
    """The same holds for the decision log: a child could add entries to a WAL that its parent's peers remove."""
    path = tmp_path / "audit.db"
    script = f"""
import os
from policyguard.attest.keys import PrivateKey
from policyguard.audit.log import Log
from policyguard.errors import AuditError
key = PrivateKey.generate(bytes(32))
Log.open({str(path)!r} + ".closed", key, create=True).close()
log = Log.open({str(path)!r}, key, create=True)
log.append(b"parent")
child = os.fork()
if not child:
    refusals = []
    for attempt in (lambda: log.append(b"child"), lambda: Log.open({str(path)!r}, key)):
        try:
            attempt()
        except AuditError as refusal:
            refusals.append("when this process was forked" in refusal.message)
    log.close()
    with Log.open({str(path)!r} + ".closed", key) as twin:
        os._exit(0 if refusals == [True, True] and twin.append(b"child").index == 0 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert log.append(b"parent again").index == 1
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def older_copy(path: Path) -> None:
    """Put the store back as it was before its last use, as a restored backup does."""
    path.write_bytes(path.with_name("backup").read_bytes())


@pytest.mark.parametrize("state", [None, "state"])
@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (older_copy, "has recorded 1 uses, expected at least 2, as head file"),
        (Path.unlink, "is gone, expected the 2 uses that head file"),
        (lambda path: path.write_bytes(b""), "has recorded 0 uses, expected at least 2"),
    ],
    ids=["an older copy", "removed", "emptied"],
)
def test_an_older_store_forgets_no_decision(
    tmp_path: Path, change: Callable[[Path], None], refusal: str, state: str | None
) -> None:
    """A decision that started a job would start another one; a store that goes on is the twin."""
    path, state_dir = tmp_path / "used.db", None if state is None else tmp_path / state
    with UsedDecisions.open(path, state_dir=state_dir) as used:
        assert used.use("first", FAR)
    path.with_name("backup").write_bytes(path.read_bytes())
    with UsedDecisions.open(path, state_dir=state_dir) as used:
        assert used.use("second", FAR)
    newest = path.read_bytes()
    change(path)
    for name in ("second", "third"):
        with pytest.raises(AuditError, match=refusal), UsedDecisions.open(path, state_dir=state_dir) as used:
            used.use(name, FAR)
    path.write_bytes(newest)
    path.chmod(0o600)
    with UsedDecisions.open(path, state_dir=state_dir) as used:
        assert not used.use("second", FAR)
        assert used.use("third", FAR)


def test_a_store_without_its_head_file_is_a_copy(tmp_path: Path) -> None:
    """Without it nobody can say whether the store is the newest. A store of 0.1.0, which counted nothing, gets one."""
    path = tmp_path / "used.db"
    with UsedDecisions.open(path) as used:
        assert used.use("first", FAR)
    head = next(tmp_path.glob("*.head"))
    away = head.rename(tmp_path / "away")
    with UsedDecisions.open(path) as used, pytest.raises(AuditError, match="has recorded 1 uses and no head file"):
        used.use("second", FAR)
    head.unlink(missing_ok=True)
    away.rename(head)
    with UsedDecisions.open(path) as used:
        assert used.use("second", FAR)
    former = tmp_path / "former.db"
    with sqlite3.connect(former) as connection:
        connection.execute("CREATE TABLE used (decision_id TEXT PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID")
        connection.execute("PRAGMA application_id=0x70677573")
        connection.execute("INSERT INTO used VALUES ('first', ?)", (FAR,))
    connection.close()
    former.chmod(0o600)
    with UsedDecisions.open(former) as used:
        assert not used.use("first", FAR)
        assert used.use("second", FAR)


def test_an_older_store_forgets_no_revocation_list(tmp_path: Path) -> None:
    """The highest sequence of a list is in the store as well; a list used again counts nothing."""
    path = tmp_path / "used.db"
    with UsedDecisions.open(path) as used:
        assert used.remember_list(["key"], 1) == 1
        assert used.remember_list(["key"], 1) == 1
    path.with_name("backup").write_bytes(path.read_bytes())
    with UsedDecisions.open(path) as used:
        assert used.remember_list(["key"], 2) == 2
    older_copy(path)
    with UsedDecisions.open(path) as used, pytest.raises(AuditError, match="has recorded 1 uses, expected at least 2"):
        used.remember_list(["key"], 1)


@pytest.mark.parametrize("mode", [0o666, 0o660, 0o604])
def test_a_store_that_others_may_change(tmp_path: Path, mode: int) -> None:
    """Others could remove an id from it. The twin has the mode that the store is made with."""
    path = tmp_path / "used.db"
    UsedDecisions.open(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(mode)
    with pytest.raises(AuditError, match=r"single-use store .*has mode 06.., expected 0640 or narrower"):
        UsedDecisions.open(path)
    path.chmod(0o600)
    UsedDecisions.open(path).close()


def test_a_link_is_no_store(tmp_path: Path) -> None:
    """Whoever may change the link chooses the store."""
    UsedDecisions.open(tmp_path / "used.db").close()
    (tmp_path / "link.db").symlink_to("used.db")
    with pytest.raises(AuditError, match="is not a regular file"):
        UsedDecisions.open(tmp_path / "link.db")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(AuditError, match="is not a regular file"):
        UsedDecisions.open(tmp_path / "fifo")


def test_an_empty_id_and_a_closed_store_start_nothing(tmp_path: Path) -> None:
    """The empty id is the store's own; the twin has one."""
    with UsedDecisions.open(tmp_path / "used.db") as used:
        with pytest.raises(AuditError, match="empty decision id"):
            used.use("", FAR)
        assert used.use(" ", FAR)
    with pytest.raises(AuditError, match="is closed"):
        used.use("d", FAR)
    used.close()
