"""Former names of options and configuration keys: accepted for one release, with one line that names the new one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policyguard.config.file import read_config
from policyguard.errors import ConfigurationError
from policyguard.guard import Guard
from policyguard.hooks.former_options import BY_VERB, rename_former_options
from tests.e2e.cli_lab import CliLab

NOTE = "the former name goes with the next release"

COMMANDS = {
    "decide --of": (("decide", "--of", "base.bin", "requests/allowed.json"), "`--of` is now `--artifact`"),
    "env --own-word": (("env", "verify", "nowhere", "--own-word"), "`--own-word` is now `--record-only`"),
    "run --used": (("run", "--used=u.db", "--job", "nowhere", "--", "true"), "`--used` is now `--replay-store`"),
    "verify --used": (("verify", "nowhere", "--used", "u.db"), "`--used` is now `--replay-store`"),
    "hook --look": (("hook", "--json", "--look"), "`--look` is now `--measure`"),
}


@pytest.mark.parametrize(("words", "warning"), COMMANDS.values(), ids=COMMANDS.keys())
def test_a_former_option_works_and_is_named(lab: CliLab, words: tuple[str, ...], warning: str) -> None:
    """The answer is that of the new name, and standard error has one line more."""
    former = lab.process(*words)
    present = lab.process(*rename_former_options(words, BY_VERB[words[0]])[0])
    assert former.err.splitlines() == [f"policyguard: {warning}; {NOTE}", *present.err.splitlines()]
    assert (former.code, former.out) == (present.code, present.out)
    assert "is now" not in present.err


def test_a_hook_without_click_knows_them_too(lab: CliLab) -> None:
    """The fast path of `hook` reads its arguments itself."""
    lab.path("reviewed").write_text("")
    request = lab.path("requests", "allowed.json").read_bytes()
    ended = lab.process("hook", "--look", "--accepted", "reviewed", stdin=request)
    assert ended.err.splitlines() == [
        f"policyguard: `--look` is now `--measure`; {NOTE}",
        f"policyguard: `--accepted` is now `--reviewed-commits`; {NOTE}",
    ]
    assert "decision" in json.loads(ended.out)


def test_words_of_the_job_stay() -> None:
    """What comes after `--` is the command of the job."""
    words = ("run", "--used", "u.db", "--", "train", "--used", "x")
    renamed, warnings = rename_former_options(words, BY_VERB["run"])
    assert renamed == ["run", "--replay-store", "u.db", "--", "train", "--used", "x"]
    assert len(warnings) == 1


def test_a_former_key_of_the_configuration(lab: CliLab) -> None:
    """It fills the same field; every verb, and a host, hear of it once."""
    path = lab.path("policyguard.yaml")
    text = path.read_text()
    warning = f"`accepted` is now `reviewedCommits`; {NOTE}"
    path.write_text(f"{text}accepted: reviewed\n")
    assert read_config(path).reviewed_commits == lab.path("reviewed")
    assert lab.here("decide", "requests/allowed.json").err == f"policyguard: policyguard.yaml: {warning}\n"
    lines: list[str] = []
    Guard.from_config("policyguard.yaml", report=lines.append).close()
    assert lines == [f"{path}: {warning}"]
    path.write_text(f"{text}reviewedCommits: reviewed\n")
    assert lab.here("decide", "requests/allowed.json").err == ""


def test_both_names_of_a_key_are_refused(tmp_path: Path) -> None:
    """Nobody guesses which of the two files counts."""
    path = tmp_path / "policyguard.yaml"
    path.write_text("accepted: a\nreviewedCommits: b\n")
    with pytest.raises(ConfigurationError, match="found both `accepted` and `reviewedCommits`"):
        read_config(path)
