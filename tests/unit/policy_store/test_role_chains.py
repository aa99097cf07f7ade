"""The longest chain of roles: one limit, wherever policies come in."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.compiled_form import compile_policy, policy_digest
from policyguard.decide.role_closure import close_roles
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import PolicyErrors
from policyguard.lint.runner import lint
from policyguard.model.policy import Binding, Role
from policyguard.policy.loader import load
from policyguard.policy_store.folder import snapshot_of_folder

REST = """\
---
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources: {job: {id: "team/{team}/**", actions: [submit]}}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs, owner: platform}
rules:
  - {id: last, effect: allow, actions: [job:submit], resources: {type: job}, roles: [last]}
---
apiVersion: policyguard/v1
kind: Bindings
"""


def chain(length: int) -> tuple[Role, ...]:
    names = [*(f"r{n}" for n in range(length - 1)), "last"]
    return tuple(Role(name=name, inherits=tuple(names[n + 1 : n + 2])) for n, name in enumerate(names))


def documents(length: int, bindings: str) -> str:
    roles = ", ".join(f"{{name: {role.name}, inherits: [{', '.join(role.inherits)}]}}" for role in chain(length))
    return f"apiVersion: policyguard/v1\nkind: Roles\nroles: [{roles}]\n{REST}{bindings}"


@pytest.mark.parametrize("length", [63, 64])
def test_a_chain_of_64_roles_is_followed_to_its_end(length: int, tmp_path: Path) -> None:
    """By the loader, lint, the engine, a compiled snapshot, and for bindings of a casbin adapter."""
    text = documents(length, "bindings: [{subject: 'user:ann', role: r0, domain: '*'}]\n")
    policies = load({"all.yaml": text.encode()})
    assert "PG502" not in {finding.code for finding in lint({"all.yaml": text.encode()}, 0).findings}
    grants = assign_roles(policies.roles, policies.bindings)
    assert "last" in grants.roles_at("user:ann", None, 0)
    compiled = msgspec.json.decode(msgspec.json.encode(compile_policy(policies, grants)))
    read = Snapshot.from_compiled(compiled, policy_digest(compiled))
    assert "last" in read.grants.roles_at("user:ann", None, 0)
    (tmp_path / "all.yaml").write_text(documents(length, "source: {adapter: csv, path: rows.csv}\n"))
    (tmp_path / "rows.csv").write_text("g, user:ann, role:r0, *\n")
    assert "last" in snapshot_of_folder(tmp_path).grants.roles_at("user:ann", None, 0)


def test_a_chain_of_65_roles_is_refused(tmp_path: Path) -> None:
    """One role more, in the same words everywhere: the engine's own copy of the rule once accepted it."""
    message = "role `r0` inherits through a chain of 65 roles, expected at most 64"
    assert [error.code for error in close_roles(chain(65))[1]] == ["PG502"]
    with pytest.raises(PolicyErrors) as refused:
        assign_roles(chain(65), [Binding(subject="user:ann", role="r0", domain="*")])
    assert [error.message for error in refused.value.errors] == [message]
    (tmp_path / "all.yaml").write_text(documents(65, "source: {adapter: csv, path: rows.csv}\n"))
    (tmp_path / "rows.csv").write_text("g, user:ann, role:r0, *\n")
    with pytest.raises(PolicyErrors) as refused:
        snapshot_of_folder(tmp_path)
    assert message in [error.message for error in refused.value.errors]
    text = documents(65, "bindings: [{subject: 'user:ann', role: r0, domain: '*'}]\n")
    assert "PG502" in {finding.code for finding in lint({"all.yaml": text.encode()}, 0).findings}
