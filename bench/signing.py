"""From a decision to signed and durable bytes, beside the bare signature and the bare durable append."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.decide import Effort, lab, snapshot
from bench.documents import NOW, facts
from bench.report import Section, Target, times, us
from bench.timing import Contestant, race
from policyguard.attest.dsse import pae, sign
from policyguard.attest.keys import PrivateKey
from policyguard.attest.statement import PAYLOAD_TYPE, decision_statement
from policyguard.audit.batch import sign_batch
from policyguard.audit.log import Log
from policyguard.audit.stores.sqlite import PAGE_BYTES
from policyguard.decide.engine import Engine
from policyguard.model.decision import Decision

SEED = bytes(range(32))
"""A key for measuring; signing time does not depend on it."""

GROUP = 64
BATCH = 1_024
RULES = 1_000
LIFETIME = 900 * 10**9


def decisions() -> list[Decision]:
    """Return a decision on each question of the lab of 1,000 rules, with its statement never made before."""
    return [Engine(snapshot(RULES)).decide(facts(question), NOW) for question in lab(RULES).questions]


def statement(decision: Decision) -> bytes:
    """Return the statement's bytes as `Guard` makes them."""
    request = decision.facts.request
    compiled = snapshot(RULES)
    return decision_statement(
        decision,
        request,
        decision_id=os.urandom(16).hex(),
        audience="bench",
        issued_at=NOW,
        not_before=NOW,
        expires=NOW + LIFETIME,
        recorded_paths=compiled.facts_read_by(decision),
        sensitive=compiled.sensitive(request),
    )


def signed(decision: Decision, key: PrivateKey) -> bytes:
    """Return the envelope's bytes."""
    return sign(statement(decision), PAYLOAD_TYPE, (key,)).to_bytes()


def signing(effort: Effort) -> Section:
    """Return the cost of a signed decision beside Ed25519 alone over the same bytes, and of 1,024 under one root."""
    key, bare = PrivateKey.generate(SEED), Ed25519PrivateKey.from_private_bytes(SEED)
    made = decisions()
    payloads = [statement(decision) for decision in made]
    thousand = [statement(made[n % len(made)]) for n in range(BATCH)]
    contestants = {
        "bare Ed25519 signature": Contestant(bare.sign, [pae(PAYLOAD_TYPE, payload) for payload in payloads]),
        "decision to signed envelope": Contestant(lambda decision: signed(decision, key), made),
        f"{BATCH:,} statements, signed each": Contestant(_one_by_one(key), [thousand]),
        f"{BATCH:,} statements, one root": Contestant(_together(key), [thousand]),
    }
    race(contestants, rounds=effort.rounds, budget_s=effort.budget_s)
    plain, ours, apart, rooted = contestants.values()
    section = _section("Signing", contestants)
    section.targets = [
        Target("signed decision, times the bare signature", ours.ratio_to(plain), 1.35),
        Target(f"{BATCH:,} under one root with proofs, times cheaper", apart.ratio_to(rooted), 5, True),
    ]
    size = sum(map(len, payloads)) // len(payloads)
    section.notes.append(f"statements of {size:,} bytes on average; lab of {RULES:,} rules")
    return section


def _one_by_one(key: PrivateKey) -> Callable[[Sequence[bytes]], object]:
    return lambda payloads: [sign(payload, PAYLOAD_TYPE, (key,)) for payload in payloads]


def _together(key: PrivateKey) -> Callable[[Sequence[bytes]], object]:
    return lambda payloads: sign_batch(payloads, PAYLOAD_TYPE, (key,))


def logging(effort: Effort, scratch: Path) -> Section:
    """Return the cost of a signed, durably logged decision beside a bare durable append of the same bytes."""
    key = PrivateKey.generate(SEED)
    made = decisions()
    envelopes = [signed(decision, key) for decision in made]
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=scratch) as folder:
        log = _log(Path(folder, "log.db"), key)
        contestants = {
            "bare SQLite append (WAL, synchronous=FULL)": Contestant(_bare_sqlite(Path(folder, "bare.db")), envelopes),
            "bare file append and fsync": Contestant(_bare_file(Path(folder, "bare.log")), envelopes),
            "signed and logged": Contestant(lambda decision: log.append(signed(decision, key)), made),
            f"signed and logged, groups of {GROUP} under one root": Contestant(_rooted(log, key), [made[:GROUP]]),
            f"signed each and logged, groups of {GROUP}": Contestant(_grouped(log, key), [made[:GROUP]]),
        }
        # A disk drifts faster than a processor: more turns, shorter ones.
        race(contestants, rounds=effort.rounds * 5, budget_s=effort.budget_s / 5)
    bare, _, alone, rooted, _ = contestants.values()
    section = _section("Signed and durable", contestants)
    section.targets = [
        Target("signed and logged, times the bare SQLite append", alone.ratio_to(bare), 1.3),
        Target(f"rate in groups of {GROUP}, times one at a time", alone.ratio_to(rooted) * GROUP, 10, True),
    ]
    section.notes.append("a group's time is for all of it")
    return section


def _log(path: Path, key: PrivateKey) -> Log:
    """Open a new log with its head file, as a guard does."""
    return Log.open(path, key, "bench.example/log", create=True)


def _grouped(log: Log, key: PrivateKey) -> Callable[[Sequence[Decision]], object]:
    return lambda group: log.append_many([signed(decision, key) for decision in group])


def _rooted(log: Log, key: PrivateKey) -> Callable[[Sequence[Decision]], object]:
    """Make the function that logs groups of decisions as `Guard.issue_many` does."""

    def append(group: Sequence[Decision]) -> object:
        envelopes = sign_batch([statement(decision) for decision in group], PAYLOAD_TYPE, (key,))
        return log.append_many([envelope.to_bytes() for envelope in envelopes])

    return append


def _bare_sqlite(path: Path) -> Callable[[bytes], object]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE entries (idx INTEGER PRIMARY KEY, leaf BLOB NOT NULL)")
    return lambda data: connection.execute("INSERT INTO entries (leaf) VALUES (?)", (data,))


def _bare_file(path: Path) -> Callable[[bytes], object]:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(data: bytes) -> None:
        os.write(handle, data)
        os.fsync(handle)

    return append


def _section(title: str, contestants: dict[str, Contestant]) -> Section:
    first = next(iter(contestants.values()))
    section = Section(title, ("", "p50", "p99", "x first row", "calls"))
    for name, contestant in contestants.items():
        ratio = "" if contestant is first else times(contestant.ratio_to(first))
        section.rows.append((name, us(contestant.p50_us), us(contestant.p99_us), ratio, f"{contestant.calls:,}"))
    return section
