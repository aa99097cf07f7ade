"""docs/facts.md and the collectors say the same."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from policyguard.confinement.landlock import abi_version
from policyguard.evidence.checkpoint import JobCheckpoints
from policyguard.evidence.collector import Collector, JobInputs, gather
from policyguard.evidence.confinement import ConfinementCollector
from policyguard.evidence.environment_collector import EnvironmentCollector
from policyguard.evidence.from_commit import FromCommitCollector, exported
from policyguard.evidence.gpu_grants import GrantCollector
from policyguard.evidence.identity import IdentityCollector
from policyguard.evidence.injected import InjectionCollector
from policyguard.evidence.injection import INJECTIONS
from policyguard.evidence.job import JobCollector
from policyguard.evidence.program import ProgramCollector
from policyguard.evidence.quota import QuotaCollector
from policyguard.evidence.repository import CODE, RepositoryCollector
from policyguard.evidence.scale import ScaleCollector
from policyguard.model.request import Request
from tests.attacks.git_lab import make_lab

PAGE = (Path(__file__).parents[3] / "docs" / "facts.md").read_text()
ROWS = {
    row[0]: row for row in re.findall(r"^\| `([a-z_.]+)` \| (.+?) \| (\w+) \| (\w+) \| (yes|no) \|", PAGE, re.MULTILINE)
}
COLLECTORS: tuple[Collector, ...] = (
    IdentityCollector(),
    JobCollector(),
    InjectionCollector(),
    RepositoryCollector(),
    EnvironmentCollector("/nonexistent/baseline", ()),
    JobCheckpoints(),
    ProgramCollector(),
    ScaleCollector(),
    ConfinementCollector(),
    FromCommitCollector(),
    QuotaCollector(file="/nonexistent/quota.json"),
    GrantCollector(),
)


def test_every_fact_is_on_the_page_with_its_collector() -> None:
    """No more and no fewer than the collectors declare."""
    declared = {path: collector.name for collector in COLLECTORS for path in collector.declares}
    assert declared == {path: row[2] for path, row in ROWS.items()}


def test_assurance_and_binding_are_as_on_the_page(tmp_path: Path) -> None:
    """What a real look supplies."""
    lab = make_lab(tmp_path)
    inputs = JobInputs(
        argv=(sys.executable, "train.py"),
        directory=str(lab.root),
        environment=dict(os.environ),
        confine=abi_version()[0] > 0,
        from_commit=True,
    )
    with exported(inputs) as started:
        facts = gather(Request.of("user:a", "job:submit", "job:x"), COLLECTORS, started, lambda: 1)
    seen = {path: (fact.assurance.word, "yes" if fact.bound else "no") for path, fact in facts.entries.items()}
    assert seen == {path: (row[3], row[4]) for path, row in ROWS.items() if path not in facts.missing}


def test_the_fields_of_the_code_record_are_on_the_page(tmp_path: Path) -> None:
    """In the table and in the schema."""
    lab = make_lab(tmp_path)
    lab.git("config", "remote.origin.url", "/srv/x.git")
    schema = PAGE[PAGE.index("records:") :]
    for field in lab.code():
        assert f"`{field}`" in PAGE
        assert f"      {field}: {{type: " in schema
    assert CODE in PAGE


@pytest.mark.parametrize("name", INJECTIONS)
def test_every_injection_is_on_the_page(name: str) -> None:
    """With its treatment and what it does."""
    row = INJECTIONS[name]
    treatment = f"{row.treatment}; elsewhere {row.elsewhere}" if row.elsewhere else row.treatment
    assert f"| `{name.replace('.', ' ')}` | {treatment} | {row.effect} |" in PAGE
