"""policyguard.yaml: few options, paths relative to the file, and every mistake named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policyguard.config.file import FILE_NAME, Config, find_config, read_config
from policyguard.errors import ConfigurationError
from policyguard.model.decision import DEFAULT_LIFETIME_S

WHOLE = """\
policies: policies
key: /keys/guard.key
log: ../audit.db
trust: trust.yaml
audience: cluster-a
lifetime: 1h30m
"""


def written(folder: Path, text: str) -> Path:
    path = folder / FILE_NAME
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """Relative paths begin at the configuration, absolute ones stay, and the rest is as written."""
    path = written(tmp_path, WHOLE)
    assert read_config(path) == Config(
        policies=tmp_path / "policies",
        key=Path("/keys/guard.key"),
        log=tmp_path / "../audit.db",
        trust=tmp_path / "trust.yaml",
        audience="cluster-a",
        lifetime_s=5400,
        source=path,
    )


def test_no_file_is_no_configuration(tmp_path: Path) -> None:
    """Without a file every option is not given, and the lifetime is the default."""
    assert find_config(tmp_path, None) == Config()
    assert find_config(tmp_path, "") == Config()
    assert Config().lifetime_s == DEFAULT_LIFETIME_S


def test_the_variable_wins(tmp_path: Path) -> None:
    """The file that the variable names is read, not the one in the folder; a missing one is an error, no fallback."""
    written(tmp_path, "audience: here")
    other = tmp_path / "other.yaml"
    other.write_text("audience: there")
    assert find_config(tmp_path, str(other)).audience == "there"
    assert find_config(tmp_path, None).audience == "here"
    with pytest.raises(ConfigurationError, match=r"gone.yaml: cannot be read: no such file"):
        find_config(tmp_path, str(tmp_path / "gone.yaml"))


def test_a_dangling_link_is_an_error(tmp_path: Path) -> None:
    """A configuration that is there but leads nowhere is not the same as none."""
    (tmp_path / FILE_NAME).symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        find_config(tmp_path, None)


WRONG = {
    "an unknown option": ("polices: x", "unknown option `polices`, expected one of `policies`"),
    "a list": ("- policies", "found a list, expected a map"),
    "nothing": ("", r"policyguard\.yaml"),
    "a number for a path": ("key: 7", "key: found an integer, expected text"),
    "a bool for a path": ("key: true", "key: found a bool, expected text"),
    "a map for a path": ("key: {}", "key: found a map, expected text"),
    "an empty path": ("key: ''", "key: found text, expected text|key"),
    "an option twice": ("key: a\nkey: b", r"policyguard\.yaml:2:1: "),
    "an alias": ("key: &a x\nlog: *a", r"policyguard\.yaml:1:6: "),
    "a tag": ("key: !!python/object x", r"policyguard\.yaml:1:6: "),
    "a merge key": ("<<: {key: a}", r"policyguard\.yaml:1:1: "),
    "two documents": ("key: a\n---\nkey: b", r"policyguard\.yaml"),
    "an open bracket": ("key: [", r"policyguard\.yaml:\d+:\d+: "),
    "a lifetime of nothing": ("lifetime: 0s", "lifetime: found `0s`, expected more than 0"),
    "a negative lifetime": ("lifetime: -5m", "lifetime: found `-5m`, expected a duration"),
    "a lifetime without a unit": ("lifetime: '15'", "lifetime: found `15`, expected a duration"),
    "a lifetime of ages": ("lifetime: " + "9" * 30 + "d", "lifetime: "),
    "fifty thousand brackets": ("[" * 50_000, r"policyguard\.yaml"),
    "a megabyte": ("#" * 1_000_000, "larger than 65536 bytes"),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=list(WRONG))
def test_mistakes_are_named(text: str, said: str, tmp_path: Path) -> None:
    """Each is one configuration error that begins with the file."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigurationError, match=said) as caught:
        read_config(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """A FIFO or a folder in the place of the file is refused at once."""
    os.mkfifo(tmp_path / FILE_NAME)
    with pytest.raises(ConfigurationError, match="found a FIFO, expected a regular file"):
        find_config(tmp_path, None)
    with pytest.raises(ConfigurationError, match="found a folder, expected a regular file"):
        find_config(tmp_path, str(tmp_path))


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    """A file that is not UTF-8 is refused."""
    (tmp_path / FILE_NAME).write_bytes(b"key: \xff")
    with pytest.raises(ConfigurationError):
        find_config(tmp_path, None)


MISTAKES = {
    "a misspelled option": ("key: k\npolices: p\n", "policyguard.yaml:2:1: unknown option `polices`", "`policies:`"),
    "a number as lifetime": ("lifetime: 15\n", "lifetime: found an integer, expected a duration such as `15m`", ""),
    "an empty audience": ("audience:\n", "policyguard.yaml:1:10: audience: found ", ""),
    "an audience of empty text": ('audience: ""\n', "audience: found empty text, expected text", ""),
}


@pytest.mark.parametrize(("text", "message", "help"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_located_and_explained(text: str, message: str, help: str, tmp_path: Path) -> None:
    """The field is named, a misspelled one with its line and the nearest option."""
    with pytest.raises(ConfigurationError) as caught:
        read_config(written(tmp_path, text))
    assert message in str(caught.value)
    assert help in (caught.value.help or "")
