"""Bindings that a policy folder keeps in a casbin store count like those written in YAML."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from policyguard.casbin_compat.sqlalchemy_adapter import SQLAlchemyAdapter
from policyguard.errors import PolicyErrors
from policyguard.policy_store.folder import snapshot_of_folder

FOLDER = """
apiVersion: policyguard/v1
kind: Schema
metadata: {name: s}
subjects: {user: {}}
resources: {job: {id: "team/{team}/**", actions: [submit]}}
---
apiVersion: policyguard/v1
kind: Roles
metadata: {name: roles}
roles: [{name: researcher}, {name: lead, inherits: [researcher]}]
exclusive: [{name: apart, roles: [researcher, auditor]}]
---
apiVersion: policyguard/v1
kind: Roles
metadata: {name: more-roles}
roles: [{name: auditor}]
---
apiVersion: policyguard/v1
kind: Bindings
metadata: {name: yaml}
bindings: [{subject: "user:yaml", role: lead, domain: vision}]
---
apiVersion: policyguard/v1
kind: Bindings
metadata: {name: elsewhere}
source: SOURCE
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: p}
rules: [{id: submit, effect: allow, roles: [researcher], actions: ["job:submit"], resources: {type: job}}]
"""


def folder(tmp_path: Path, source: str) -> Path:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "all.yaml").write_text(FOLDER.replace("SOURCE", source))
    return policies


def test_a_csv_file_beside_the_policies(tmp_path: Path) -> None:
    """Both sources count, and inheritance holds for both."""
    policies = folder(tmp_path, "{adapter: csv, path: bindings.csv}")
    (policies / "bindings.csv").write_text("g, user:csv, role:lead, speech\n")
    grants = snapshot_of_folder(policies).grants
    assert grants.roles_at("user:yaml", "vision", 0) == ("lead", "researcher")
    assert grants.roles_at("user:csv", "speech", 0) == ("lead", "researcher")
    assert grants.roles_at("user:csv", "vision", 0) == ()


def test_a_database(tmp_path: Path) -> None:
    """The same from SQLite."""
    url = f"sqlite:///{tmp_path / 'casbin.db'}"
    SQLAlchemyAdapter(url).create_table()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text("insert into casbin_rule (ptype, v0, v1, v2) values ('g', 'user:sql', 'role:lead', '*')")
        )
    engine.dispose()
    grants = snapshot_of_folder(folder(tmp_path, f'{{adapter: sqlalchemy, url: "{url}"}}')).grants
    assert grants.roles_at("user:sql", "anywhere", 0) == ("lead", "researcher")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("g, user:x, role:ghost, vision", "found the unknown role `ghost`"),
        ("g, user:yaml, role:auditor, vision", "`user:yaml` holds `auditor`, `researcher` in domain `vision`"),
        ("p, user:x, a, b", "found a `p` row, expected only `g` rows"),
    ],
    ids=["an unknown role", "duties that the YAML separates", "a rule"],
)
def test_rows_are_judged_together_with_the_yaml(tmp_path: Path, row: str, message: str) -> None:
    """A store cannot bring in what the documents forbid."""
    policies = folder(tmp_path, "{adapter: csv, path: bindings.csv}")
    (policies / "bindings.csv").write_text(row + "\n")
    with pytest.raises(PolicyErrors) as caught:
        snapshot_of_folder(policies)
    assert message in str(caught.value)
