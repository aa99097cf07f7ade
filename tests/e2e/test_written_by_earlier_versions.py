"""Files that an earlier version wrote are read, verified and refused today as they were then.

`tests/data/written_by/VERSION/` holds what the command line of that version produced; its README.md says how. The files
are never regenerated. They are read through the command line and the package's public names only, so that modules may
move. Decisions, approvals and grants expire: the command runs with its clock set to the time the files were written.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from policyguard import Guard, Request, SignedDecision
from tests.e2e.cli_lab import Ended, process_environment

DATA = Path(__file__).parents[1] / "data" / "written_by"
VERSIONS = sorted(path.name for path in DATA.iterdir())
DAY_NS = 86_400_000_000_000
NOTHING: Mapping[str, str] = {}

AT_A_TIME = """
import runpy, sys, time
instant = int(sys.argv.pop(1))
time.time_ns = lambda: instant
time.time = lambda: instant / 1e9
runpy.run_module("policyguard", run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Written:
    """A private copy of what one version wrote, and what it answered then."""

    folder: Path
    expected: dict[str, Any]

    def run(self, *words: str, cwd: str = ".", late_ns: int = 0, variables: Mapping[str, str] = NOTHING) -> Ended:
        """Run the command line in the copy, at the time the files were written or this much later."""
        ended = subprocess.run(
            [sys.executable, "-c", AT_A_TIME, str(self.expected["at"] + late_ns), *words],
            cwd=self.folder / cwd,
            env=process_environment(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    def change(self, name: str, old: str, new: str) -> None:
        """Replace the one occurrence of a text in a file."""
        text = self.text(name)
        assert text.count(old) == 1, f"{name}: {text.count(old)} times `{old}`"
        (self.folder / name).write_text(text.replace(old, new))

    def flip(self, name: str, after: bytes, offset: int = 20) -> None:
        """Change one byte, this far behind the first occurrence of `after`; base64 and hex stay base64 and hex."""
        data = bytearray((self.folder / name).read_bytes())
        place = data.index(after) + len(after) + offset
        data[place] = ord("1") if data[place] != ord("1") else ord("2")
        (self.folder / name).write_bytes(data)


@pytest.fixture(params=VERSIONS)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Written:
    """A copy only we may read and write: git keeps no modes, and keys and signer files with wide ones are refused."""
    folder = tmp_path / "written"
    shutil.copytree(DATA / request.param, folder, copy_function=shutil.copyfile)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return Written(folder, json.loads((folder / "expected.json").read_text()))


def decide(written: Written, words: list[str], policies: str = "policies", log: str = "fresh.db") -> dict[str, Any]:
    """Return the answer of `decide`, without what differs each time."""
    ended = written.run("decide", *words, "--policies", policies, "--log", log, "--json")
    data = ended.data
    return {"code": ended.code, **{name: data[name] for name in ANSWERED}}


ANSWERED = ("decision", "reason_codes", "determining", "errored", "requiring", "obligations", "policy")


# ---- policies

TICKET = ["--observed", "context.ticket"]
DECIDED: dict[str, list[str]] = {
    "allowed": ["requests/allowed.json"],
    "denied-ceiling": ["requests/denied-ceiling.json"],
    "denied-stranger": ["requests/denied-stranger.json"],
    "denied-only-claimed": ["requests/denied-only-claimed.json"],
    "denied-unknown-attribute": ["requests/denied-unknown-attribute.json"],
    "kill-21": ["requests/kill-21.json", *TICKET],
    "kill-22": ["requests/kill-22.json", *TICKET],
    "kill-23": ["requests/kill-23.json", *TICKET],
    "kill-24": ["requests/kill-24.json", *TICKET],
    "kill-21-without-a-ticket": ["requests/kill-21.json"],
    "export": ["--artifact", "checkpoints/step-200/model.safetensors", "requests/export.json"],
    "export-of-another": ["--artifact", "checkpoints/step-100/model.safetensors", "requests/export.json"],
}
"""What is decided, in the words of the current command line; `expected.json` has the answers by name."""


def test_policies_load_and_lint(written: Written) -> None:
    """The folder compiles to the same digest, and lint finds no error in it.

    A digest that changes is allowed by a star in the changelog only: trust files that pin it must be written anew.
    """
    compiled = written.run("compile", "policies", "-o", "again.snapshot", "--json")
    assert compiled.code == 0, compiled.err
    assert compiled.data["digest"] == written.expected["policy"]["digest"]
    assert written.run("lint", "policies", "--json").data["counts"]["error"] == 0


@pytest.mark.parametrize("policies", ["policies", "policies.snapshot"])
def test_requests_are_decided_as_they_were(written: Written, policies: str) -> None:
    """Folder and signed snapshot give every request the same decision, reasons, rules, obligations and digest.

    Among the requests are some that are allowed only by an approval: by a key of our own, by an SSH key, by
    `ssh-keygen` alone, as an entry of the log, and by the digest of a checkpoint.
    """
    answers = {name: decide(written, DECIDED[name], policies, f"{name}.db") for name in written.expected["decisions"]}
    assert answers == written.expected["decisions"]


def test_the_snapshot_serves_the_library(written: Written) -> None:
    """`Guard.open` loads it with the key that signed it, and logs on in the old log."""
    with Guard.open(
        written.folder / "policies.snapshot", key=written.folder / "keys/guard.key", log=written.folder / "audit.db"
    ) as guard:
        signed = guard.decide(Request.of("user:alice", "repo:read", "repo:team/vision/trainer"))
    assert signed.decision.allowed
    assert signed.decision.policy_digest == written.expected["policy"]["digest"]
    assert written.run("audit", "verify", "--json").data["size"] == written.expected["log"]["size"] + 1


def test_a_lint_baseline_still_covers_its_finding(written: Written) -> None:
    """The finding is reported without the baseline, and not with it."""
    words = ("lint", "small", "--select", "PG215")
    assert written.run(*words).code == 1
    assert written.run(*words, "--baseline", "lint-baseline.json").code == 0


# ---- the log and what came out of it


def test_the_log_verifies_and_shows_its_entries(written: Written) -> None:
    """Every hash and checkpoint adds up, under each trust file, with the checkpoint that was kept early on."""
    # Later versions say, too, up to which entry the log is judged: the last one that the checkpoint covers.
    judged = {"judged_up_to": int(written.text("checkpoint-early.note").splitlines()[1]) - 1}
    for trust in ("trust.yaml", "trust-pinned.yaml"):
        ended = written.run("audit", "verify", "--json", "--trust", trust, "--checkpoint", "checkpoint-early.note")
        assert ended.data == written.expected["log"] | judged, ended.err
    tail = written.run("audit", "tail", "-n", "100", "--json")
    assert [json.loads(line) for line in tail.out.splitlines()] == written.expected["entries"]
    for entry, statement in enumerate(written.expected["statements"]):
        shown = written.run("audit", "show", str(entry), "--json").data
        # Later versions say in `ran`, too, what ran.
        assert {name: shown[name] for name in ("entry", "statement")} == {"entry": entry, "statement": statement}
        assert shown.keys() <= {"entry", "statement", "ran"}


def test_proofs_are_the_same(written: Written) -> None:
    """The log proves an entry and its own growth with the bytes that it did then, and the proof of the entry holds."""
    assert written.run("audit", "prove", "1").out == written.text("proof-of-entry-1.json")
    assert written.run("audit", "prove", "--since", "3").out == written.text("proof-since-3.json")
    assert verify(written, "proof-of-entry-1.json", "read-dan").code == 0


def test_the_log_goes_on(written: Written) -> None:
    """A new decision is appended, an approval that the log has used up does not count again, and the log verifies."""
    size = written.expected["log"]["size"]
    request = ["requests/kill-25.json", "--observed", "context.ticket"]
    assert decide(written, request, log="another.db")["code"] == 0
    assert decide(written, request, log="audit.db")["code"] == 77
    ended = written.run("audit", "verify", "--checkpoint", "checkpoint-early.note", "--json")
    assert (ended.data["verified"], ended.data["size"]) == (True, size + 1)


def verify(written: Written, signed: str, request: str, *words: str, late_ns: int = 0) -> Ended:
    return written.run("verify", signed, "--request", f"requests/{request}.json", *words, late_ns=late_ns)


SIGNED = {"signed-allowed.json": "allowed", "signed-read-dan.json": "read-dan", "signed-batched.json": "batched"}


@pytest.mark.parametrize("trust", ["trust.yaml", "trust-pinned.yaml"])
@pytest.mark.parametrize("signed", SIGNED)
def test_signed_decisions_verify_until_they_expire(written: Written, signed: str, trust: str) -> None:
    """A worker accepts them under both trust files, one by one and from a batch; a year later step V6 does not."""
    ended = verify(written, signed, SIGNED[signed], "--trust", trust)
    assert ended.code == 0, ended.err
    late = verify(written, signed, SIGNED[signed], "--trust", trust, late_ns=366 * DAY_NS)
    assert late.code == 77
    assert "V6" in late.err


@pytest.mark.parametrize("signed", [*SIGNED, "signed-kill-25.json"])
def test_a_signed_decision_is_its_own_bytes(written: Written, signed: str) -> None:
    """What is read is written again byte for byte."""
    data = (written.folder / signed).read_bytes().removesuffix(b"\n")
    assert SignedDecision.from_json(data).to_json() == data


def test_a_used_decision_stays_used(written: Written) -> None:
    """The single-use store remembers the one that was verified with it, and takes another."""
    used = verify(written, "signed-allowed.json", "allowed", "--replay-store", "used.db")
    assert used.code == 77
    assert "V11" in used.err
    assert verify(written, "signed-read-dan.json", "read-dan", "--replay-store", "used.db").code == 0


# ---- keys, grants, manifests, environments, configuration


PASSPHRASE = {"POLICYGUARD_PASSPHRASE": "correct horse"}


def test_keys_load(written: Written) -> None:
    """The plain key and the wrapped one have the public key and the id that they had."""
    for name, key in written.expected["keys"].items():
        ended = written.run("keys", "show", f"keys/{name}.key", "--json", variables=PASSPHRASE)
        assert {"public": ended.data["public"], "keyid": ended.data["keyid"]} == key


def run_granted_job(written: Written, late_ns: int = 0) -> Ended:
    """Run the job of the intern that only the grant allows, in a repository of its own."""
    job = written.folder / "job"
    job.mkdir(exist_ok=True)
    # Version 0.1.0 believed the job file; the account that runs this must be listed now.
    login = pwd.getpwuid(os.getuid()).pw_name
    (written.folder / "speaks.yaml").write_text(written.text("policyguard.yaml") + f"speakFor: [{login}]\n")
    (written.folder / "speaks.yaml").chmod(0o600)
    (job / "train.py").write_text("")
    variables = process_environment(HOME=str(written.folder), GIT_CONFIG_NOSYSTEM="1")
    identity = ("-c", "user.name=dan", "-c", "user.email=dan@lab.example")
    for words in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "--allow-empty", "-m", "a job")):
        subprocess.run(["git", *words], cwd=job, env=variables, check=True, capture_output=True)
    return written.run(
        "run",
        "--config",
        "../speaks.yaml",
        "--subject",
        "user:ivan",
        "--policies",
        "../small",
        "--log",
        "../job.db",
        "--job",
        "../granted-job.yaml",
        "--",
        "true",
        cwd="job",
        late_ns=late_ns,
    )


def test_a_grant_counts_until_it_ends(written: Written) -> None:
    """The job starts while the grant lasts, and is denied a month later."""
    started = run_granted_job(written)
    assert started.code == 0, started.err
    assert run_granted_job(written, late_ns=31 * DAY_NS).code == 77


MANIFESTS = ("manifest", "verify", "checkpoints/step-100", "checkpoints/step-200")
ALL_OPTIONS = {"POLICYGUARD_CONFIG": "all-options.yaml"}


def test_manifests_verify(written: Written) -> None:
    """Two steps are one chain, and data has a manifest of its own; the producer's key is in the configuration."""
    for words in (MANIFESTS, ("manifest", "verify", "data")):
        ended = written.run(*words, variables=ALL_OPTIONS)
        assert ended.code == 0, ended.out + ended.err


ENVIRONMENT = ("env", "verify", "env", "--baseline", "env-baseline.json", "--signer", "keys/builder.key.pub")
CACHED = (*ENVIRONMENT, "--cache", "env.cache", "--key", "keys/guard.key")


def test_an_environment_is_compared_with_its_baseline(written: Written) -> None:
    """Nothing differs; the sealed cache of digests is believed."""
    ended = written.run(*CACHED)
    assert ended.code == 0, ended.out + ended.err
    assert "not believed" not in ended.err


def test_a_configuration_with_every_option_is_accepted(written: Written) -> None:
    """Decisions are made under it, and under the other form of the quota."""
    assert written.run("decide", "requests/allowed.json", variables=ALL_OPTIONS).code == 0
    words = ("decide", "requests/allowed.json", "--policies", "policies", "--key", "keys/guard.key", "--log", "q.db")
    assert written.run(*words, variables={"POLICYGUARD_CONFIG": "quota-command.yaml"}).code == 0


# ---- twins: with one byte or one field changed, each is refused


def edit_entry(written: Written) -> None:
    """Change one byte of an entry of the log."""
    with closing(sqlite3.connect(written.folder / "audit.db")) as log, log:
        (leaf,) = log.execute("SELECT leaf FROM entries WHERE idx = 3").fetchone()
        log.execute("UPDATE entries SET leaf = ? WHERE idx = 3", (leaf.replace(b'"payload":"e', b'"payload":"f', 1),))


def execute(name: str, statement: str) -> Callable[[Written], None]:
    def change(written: Written) -> None:
        with closing(sqlite3.connect(written.folder / name)) as database, database:
            database.execute(statement)

    return change


def flipped(name: str, after: bytes, offset: int = 20) -> Callable[[Written], None]:
    return lambda written: written.flip(name, after, offset)


def changed(name: str, old: str, new: str) -> Callable[[Written], None]:
    return lambda written: written.change(name, old, new)


def flip_approval(pattern: str, after: bytes) -> Callable[[Written], None]:
    def change(written: Written) -> None:
        for path in (written.folder / "approvals").glob(pattern):
            written.flip(f"approvals/{path.name}", after)

    return change


def revoke_signer(written: Written) -> None:
    """Put the key of the SSH approval on the list of revoked keys."""
    line = next(line for line in written.text("allowed_signers").splitlines() if line.startswith("ines@"))
    (written.folder / "revoked_keys").write_text(" ".join(line.split()[-2:]) + "\n")
    config = written.folder / "policyguard.yaml"
    config.write_text(config.read_text() + "revokedKeys: revoked_keys\n")


ALLOWED = ("decide", "requests/allowed.json", "--log", "fresh.db")
VERIFY = ("verify", "signed-read-dan.json", "--request", "requests/read-dan.json")


def kill(number: int) -> tuple[str, ...]:
    return ("decide", f"requests/kill-{number}.json", "--observed", "context.ticket", "--log", "fresh.db")


TWINS: dict[str, tuple[Callable[[Written], None], tuple[str, ...], int]] = {
    "policies, an effect": (changed("policies/policy-admin.yaml", "effect: require", "effect: requir"), ALLOWED, 65),
    "snapshot": (flipped("policies.snapshot", b'"payload":"'), (*ALLOWED, "--policies", "policies.snapshot"), 78),
    "snapshot, its signature": (
        flipped("policies.snapshot", b'"sig":"'),
        (*ALLOWED, "--policies", "policies.snapshot"),
        78,
    ),
    "log, an entry": (edit_entry, ("audit", "verify"), 1),
    "log, its last entry gone": (
        execute("audit.db", "DELETE FROM entries WHERE idx = 12"),
        ("audit", "verify", "--checkpoint", "checkpoint-late.note"),
        1,
    ),
    "log, its format": (
        execute("audit.db", "UPDATE header SET format = 'policyguard log v0'"),
        ("audit", "verify"),
        69,
    ),
    "kept checkpoint": (
        flipped("checkpoint-early.note", b"\n7\n"),
        ("audit", "verify", "--checkpoint", "checkpoint-early.note"),
        1,
    ),
    "signed decision, its payload": (flipped("signed-read-dan.json", b'"payload":"'), VERIFY, 77),
    "signed decision, its signature": (flipped("signed-read-dan.json", b'"sig":"'), VERIFY, 77),
    "signed decision, its path": (flipped("signed-read-dan.json", b'"path":["'), VERIFY, 77),
    "signed decision, its checkpoint": (flipped("signed-read-dan.json", b'"checkpoint":"policyguard/', 0), VERIFY, 77),
    "request": (changed("requests/read-dan.json", "team/vision/trainer", "team/vision/trainex"), VERIFY, 77),
    "trust, the key": (flipped("trust.yaml", b"ed25519:"), VERIFY, 77),
    "trust, the log": (changed("trust.yaml", '"policyguard/', '"policyguarc/'), VERIFY, 78),
    "trust, the audience": (changed("trust.yaml", "audiences: [local]", "audiences: [loca1]"), VERIFY, 77),
    "trust, the epoch": (changed("trust.yaml", "minEpoch: 1", "minEpoch: 2"), VERIFY, 77),
    "trust, the digest": (flipped("trust-pinned.yaml", b"digests: ["), (*VERIFY, "--trust", "trust-pinned.yaml"), 77),
    "trust, the window": (
        changed("trust-pinned.yaml", "2026-11-01T00:00:00Z", "2027-10-01T00:00:00Z"),
        (*VERIFY, "--trust", "trust-pinned.yaml"),
        77,
    ),
    "single-use store": (
        execute("used.db", "ALTER TABLE used ADD COLUMN more TEXT"),
        (*VERIFY, "--replay-store", "used.db"),
        69,
    ),
    "key": (flipped("keys/guard.key", b"KEY-----\n", 10), ALLOWED, 78),
    "key, its mode": (lambda written: (written.folder / "keys/guard.key").chmod(0o644), ALLOWED, 78),
    "wrapped key": (flipped("keys/wrapped.key", b"KEY-----\n", 60), ("keys", "show", "keys/wrapped.key"), 78),
    "approval, our own key": (flip_approval("user-omar-*.json", b'"payload":"'), kill(21), 77),
    "approval, SSH key": (flip_approval("user-ines-*.sig", b"SIGNATURE-----\n"), kill(22), 77),
    "approval, signed by hand": (changed("approvals/by-hand.json", "by hand", "by hanf"), kill(24), 77),
    "approval, its signer": (flipped("allowed_signers", b"ines@lab.example ", 10), kill(22), 77),
    "approval, revoked": (revoke_signer, kill(22), 77),
    "grant": (flipped("grants/ivan.json", b'"payload":"'), ("run",), 77),
    "manifest": (flipped("checkpoints/step-200/checkpoint.dsse.json", b'"payload":"'), MANIFESTS, 77),
    "checkpoint": (flipped("checkpoints/step-100/model.safetensors", b"}", 12), MANIFESTS, 77),
    "baseline": (flipped("env-baseline.json", b'"payload":"'), ENVIRONMENT, 69),
    "environment": (
        changed("env/lib/python3.11/site-packages/optim/__init__.py", "x - 1", "x - 2"),
        ENVIRONMENT,
        1,
    ),
    "configuration, an option": (changed("all-options.yaml", "signedCommits:", "signedCommit:"), ALLOWED, 78),
    "configuration, a field": (changed("all-options.yaml", "threshold: 1", "threshold: 2"), ALLOWED, 78),
}


def run_twin(written: Written, name: str) -> Ended:
    _, words, _ = TWINS[name]
    variables = PASSPHRASE if words[0] == "keys" else NOTHING
    if words == MANIFESTS or name.startswith("configuration"):
        variables = ALL_OPTIONS
    return run_granted_job(written) if words == ("run",) else written.run(*words, variables=variables)


def test_every_command_below_succeeds_on_what_was_written(written: Written) -> None:
    """Each distinct command of the twins exits with 0, so that a twin fails for its change alone."""
    names = {words: name for name, (_, words, _) in TWINS.items()}
    ended = {name: run_twin(written, name) for name in names.values()}
    assert {name: each.err for name, each in ended.items() if each.code != 0} == {}


@pytest.mark.parametrize("name", TWINS)
def test_a_change_is_refused(written: Written, name: str) -> None:
    """With one byte or one field changed, the same command fails with the exit code of its kind."""
    change, _, code = TWINS[name]
    change(written)
    ended = run_twin(written, name)
    assert ended.code == code, ended.out + ended.err


def test_a_cache_with_another_seal_is_not_believed(written: Written) -> None:
    """One changed byte, and everything is hashed again, with a warning."""
    written.flip("env.cache", b"environment-digests 2 ", 5)
    ended = written.run(*CACHED)
    assert ended.code == 0
    assert "not believed" in ended.err


def test_there_is_a_version() -> None:
    """The folder is there, with its README, so that no test above is skipped for want of files."""
    assert "0.1.0" in VERSIONS
    assert all(os.access(DATA / version / "README.md", os.R_OK) for version in VERSIONS)
