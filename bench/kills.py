"""Kill writers of a log at random moments, and count the acknowledged entries that are not in it afterwards.

    python -m bench.kills [KILLS] [SEED]

Each round forks two writers on one log; each writes down, in a pipe, the index and digest of a decision once its
receipt is released, and is killed by SIGKILL within some milliseconds: while it opens, makes, locks, commits, or writes
the head file. Then the log is opened again, as a hook would, and everything is compared.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey
from policyguard.audit.check import check_log
from policyguard.audit.head import HeadLocation, read_head
from policyguard.audit.log import Log
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.guard import Guard, log_origin
from policyguard.model.request import Request
from policyguard.policy_store.folder import snapshot_of_text

POLICIES = """\
apiVersion: policyguard/v1
kind: Schema
metadata: {name: kills, epoch: 3}
subjects: {user: {}}
resources: {job: {id: "team/{team}/**", actions: [submit]}}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs, owner: platform}
rules:
  - {id: any, effect: allow, actions: [job:submit], resources: {type: job}}
"""
WRITERS = 2
LONGEST_S = 0.15
KEY = PrivateKey.generate(bytes(range(32)))
SNAPSHOT = snapshot_of_text(POLICIES)
REQUEST = Request.of("user:alice", "job:submit", "job:team/vision/x")


def kill_writers(path: Path, kills: int, seed: int) -> tuple[dict[int, str], list[str]]:
    """Run the rounds; return the acknowledged entries, and the complaints of a log that is opened afterwards."""
    chance, acknowledged, complaints = random.Random(seed), dict[int, str](), list[str]()
    for _ in range(kills // WRITERS):
        children = [_start(path) for _ in range(WRITERS)]
        for child, _ in children:
            time.sleep(chance.uniform(0, LONGEST_S))
            os.kill(child, signal.SIGKILL)
        for child, pipe in children:
            os.waitpid(child, 0)
            with open(pipe, "rb") as lines:
                for line in lines.read().split(b"\n")[:-1]:
                    if line.startswith(b"refused"):
                        complaints.append(line.decode())
                        continue
                    index, digest = line.decode().split()
                    acknowledged[int(index)] = digest
    return acknowledged, complaints


def _start(path: Path) -> tuple[int, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        with Guard(SNAPSHOT, KEY, Log.open(path, KEY, create=True)) as guard:
            while True:
                signed = guard.decide(REQUEST)
                digest = hashlib.sha256(signed.envelope.to_bytes()).hexdigest()
                os.write(writing, f"{signed.receipt.index} {digest}\n".encode())
    except BaseException as problem:  # noqa: BLE001 - the parent reports it
        os.write(writing, f"refused {type(problem).__name__}: {problem}\n".encode())
    finally:
        os._exit(1)


def lost_entries(path: Path, acknowledged: dict[int, str]) -> tuple[int, list[int]]:
    """Check the whole log and its head; return its size and the acknowledged entries that are not in it."""
    origin = log_origin(KEY.public)
    head = read_head(HeadLocation.of(path), origin)
    notes = [head.note.encode()] if head is not None and head.note is not None else []
    with SqliteStore.open(path, read_only=True) as store:
        size = check_log(store, (NoteKey(origin, KEY.public),), notes).checkpoint.size
        stored = {row.entry: hashlib.sha256(row.leaf).hexdigest() for row in store.read(0, size)}
    return size, [index for index, digest in acknowledged.items() if stored.get(index) != digest]


def main() -> int:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory(prefix="policyguard-kills-") as folder:
        path = Path(folder, "audit.db")
        acknowledged, complaints = kill_writers(path, kills, seed)
        size, lost = lost_entries(path, acknowledged)
    for complaint in sorted(set(complaints))[:10]:
        print(complaint)
    print(
        f"{kills} kills, {size} entries, {len(acknowledged)} acknowledged, {len(lost)} lost, {len(complaints)} refused"
    )
    return 1 if lost or complaints else 0


if __name__ == "__main__":
    sys.exit(main())
