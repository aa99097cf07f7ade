"""Loading: a lab from YAML, from a compiled snapshot, and the whole process of the hook above a bare interpreter."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.decide import lab
from bench.documents import sources
from bench.report import Section, Target, us
from bench.workload import Workload
from policyguard.attest.keys import PrivateKey
from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.compiled_form import compile_policy
from policyguard.decide.snapshot import Snapshot
from policyguard.keyfiles import write_private_key
from policyguard.policy.bundle import open_sealed, seal
from policyguard.policy.loader import load
from policyguard.policy_store.folder import snapshot_of_folder
from policyguard.policy_store.load import load_snapshot

SEED = bytes(range(32))
RULES = 1_000


def loading(runs: int, scratch: Path) -> Section:
    """Return the CPU time of loading 1,000 rules from files, and of one answer of the hook."""
    key = PrivateKey.generate(SEED)
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=scratch) as name:
        folder = Path(name)
        write_lab(lab(RULES), folder / "policies")
        compiled = folder / "compiled.pg"
        compiled.write_bytes(sealed(lab(RULES), key))
        write_private_key(folder / "guard.key", key)
        measured = {
            f"{RULES:,} rules from YAML": _cpu(lambda: snapshot_of_folder(folder / "policies"), runs),
            f"{RULES:,} rules from a compiled snapshot": _cpu(lambda: load_snapshot(compiled, [key.public]), runs),
        } | _processes(folder, runs)
    section = Section("Loading and starting (CPU time)", ("", "min", "median"))
    section.rows = [(name, us(min(times)), us(statistics.median(times))) for name, times in measured.items()]
    yaml, snapshot, bare, hook = (statistics.median(times) for times in measured.values())
    section.targets = [
        Target(f"{RULES:,} rules from YAML, s", yaml / 1e6, 0.3),
        Target(f"{RULES:,} rules from a compiled snapshot, ms", snapshot / 1e3, 20),
        Target("hook's process above a bare interpreter, ms", (hook - bare) / 1e3, 60),
    ]
    section.notes.append(f"{runs} runs each; processes: user and system time of the child, the hook on {RULES:,} rules")
    return section


def write_lab(workload: Workload, folder: Path) -> None:
    """Write the lab's policy files into a new folder."""
    for name, text in sources(workload).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)


def sealed(workload: Workload, key: PrivateKey) -> bytes:
    """Return the lab as `policyguard compile` writes it."""
    policies = load(sources(workload))
    grants = assign_roles(policies.roles, policies.bindings, policies.exclusions)
    return seal(compile_policy(policies, grants), [key])


def opened(data: bytes, key: PrivateKey) -> Snapshot:
    """Return the snapshot that these bytes hold."""
    return Snapshot.from_compiled(*open_sealed(data, [key.public]))


def _cpu(work: Callable[[], object], runs: int) -> list[float]:
    """Return microseconds of this process's CPU for each run, after one that does not count."""
    work()
    times = []
    for _ in range(runs):
        begun = time.process_time_ns()
        work()
        times.append((time.process_time_ns() - begun) / 1e3)
    return times


def _processes(folder: Path, runs: int) -> dict[str, list[float]]:
    """Return the CPU time of a bare interpreter and of the hook, in turns."""
    question = next(question for question in lab(RULES).questions if question.allowed)
    request = {
        "subject": {"type": "user", "id": question.subject.partition(":")[2]},
        "action": {"name": question.action},
        "resource": {"type": question.kind, "id": question.id, "properties": question.attributes},
    }
    text = json.dumps(request).encode()
    hook = [
        sys.executable,
        "-m",
        "policyguard",
        "hook",
        "--policies",
        str(folder / "compiled.pg"),
        "--key",
        str(folder / "guard.key"),
        "--log",
        str(folder / "audit.db"),
    ]
    measured: dict[str, list[float]] = {"bare interpreter, a process": [], "hook on a compiled snapshot, a process": []}
    for run in range(runs + 1):
        for times, command in zip(measured.values(), ([sys.executable, "-c", "pass"], hook), strict=True):
            spent = _child(command, text, folder)
            if run:
                times.append(spent)
    return measured


def _child(command: list[str], text: bytes, folder: Path) -> float:
    """Return the microseconds of CPU of one child; raise if it did not answer with success."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, input=text, capture_output=True, check=False, env=_environment(folder))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}: {done.stdout.decode()[:300]} {done.stderr.decode()[:300]}")
    return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1e6


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment of an installed package: importable, its byte code cached."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return environment | {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONPYCACHEPREFIX": str(folder / "cache")}
