"""For which jobs a repository of the operator counts, and how the configuration names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyguard.config.file import parse_config
from policyguard.errors import ConfigurationError
from policyguard.evidence.accepted_history import AcceptedHistory


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ("team/vision/run-1", True),
        ("team/vision/e1/run-1", True),
        ("team/vision2/run-1", False),
        ("team/llm/run-1", False),
        ("team/vision", False),
        ("other/team/vision/run-1", False),
    ],
)
def test_a_repository_counts_for_the_jobs_of_its_team(job: str, expected: bool) -> None:
    """Those with the same parent: another team's reviewers are not this team's."""
    repository = AcceptedHistory(resource="team/vision/trainer", path=Path("/x"), refs=("refs/heads/main",))
    assert repository.concerns(job) is expected


def test_the_configuration_names_repositories() -> None:
    """Paths are relative to it."""
    text = (
        b"repositories:\n  team/vision/*: {path: git/trainer.git, refs: [refs/heads/main, 'refs/heads/release/**']}\n"
    )
    (repository,) = parse_config(text, Path("/etc/policyguard/policyguard.yaml")).measurement.repositories
    assert repository.path == Path("/etc/policyguard/git/trainer.git")
    assert repository.refs == ("refs/heads/main", "refs/heads/release/**")
    assert repository.concerns("team/vision/run-1")


WRONG = {
    "no path": ("team/vision/x: {refs: [refs/heads/main]}", "`path` is missing"),
    "no references": ("team/vision/x: {path: x}", "`refs` is missing"),
    "an empty list": ("team/vision/x: {path: x, refs: []}", "at least one text"),
    "a branch name": ("team/vision/x: {path: x, refs: [main]}", "expected a reference such as `refs/heads/main`"),
    "a name without a team": ("trainer: {path: x, refs: [refs/heads/main]}", "expected the id of a repository"),
    "a name with a type": ("'repo:team/x': {path: x, refs: [refs/heads/main]}", "expected the id of a repository"),
    "a way up": ("team/../x: {path: x, refs: [refs/heads/main]}", "expected the id of a repository"),
    "a URL": ("team/vision/x: {url: x, refs: [refs/heads/main]}", "unknown field `url`"),
}


@pytest.mark.parametrize(("line", "message"), WRONG.values(), ids=WRONG)
def test_what_names_no_repository_is_refused(line: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_config(f"repositories:\n  {line}\n".encode(), Path("/etc/policyguard.yaml"))
