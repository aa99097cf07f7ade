"""Attacks on the time between a check and its use: a link is turned after the path that it leads to was checked.

Each attack has a twin one step away that is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard import Guard, Request
from policyguard.cli import settings
from policyguard.cli.verbs.init_ import create_files
from policyguard.config.operator import operator_config
from policyguard.fs.ownership import read_owned
from policyguard.hooks import stdio
from policyguard.hooks.git import main as git_main
from policyguard.hooks.git.options import GitOptions, read_git_options

NAMES = {"policies": "policies", "key": "guard.key", "log": "audit.db", "trust": "trust.yaml"}


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """A link of the attacker, to the operator's folder at first."""
    for owner in ("op", "evil"):
        create_files(tmp_path / owner)
    (tmp_path / "link").symlink_to(tmp_path / "op")
    return tmp_path / "link"


def turn(link: Path) -> None:
    link.unlink()
    link.symlink_to(link.parent / "evil")


def by_hook(link: Path) -> list[Path]:
    names = {name: str(link / file) for name, file in NAMES.items() if name != "trust"}
    options = stdio.read_options([f"--{name}={path}" for name, path in names.items()])
    return [Path(getattr(options, name)) for name in names]


def by_hook_with_a_configuration(link: Path) -> list[Path]:
    config = link.parent / "op" / "policyguard.yaml"
    return [
        Path(str(getattr(stdio.read_options([f"--config={config}", f"--{name}={link / file}"]), name)))
        for name, file in NAMES.items()
        if name != "trust"
    ]


def by_run_and_verify(link: Path) -> list[Path]:
    config = operator_config(
        link / "policyguard.yaml", options={name: link / file for name, file in NAMES.items()}, job_folder=None
    )
    return [getattr(config, name) for name in NAMES]


def by_a_host(link: Path) -> list[Path]:
    config = operator_config(link / "policyguard.yaml")
    return [getattr(config, name) for name in NAMES]


def by_decide(link: Path) -> list[Path]:
    config = settings.decider_settings(**{name: link / file for name, file in NAMES.items()})
    return [getattr(config, name) for name in NAMES]


def by_a_git_hook(link: Path) -> list[Path]:
    named = [word for name, file in NAMES.items() if name != "trust" for word in (f"--{name}", str(link / file))]
    options = read_git_options(
        ["reference-transaction", "--repo", "/r", "--resource", "repo:r", "--pusher", "USER", *named]
    )
    seen: list[GitOptions] = []

    def transaction(options: GitOptions) -> int:
        seen.append(options)
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(git_main, "_transaction", transaction)
        assert git_main._answer(options) == 0
    return [Path(seen[0].policies), Path(seen[0].key), Path(seen[0].log)]


WAYS = (by_hook, by_hook_with_a_configuration, by_run_and_verify, by_a_host, by_decide, by_a_git_hook)


@pytest.mark.parametrize("way", WAYS)
def test_a_link_that_is_turned_after_the_check_leads_nowhere_else(
    link: Path, way: Callable[[Path], list[Path]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """flip: the hook checked `link/policies` of the operator, and opened `link/policies` of the attacker."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(settings, "configured_file", lambda: None)
    opened = way(link)
    turn(link)
    assert opened
    assert {path.resolve().parent for path in opened} == {tmp_path / "op"}


def test_a_link_that_nobody_turns_is_followed(link: Path) -> None:
    """The twin: a caller may name the operator's files by a link of their own."""
    options = stdio.read_options([f"--{name}={link / file}" for name, file in NAMES.items() if name != "trust"])
    with stdio.open_guard(options) as guard:
        signed = guard.decide(Request.from_json((link / "requests" / "allowed.json").read_bytes()))
    assert signed.decision.allowed
    assert (link.parent / "op" / "audit.db").exists()


def test_the_configuration_that_decide_reads_is_the_one_it_checked(link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link is turned back for the check: what was read before the check decided."""
    monkeypatch.chdir(link)
    monkeypatch.setattr(settings, "configured_file", lambda: link / "policyguard.yaml")

    def turned(path: Path, max_bytes: int) -> tuple[bytes, str]:
        data = read_owned(path, max_bytes)
        turn(link)
        return data

    monkeypatch.setattr(settings, "read_owned", turned)
    assert settings.decider_settings().policies == link.parent / "op" / "policies"


def test_a_log_is_named_as_its_head_file_is(link: Path) -> None:
    """A second name for a log, in a folder of the operator, is followed where nobody else can turn it."""
    op = link.parent / "op"
    names = {name: op / file for name, file in NAMES.items() if name != "trust"}
    with Guard.open(names["policies"], key=names["key"], log=names["log"]) as guard:
        guard.decide(Request.from_json((op / "requests" / "allowed.json").read_bytes()))
    (op / "current.db").symlink_to("audit.db")
    options = stdio.read_options([f"--{name}={path}" for name, path in {**names, "log": op / "current.db"}.items()])
    assert options.log == str(op / "current.db")
