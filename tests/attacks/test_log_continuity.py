"""The log goes on, or it is refused: moved, deleted, cut, an older copy put back, forked; by guards and by new ones."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from policyguard.attest.keys import PrivateKey
from policyguard.audit.check import check_log
from policyguard.audit.log import RESET, Log
from policyguard.audit.stores import Row
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import AuditError
from policyguard.guard import Guard
from policyguard.keyfiles import write_private_key
from policyguard.model.request import Request

KEY = PrivateKey.generate(bytes(range(32)))
POLICIES = """\
apiVersion: policyguard/v1
kind: Schema
metadata: {name: lab, epoch: 1}
subjects: {user: {}}
resources: {job: {id: "team/{team}/**", actions: [submit]}}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs, owner: platform}
rules:
  - {id: any, effect: allow, actions: [job:submit], resources: {type: job}}
"""


class Lab:
    """Policies, a key and a log, as a guard's account has them; a new guard stands for each run of a hook."""

    def __init__(self, folder: Path, state: str | None = None) -> None:
        self.folder = folder
        (folder / "policies").mkdir()
        (folder / "policies" / "p.yaml").write_text(POLICIES)
        write_private_key(folder / "guard.key", KEY)
        (folder / "logs").mkdir()
        self.log = folder / "logs" / "audit.db"
        self.state = None if state is None else folder / state

    def guard(self, log: Path | None = None) -> Guard:
        return Guard.open(
            self.folder / "policies", key=self.folder / "guard.key", log=log or self.log, state_dir=self.state
        )

    def decide(self, count: int = 1, log: Path | None = None) -> list[int]:
        with self.guard(log) as guard:
            return [ask(guard) for _ in range(count)]

    def files(self, log: Path | None = None) -> list[Path]:
        return [path for suffix in ("", "-wal", "-shm") if (path := Path(f"{log or self.log}{suffix}")).exists()]


def ask(guard: Guard) -> int:
    return guard.decide(Request.of("user:alice", "job:submit", "job:team/vision/x")).receipt.index


def entries(log: Path) -> int:
    with SqliteStore.open(log, read_only=True) as store:
        return check_log(store, None).checkpoint.size


@pytest.fixture(params=[None, "state"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Lab:
    return Lab(tmp_path, request.param)


def move(lab: Lab) -> None:
    for path in lab.files():
        path.rename(f"{path}.moved")


def move_the_file_alone(lab: Lab) -> None:
    lab.log.rename(lab.log.with_name("audit.db.1"))


def delete(lab: Lab) -> None:
    for path in lab.files():
        path.unlink()


def delete_the_file_alone(lab: Lab) -> None:
    lab.log.unlink()


def cut_in_place(lab: Lab) -> None:
    os.truncate(lab.log, 0)


def put_back_an_older_copy(lab: Lab) -> None:
    delete(lab)
    for path in (lab.folder / "older").iterdir():
        shutil.copyfile(path, lab.log.parent / path.name)
        (lab.log.parent / path.name).chmod(0o600)


def put_an_older_copy_over_it(lab: Lab) -> None:
    """In place, so that the inode stays."""
    for path in (lab.folder / "older").iterdir():
        shutil.copyfile(path, lab.log.parent / path.name)


def begin_another(lab: Lab) -> None:
    """Another log of the same origin and key, as long as the first."""
    other = lab.folder / "other"
    other.mkdir()
    with Log.open(other / "audit.db", KEY, create=True) as log:
        for _ in range(3):
            log.append(b"{}")
    delete(lab)
    (other / "audit.db").rename(lab.log)


def remove_the_wal(lab: Lab) -> None:
    Path(f"{lab.log}-wal").unlink()


def cut_the_wal(lab: Lab) -> None:
    os.truncate(f"{lab.log}-wal", 0)


GONE, SHORTER, FORK = "is gone, expected the 3 entries", "has 1 entries, expected at least 3", "it is a fork of"
EXCHANGES: dict[Callable[[Lab], None], tuple[str, str, int | None]] = {
    move: ("audit.db` is gone", GONE, None),
    move_the_file_alone: ("audit.db` is gone", GONE, None),
    delete: ("audit.db` is gone", GONE, None),
    delete_the_file_alone: ("audit.db` is gone", GONE, None),
    cut_in_place: ("audit.db` was cut from", GONE, None),
    put_back_an_older_copy: ("audit.db` was replaced", SHORTER, 1),
    begin_another: ("audit.db` was replaced", FORK, 3),
}
"""What a running guard says, what a new one says, and how many entries are at the path afterwards (None: no log)."""


def prepare(lab: Lab) -> None:
    """One entry, a copy of the log then, and two more."""
    lab.decide()
    (lab.folder / "older").mkdir()
    for path in lab.files():
        shutil.copyfile(path, lab.folder / "older" / path.name)
    lab.decide(2)


OF_RUNNING = {case: refusal for case, (refusal, _, _) in EXCHANGES.items()} | {
    remove_the_wal: "audit.db-wal` is gone",
    cut_the_wal: "audit.db-wal` was cut from",
}
OF_NEW = {case: (refusal, size) for case, (_, refusal, size) in EXCHANGES.items()} | {
    put_an_older_copy_over_it: (SHORTER, 1)
}


@pytest.mark.parametrize(("exchange", "refusal"), OF_RUNNING.items(), ids=[case.__name__ for case in OF_RUNNING])
def test_running_guard_adds_nothing_to_a_log_that_was_exchanged(
    lab: Lab, exchange: Callable[[Lab], None], refusal: str
) -> None:
    """`rename.py`: what was acknowledged after the file was moved was in no file."""
    prepare(lab)
    with lab.guard() as guard:
        ask(guard)
        exchange(lab)
        for _ in range(2):
            with pytest.raises(AuditError, match=f"{refusal}.*; nothing was added"):
                ask(guard)


@pytest.mark.parametrize(("exchange", "expected"), OF_NEW.items(), ids=[case.__name__ for case in OF_NEW])
def test_new_hook_does_not_go_on_with_a_log_that_was_exchanged(
    lab: Lab, exchange: Callable[[Lab], None], expected: tuple[str, int | None]
) -> None:
    """A fresh process asks the head file: no fork, no new tree under the old name, however often it is tried."""
    refusal, remaining = expected
    prepare(lab)
    exchange(lab)
    for _ in range(2):
        with pytest.raises(AuditError, match=refusal) as caught:
            lab.decide()
        assert caught.value.help == RESET
    if remaining is None:
        with pytest.raises(AuditError, match=r"does not exist|is empty"):
            entries(lab.log)
    else:
        assert entries(lab.log) == remaining


def test_older_bytes_written_over_an_open_log_lose_nothing_or_are_refused(lab: Lab) -> None:
    """Inode and size stay; SQLite reads the pages from its WAL, or the tree no longer adds up."""
    prepare(lab)
    with lab.guard() as guard:
        last = ask(guard)
        put_an_older_copy_over_it(lab)
        try:
            last = ask(guard)
        except AuditError:
            return
    assert entries(lab.log) == last + 1


def test_a_log_that_was_moved_while_open_says_where_its_entries_are(lab: Lab, tmp_path: Path) -> None:
    """Its entries are in the WAL of its old name: nothing that was acknowledged is lost, and the refusal says so."""
    moved = tmp_path / "audit.db.1"
    with lab.guard() as guard:
        for _ in range(3):
            ask(guard)
        lab.log.rename(moved)
        with pytest.raises(AuditError, match="is gone"):
            ask(guard)
    with pytest.raises(AuditError, match="another kind of SQLite database") as refused:
        SqliteStore.open(moved, read_only=True)
    assert refused.value.help == "if it was moved, move it back to its `-wal` file, and `policyguard audit rotate`"
    moved.rename(lab.log)
    assert lab.decide() == [3]


def test_a_copy_in_another_place_is_not_continued(lab: Lab) -> None:
    """Two logs of one origin would be a split view."""
    prepare(lab)
    elsewhere = lab.folder / "elsewhere"
    elsewhere.mkdir()
    for path in lab.files():
        shutil.copyfile(path, elsewhere / path.name)
        (elsewhere / path.name).chmod(0o600)
    if lab.state is None:
        with pytest.raises(AuditError, match="no head file"):
            lab.decide(log=elsewhere / "audit.db")
        return
    # With one state folder the copy that is continued first is the log; the other one is behind from then on.
    assert lab.decide(log=elsewhere / "audit.db") == [3]
    with pytest.raises(AuditError, match="expected at least 4"):
        lab.decide()


def test_a_head_file_that_was_removed_is_missed(lab: Lab) -> None:
    prepare(lab)
    folder = lab.state or lab.log.parent
    with lab.guard() as guard:
        for path in folder.glob("*.head"):
            path.unlink()
        with pytest.raises(AuditError, match="head file"):
            ask(guard)
    with pytest.raises(AuditError, match="no head file"):
        lab.decide()


def test_a_head_file_that_was_changed_is_refused(lab: Lab) -> None:
    prepare(lab)
    (path,) = (lab.state or lab.log.parent).glob("*.head")
    path.write_bytes(path.read_bytes().replace(b'"note"', b'"nope"'))
    with pytest.raises(AuditError, match="is damaged"):
        lab.decide()


def test_a_log_that_was_left_alone_goes_on(lab: Lab) -> None:
    """The twin: new guards, guards at once, and a moved log whose whole folder is named."""
    prepare(lab)
    with lab.guard() as one, lab.guard() as two:
        assert [ask(one), ask(two), ask(two), ask(one)] == [3, 4, 5, 6]
    assert lab.decide(2) == [7, 8]
    lab.log.parent.rename(lab.folder / "moved")
    assert lab.decide(log=lab.folder / "moved" / "audit.db") == [9]
    assert entries(lab.folder / "moved" / "audit.db") == 10


def test_an_entry_that_was_committed_before_its_head_was_written_is_no_fork(lab: Lab) -> None:
    """A kill between commit and head leaves a head that is one entry old."""
    prepare(lab)
    (path,) = (lab.state or lab.log.parent).glob("*.head")
    before = path.read_bytes()
    lab.decide()
    path.write_bytes(before)
    assert lab.decide() == [4]


def test_the_head_file_is_private(lab: Lab) -> None:
    prepare(lab)
    for path in (lab.state or lab.log.parent).glob("policyguard*"):
        assert path.stat().st_mode & 0o777 == 0o600


NEVER_CLOSED = """
import os, sys
from pathlib import Path
from policyguard.guard import Guard
from tests.attacks.test_log_continuity import ask
folder, log, state = sys.argv[1:]
guard = Guard.open(Path(folder, "policies"), key=Path(folder, "guard.key"), log=log, state_dir=state or None)
for _ in range(5):
    ask(guard)
os._exit(0)
"""


def test_what_a_killed_guard_acknowledged_is_missed(lab: Lab) -> None:
    """The head is written before the receipt is released, not when the guard is closed."""
    prepare(lab)
    words = [str(lab.folder), str(lab.log), str(lab.state or "")]
    subprocess.run([sys.executable, "-c", NEVER_CLOSED, *words], check=True, timeout=60, cwd=Path(__file__).parents[2])
    assert entries(lab.log) == 8
    put_back_an_older_copy(lab)
    with pytest.raises(AuditError, match="has 1 entries, expected at least 8"):
        lab.decide()


CUT = """
import os, sys
from pathlib import Path
from policyguard.guard import Guard
from policyguard.errors import AuditError
from tests.attacks.test_log_continuity import ask
folder, log, state, suffix, when = sys.argv[1:]
guard = Guard.open(folder + "/policies", key=folder + "/guard.key", log=log, state_dir=state or None)
for _ in range(8):
    print(ask(guard), flush=True)
cut = lambda *_: os.truncate(log + suffix, 0)
if when == "within":
    # After the check and before SQLite's next look at its memory: the worst moment.
    guard._log.store._location.check = cut
else:
    cut()
try:
    print(ask(guard), flush=True)
except AuditError as problem:
    print(problem.message, file=sys.stderr)
"""


@pytest.mark.parametrize("suffix", ["-shm", "-wal"])
@pytest.mark.parametrize("when", ["before", "within"])
def test_files_that_are_cut_under_a_guard_lose_nothing_that_it_acknowledged(lab: Lab, suffix: str, when: str) -> None:
    """A `-shm` that is cut between check and use ends the guard (SIGBUS), because SQLite maps it: it allows nothing."""
    words = [str(lab.folder), str(lab.log), str(lab.state or ""), suffix, when]
    ended = subprocess.run(
        [sys.executable, "-c", CUT, *words], check=False, timeout=60, cwd=Path(__file__).parents[2], capture_output=True
    )
    acknowledged = [int(line) for line in ended.stdout.split()]
    assert acknowledged[:8] == list(range(8))
    if when == "before":
        assert f"{suffix}` was cut from" in ended.stderr.decode()
        assert len(acknowledged) == 8
    # Closing the file may still end the process; it has said by then what is wrong.
    assert ended.returncode in (0, -signal.SIGBUS if suffix == "-shm" else 0), ended.stderr
    if suffix == "-shm":
        # The entries are in the WAL; the memory is made anew from it.
        assert entries(lab.log) == len(acknowledged)
        assert lab.decide() == [len(acknowledged)]
    else:
        # What was cut away with the WAL is gone, and the head file says so.
        with pytest.raises(AuditError, match=r"expected at least|another kind of SQLite|is malformed"):
            lab.decide()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", None])
def test_a_log_that_is_taken_away_within_a_transaction_acknowledges_nothing(lab: Lab, suffix: str | None) -> None:
    """After the check and before the commit; the twin is a log that stays."""
    lab.decide()
    with SqliteStore.open(lab.log) as store:
        last = store.last()
        assert last is not None

        def grow(_: Row | None) -> list[Row]:
            if suffix is not None:
                Path(f"{lab.log}{suffix}").rename(f"{lab.log}.away")
            return [structs.replace(last, entry=last.entry + 1, leaf=b"late")]

        if suffix is None:
            store.append(grow)
        else:
            with pytest.raises(AuditError, match=r"is gone.*nothing was released"):
                store.append(grow)
