"""The guard: nothing leaves unsigned or unlogged, any number of threads decide, and reloading never hurts."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.audit.check import check_log
from policyguard.audit.log import Log
from policyguard.audit.stores import Row
from policyguard.audit.stores.memory import MemoryStore
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import AccessDenied, AuditError, ConfigurationError, PolicyErrors, SigningError
from policyguard.guard import Guard
from policyguard.keyfiles import write_private_key
from policyguard.model.facts import Facts
from policyguard.model.request import Request
from policyguard.values import EMPTY_MAP
from policyguard.verify import verify_origin
from tests.e2e.launcher_lab import make_lab

KEY = PrivateKey.generate(b"\7" * 32)
POLICIES = """\
apiVersion: policyguard/v1
kind: Schema
subjects: {{user: {{}}}}
resources:
  repo: {{id: "team/{{team}}/*", actions: [read], attributes: {{size: {{type: int, optional: true}}}}}}
---
apiVersion: policyguard/v1
kind: Roles
roles: [{{name: member}}]
---
apiVersion: policyguard/v1
kind: Bindings
bindings: [{{subject: "user:alice", role: member, domain: vision}}]
---
apiVersion: policyguard/v1
kind: Policy
metadata: {{name: repos}}
rules:
  - id: members
    effect: allow
    roles: [member]
    actions: [repo:read]
    resources: {{type: repo, id: "team/{{team}}/*"}}
  - id: guests
    effect: {effect}
    subjects: ["user:bob"]
    actions: [repo:read]
    resources: {{type: repo}}
    when: has(resource.size) {sign} resource.size < 8
"""
OPEN = POLICIES.format(effect="allow", sign="&&")
SHUT = OPEN.replace('subjects: ["user:bob"]', 'subjects: ["user:carol"]')


def asks(user: str, **properties: Any) -> Request:
    return Request.of(f"user:{user}", "repo:read", "repo:team/vision/trainer", **properties)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "all.yaml").write_text(OPEN)
    write_private_key(tmp_path / "guard.key", KEY)
    return tmp_path


@pytest.fixture
def guard(folder: Path) -> Iterator[Guard]:
    with Guard.open(folder / "policies", key=folder / "guard.key", log=folder / "audit.db") as opened:
        yield opened


def entries(folder: Path) -> int:
    with SqliteStore.open(folder / "audit.db", read_only=True) as store:
        return check_log(store, None).checkpoint.size if store.last() is not None else 0


def test_allow_and_deny_are_signed_and_logged_alike(guard: Guard, folder: Path) -> None:
    """Both are in the log, durable, before they are returned."""
    assert guard.decide(asks("alice")).decision.allowed
    assert entries(folder) == 1
    assert not guard.decide(asks("mallory")).decision.allowed
    assert entries(folder) == 2


def test_decisions_have_no_truth_value(guard: Guard) -> None:
    """`if decision:` and `if signed:` raise, and say what to ask instead."""
    signed = guard.decide(asks("mallory"))
    with pytest.raises(TypeError, match="allowed"):
        bool(signed.decision)
    with pytest.raises(TypeError, match=r"allowed|verify"):
        bool(signed)


def test_enforce_raises_what_was_signed(guard: Guard) -> None:
    """A denial raises with the signed decision and its explanation; the twin returns it."""
    with pytest.raises(AccessDenied, match="needs role") as caught:
        guard.enforce(asks("mallory"))
    assert not caught.value.signed.decision.allowed
    assert guard.enforce(asks("alice")).decision.allowed


def test_considering_leaves_no_trace(guard: Guard, folder: Path) -> None:
    """`consider` decides without signing or logging."""
    assert guard.consider(guard.gather(asks("alice"))).allowed
    assert entries(folder) == 0


class Failing(MemoryStore):
    """A store whose disk is full."""

    def append(self, grow: Callable[[Row | None], Sequence[Row]]) -> None:
        grow(self.last())
        raise AuditError("log: no space left on device; nothing was added")


def test_a_guard_whose_log_fails_returns_nothing(guard: Guard) -> None:
    """No log, no decision: neither allow nor deny, neither one nor many."""
    store = Failing("test")
    blind = Guard(guard.snapshot, KEY, Log.open(store, KEY, "test"))
    for action in (blind.decide, blind.enforce, lambda asked: blind.issue_many([blind.gather(asked)])):
        for user in ("alice", "mallory"):
            with pytest.raises(AuditError, match="no space left"):
                action(asks(user))
    assert store.last() is None


def test_a_closed_guard_decides_nothing(folder: Path) -> None:
    """After `close` the log refuses, and so does the guard."""
    guard = Guard.open(folder / "policies", key=folder / "guard.key", log=folder / "audit.db")
    guard.close()
    with pytest.raises(AuditError):
        guard.decide(asks("alice"))


def test_many_at_once_are_as_one_at_a_time(guard: Guard, folder: Path) -> None:
    """`issue_many` gives each request its own decision, in order; nothing for nothing."""
    facts = [guard.gather(asks(user)) for user in ("alice", "mallory", "alice")]
    assert [signed.decision.allowed for signed in guard.issue_many(facts)] == [True, False, True]
    assert entries(folder) == 3
    assert guard.issue_many([]) == ()


def test_reloading_takes_the_new_policies(guard: Guard, folder: Path) -> None:
    """What was allowed is denied after the folder changed and was loaded again; the digest is the new one."""
    assert guard.decide(asks("bob", size=1)).decision.allowed
    before = guard.snapshot.policy_digest
    (folder / "policies" / "all.yaml").write_text(SHUT)
    assert guard.decide(asks("bob", size=1)).decision.allowed
    assert guard.reload() != before
    assert not guard.decide(asks("bob", size=1)).decision.allowed


BROKEN = {
    "a rule without an effect": (
        lambda folder: (folder / "policies/all.yaml").write_text(OPEN + "  - {id: x}\n"),
        PolicyErrors,
    ),
    "an empty folder": (lambda folder: (folder / "policies/all.yaml").unlink(), ConfigurationError),
    "no folder": (lambda folder: (folder / "policies").rename(folder / "gone"), ConfigurationError),
    "an empty file": (lambda folder: (folder / "policies/all.yaml").write_text(""), PolicyErrors),
    "only a schema": (
        lambda folder: (folder / "policies/all.yaml").write_text(OPEN.split("---")[0]),
        PolicyErrors,
    ),
}


@pytest.mark.parametrize(("spoil", "family"), BROKEN.values(), ids=list(BROKEN))
def test_a_failed_reload_keeps_the_last_good_policies(
    spoil: Callable[[Path], object], family: type[Exception], guard: Guard, folder: Path
) -> None:
    """The error rises and nothing changes; a later reload of good policies works."""
    digest = guard.snapshot.policy_digest
    spoil(folder)
    with pytest.raises(family):
        guard.reload()
    assert guard.snapshot.policy_digest == digest
    assert guard.decide(asks("alice")).decision.allowed
    assert not guard.decide(asks("mallory")).decision.allowed
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "policies" / "all.yaml").write_text(OPEN)
    assert guard.reload() == digest


def test_policies_of_an_older_epoch_are_refused(guard: Guard, folder: Path) -> None:
    """INVARIANT I4: a newer epoch is taken, going back to the older one is not, and the newer one stays."""
    path = folder / "policies" / "all.yaml"
    newer = OPEN.replace("kind: Schema\n", "kind: Schema\nmetadata: {name: lab, epoch: 7}\n", 1)
    assert newer != OPEN
    path.write_text(newer)
    digest = guard.reload()
    path.write_text(OPEN)
    with pytest.raises(ConfigurationError, match=r"policies are of epoch 1, expected at least 7"):
        guard.reload()
    assert guard.snapshot.policy_digest == digest


def test_a_guard_from_memory_cannot_reload(guard: Guard) -> None:
    """What was not opened from files says so."""
    store = MemoryStore("test")
    with pytest.raises(ConfigurationError, match=r"expected one from `Guard.open`"):
        Guard(guard.snapshot, KEY, Log.open(store, KEY, "test")).reload()


def test_threads_decide_while_policies_reload(guard: Guard, folder: Path) -> None:
    """Two policy sets take turns under four threads: each decision is by one of them, whole, and never a mix."""
    digests = {}
    for text, opens in ((OPEN, True), (SHUT, False)):
        (folder / "policies" / "all.yaml").write_text(text)
        digests[guard.reload()] = opens
    stop, wrong, counts = threading.Event(), list[str](), [0] * 4

    def work(number: int) -> None:
        while not stop.is_set():
            for user, always in (("alice", True), ("mallory", False), (f"stranger-{counts[number]}", False)):
                decision = guard.consider(Facts(asks(user), {}, EMPTY_MAP))
                if decision.allowed is not always:
                    wrong.append(f"{user}: {decision}")
            decision = guard.consider(guard.gather(asks("bob", size=1)))
            if decision.allowed is not digests[decision.policy_digest]:
                wrong.append(f"bob: {decision}")
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    deadline, reloads = time.monotonic() + 2, 0
    while time.monotonic() < deadline:
        (folder / "policies" / "all.yaml").write_text((OPEN, SHUT)[reloads % 2])
        guard.reload()
        reloads += 1
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert reloads > 5
    assert min(counts) > 50


def test_threads_share_one_log(guard: Guard, folder: Path) -> None:
    """Decisions of many threads all land in the log, once each, and the log adds up."""
    found: list[int] = []

    def work() -> None:
        found.extend(guard.decide(asks("alice")).receipt.index for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(60))
    assert entries(folder) == 60


def test_strangers_leave_nothing_behind(guard: Guard) -> None:
    """Thousands of subjects and resources that nobody knows cost no memory that stays."""

    def ask(numbers: range) -> None:
        for number in numbers:
            request = Request.of(f"user:s{number}", "repo:read", f"repo:team/t{number}/r", size=number)
            assert not guard.consider(guard.gather(request)).allowed

    ask(range(200))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        ask(range(1000, 4000))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000


OPENING: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "no policies": (lambda folder: (folder / "policies/all.yaml").unlink(), ConfigurationError, "found no policy file"),
    "no folder": (
        lambda folder: (folder / "policies").rename(folder / "gone"),
        ConfigurationError,
        "no policies there",
    ),
    "no rules": (
        lambda folder: (folder / "policies/all.yaml").write_text(OPEN.split("---")[0]),
        PolicyErrors,
        "no rule",
    ),
    "no key": (lambda folder: (folder / "guard.key").unlink(), SigningError, "cannot be read"),
    "a key for all": (lambda folder: (folder / "guard.key").chmod(0o644), SigningError, "has mode 0644"),
    "a key that is text": (lambda folder: (folder / "guard.key").write_text("secret"), SigningError, "guard.key"),
    "a log that is a folder": (lambda folder: (folder / "audit.db").mkdir(), AuditError, "not a regular file"),
    "a log that is text": (lambda folder: (folder / "audit.db").write_text("log" * 999), AuditError, "audit.db"),
}


@pytest.mark.parametrize(("spoil", "family", "said"), OPENING.values(), ids=list(OPENING))
def test_opening_fails_by_family(
    spoil: Callable[[Path], object], family: type[Exception], said: str, folder: Path
) -> None:
    """Whoever can repair it learns which file and why; no log is made for a guard that cannot decide."""
    had_log = (folder / "audit.db").exists()
    spoil(folder)
    with pytest.raises(family, match=said):
        Guard.open(folder / "policies", key=folder / "guard.key", log=folder / "audit.db")
    if family is not AuditError:
        assert (folder / "audit.db").exists() == had_log


def test_another_key_does_not_continue_a_log(guard: Guard, folder: Path) -> None:
    """A log begun by one key is refused to another, and nothing is left open."""
    guard.decide(asks("alice"))
    write_private_key(folder / "other.key", PrivateKey.generate(b"\1" * 32))
    with pytest.raises(AuditError, match="a new key takes over a log by"):
        Guard.open(folder / "policies", key=folder / "other.key", log=folder / "audit.db")
    assert entries(folder) == 1


def test_a_lifetime_is_more_than_nothing(folder: Path) -> None:
    """A decision that is over when it is made helps nobody."""
    for lifetime_s in (0, -1):
        with pytest.raises(ValueError, match="lifetime_s"):
            Guard.open(folder / "policies", key=folder / "guard.key", log=folder / "audit.db", lifetime_s=lifetime_s)


def test_an_advisory_guard_says_so(tmp_path: Path) -> None:
    """What cannot stop the job is marked in the statement itself."""
    lab = make_lab(tmp_path)
    with lab.guard(advisory=True) as guard:
        signed = guard.decide(Request.of("user:alice", "job:submit", "job:team/vision/run-17", gpus=8))
    assert verify_origin(signed.to_json(), lab.trust).predicate.mode == "advisory"
