"""What the user sees when policyguard itself is wrong, and how completion finds the verbs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from policyguard.cli import group
from policyguard.errors import PolicyGuardError
from policyguard.exit_codes import EXIT_CODES, code_of_error
from tests.e2e.cli_lab import CliLab, process_environment


@pytest.mark.parametrize("mistake", [ValueError("odd\x1b[2J"), RecursionError("deep"), MemoryError()], ids=repr)
def test_a_mistake_of_ours_is_one_line(mistake: Exception, lab: CliLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """I20: an exception nobody expected is one visible line, help on reporting it, and exit code 69."""

    def fail(*_: object, **__: object) -> None:
        raise mistake

    monkeypatch.setattr("policyguard.cli.verbs.decide_.open_guard", fail)
    ended = lab.here("decide", "requests/allowed.json")
    assert (ended.code, ended.out) == (69, "")
    assert ended.complaint.startswith(f"policyguard: stopped by a mistake in policyguard: {type(mistake).__name__}")
    assert "\x1b" not in ended.err
    monkeypatch.setenv(group.DEBUG_VARIABLE, "1")
    with pytest.raises(type(mistake)):
        lab.here("decide", "requests/allowed.json")


def test_every_family_of_errors_has_a_code() -> None:
    """No error of ours is exit code 0 or one that the design does not name."""
    families = {family for family in PolicyGuardError.__subclasses__() if family.__module__ == "policyguard.errors"}
    assert {family for family, _ in EXIT_CODES} == families
    assert {code for _, code in EXIT_CODES} <= {65, 69, 77, 78}
    assert code_of_error(PolicyGuardError("x")) == 69


def complete(words: str, number: int) -> tuple[list[str], str]:
    """Return what bash is offered for these words, and which modules were imported on the way."""
    variables = {"_POLICYGUARD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "policyguard"],
        env=process_environment(**variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return [line.split(",")[1] for line in done.stdout.splitlines()], done.stderr


@pytest.mark.parametrize(
    ("words", "number", "offered"),
    [
        ("policyguard ", 1, list(group.VERBS)),
        ("policyguard ch", 1, ["check-engine"]),
        (
            "policyguard audit ",
            2,
            ["accept-reset", "export", "open-reviews", "prove", "review", "rotate", "show", "tail", "verify"],
        ),
        ("policyguard decide --o", 2, ["--observed", "--out"]),
        ("policyguard lint --format ", 3, ["text", "json", "sarif", "github", "junit"]),
        ("policyguard hook --a", 2, ["--audience", "--approvals", "--approval-log", "--allowed-signers"]),
    ],
    ids=["every verb", "a verb by its start", "verbs of a group", "options", "choices", "options of the hook"],
)
def test_completion_offers_what_fits(words: str, number: int, offered: list[str]) -> None:
    """Bash completion knows verbs, their verbs, options and choices."""
    assert sorted(complete(words, number)[0]) == sorted(offered)


def test_completing_a_verb_loads_none() -> None:
    """Pressing Tab after the program's name imports no command, no engine and no yaml."""
    _, imported = complete("policyguard d", 1)
    for name in ("policyguard.guard", "policyguard.demo.quick", "casbin", "yaml", "cryptography"):
        assert f" {name}\n" not in imported, name


def test_the_completion_script_is_printed() -> None:
    """`_POLICYGUARD_COMPLETE=bash_source policyguard` prints a script for each shell that click knows."""
    for shell in ("zsh", "fish"):
        done = subprocess.run(
            [sys.executable, "-m", "policyguard"],
            env=process_environment(_POLICYGUARD_COMPLETE=f"{shell}_source"),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, "_POLICYGUARD_COMPLETE" in done.stdout) == (0, True), done.stderr
