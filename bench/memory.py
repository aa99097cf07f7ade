"""Memory of a loaded snapshot, each in a fresh process: growth of the resident set, and what tracemalloc counts."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from msgspec.structs import replace

from bench.decide import lab, policy_set
from bench.loading import sealed
from bench.report import Section, Target
from bench.resident import SEED
from policyguard.attest.keys import PrivateKey
from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.compiled_form import compile_policy
from policyguard.model.policy import Binding, Role
from policyguard.policy.bundle import seal

SUBJECTS = 100_000
ROLES = 10_000
DEPTH = 10
"""Roles form chains of ten: each inherits the one before."""


def memory(scratch: Path, *, subjects: int = SUBJECTS, roles: int = ROLES, rules: int = 10_000) -> Section:
    """Return the table: many subjects and roles, and many rules, loaded from compiled snapshots."""
    key = PrivateKey.generate(SEED)
    section = Section("Memory of a loaded snapshot", ("", "resident, MB", "tracemalloc, MB", "file, MB"))
    cases = {
        f"{subjects:,} subjects, {roles:,} roles": (many_subjects(subjects, roles, key), 300),
        f"{rules:,} rules": (sealed(lab(rules), key), 32),
    }
    for name, (data, limit) in cases.items():
        resident, traced = _measured(data, scratch)
        section.rows.append((name, f"{resident:.1f}", f"{traced:.1f}", f"{len(data) / 1e6:.1f}"))
        section.targets.append(Target(f"{name}, MB resident", resident, limit))
    section.notes.append("a fresh process; after loading, less before; the file's bytes were there before")
    return section


def many_subjects(subjects: int, roles: int, key: PrivateKey) -> bytes:
    """Return the lab of ten rules with this number of subjects, each with one role in one of 500 domains, sealed."""
    names = [f"role-{n}" for n in range(roles)]
    chains = tuple(Role(name=name, inherits=(names[n - 1],) if n % DEPTH else ()) for n, name in enumerate(names))
    bindings = tuple(
        Binding(subject=f"user:u{n}", role=names[n % roles], domain=f"t{n % 500:03d}") for n in range(subjects)
    )
    small = policy_set(10)
    policies = replace(small, roles=small.roles + chains, bindings=small.bindings + bindings)
    return seal(compile_policy(policies, assign_roles(policies.roles, policies.bindings, policies.exclusions)), [key])


def _measured(data: bytes, scratch: Path) -> tuple[float, float]:
    """Return (MB resident, MB traced), a process each."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=scratch) as folder:
        path = Path(folder, "compiled.pg")
        path.write_bytes(data)
        return _child(path), _child(path, "trace")


def _child(*argv: object) -> float:
    command = [sys.executable, "-m", "bench.resident", *map(str, argv)]
    done = subprocess.run(command, capture_output=True, check=True, cwd=Path(__file__).parents[1])
    return float(json.loads(done.stdout)["bytes"]) / 1e6
