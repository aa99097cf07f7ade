"""Options of a git hook survive the script, and the pusher's name comes from the operator's sources alone."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from policyguard.errors import ConfigurationError, EvidenceError
from policyguard.hooks.git.install import is_ours, options_in, script
from policyguard.hooks.git.options import GitOptions, pusher_of, read_git_options

OPTIONS = GitOptions(
    kind="pre-receive",
    repo="/srv/it's here/x.git",
    resource="repo:team/vision/x",
    policies="/etc/p q",
    key="/k",
    log="/l",
    pusher=("REMOTE_USER", "CI=service:{}"),
    owner=(7,),
    allowed_signers="/a$b",
    level=("SLSA_SOURCE_LEVEL_2",),
)


def test_a_script_gives_back_its_options() -> None:
    """Whatever characters the paths have; an edited script is not ours."""
    text = script(OPTIONS)
    assert is_ours(text)
    assert options_in(text) == OPTIONS
    assert not is_ours(text.replace(b"/etc/p q", b"/tmp/p q"))
    assert not is_ours(text + b"true\n")
    assert shlex.split(text.decode().splitlines()[3])[0] == "exec"


def test_the_script_imports_nothing_of_the_pushers(tmp_path: Path) -> None:
    """`PYTHONPATH` and modules in the folder git starts the hook in are not imported."""
    (tmp_path / "policyguard.py").write_text("raise SystemExit(0)")
    (tmp_path / "msgspec.py").write_text("raise SystemExit(0)")
    hook = tmp_path / "hook"
    hook.write_bytes(script(OPTIONS))
    hook.chmod(0o755)
    done = subprocess.run(
        [str(hook)],
        cwd=tmp_path,
        input=b"nonsense\n",
        capture_output=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "msgspec.py")},
    )
    assert done.returncode != 0
    assert b"policyguard: push refused" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "found the hook ``"),
        (["post-update"], "found the hook `post-update`"),
        (["pre-receive", "--repo"], "`--repo` has no value"),
        (["pre-receive", "--what", "x"], "unknown option `--what`"),
        (["pre-receive"], "--repo is missing"),
        ([*OPTIONS.to_argv(), "--owner", "root"], "expected a uid"),
    ],
)
def test_options_that_cannot_be_are_refused(words: list[str], message: str) -> None:
    """A hook that was installed wrongly refuses every push, and says which option."""
    with pytest.raises(ConfigurationError, match=message.replace("`", "`")):
        read_git_options(words)


@pytest.mark.parametrize(
    ("sources", "environment", "expected"),
    [
        (("REMOTE_USER",), {"REMOTE_USER": "alice"}, ("user:alice", "REMOTE_USER")),
        (("REMOTE_USER", "CI=service:{}"), {"CI": "lock-bot"}, ("service:lock-bot", "CI")),
        (("WHO={}",), {"WHO": "service:ci"}, ("service:ci", "WHO")),
        (("os",), {"USER": "root"}, ("user:deploy", "os")),
        (("REMOTE_USER", "os"), {"REMOTE_USER": "", "GL_ID": "x"}, ("user:deploy", "os")),
    ],
)
def test_the_first_source_that_is_set_counts(
    sources: tuple[str, ...], environment: dict[str, str], expected: tuple[str, str]
) -> None:
    """And is named with the name."""
    assert pusher_of(sources, environment, "deploy") == expected


@pytest.mark.parametrize("environment", [{}, {"GL_ID": "alice", "USER": "alice"}, {"REMOTE_USER": "service:ci"}])
def test_no_other_variable_names_the_pusher(environment: dict[str, str]) -> None:
    """Nor can a login bring its own type where the operator's template gives one."""
    with pytest.raises(EvidenceError):
        pusher_of(("REMOTE_USER",), environment, None)
