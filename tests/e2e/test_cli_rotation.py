"""`policyguard keys rotate`: a new key on the log of the old one, with overlap on the workers."""

from __future__ import annotations

import pytest

from tests.e2e.cli_lab import CliLab

REQUEST = "requests/allowed.json"


def with_key(lab: CliLab, name: str) -> None:
    path = lab.path("policyguard.yaml")
    path.write_text(path.read_text().replace("key: guard.key ", f"key: {name} "))


def test_a_guard_goes_on_under_a_new_key(lab: CliLab) -> None:
    """Refused before, naming the verb; then the old key is refused, both decisions verify, and audits follow."""
    assert lab.here("decide", REQUEST, "--out", "old.json").code == 0
    assert lab.here("keys", "new", "next.key").code == 0
    refused = lab.here("decide", REQUEST, "--key", "next.key")
    assert (refused.code, "policyguard keys rotate" in refused.complaint) == (69, True), refused.err
    made = lab.here("keys", "rotate", "next.key", "--json").data
    assert made["entry"] == 1
    old = lab.here("decide", REQUEST)
    assert "log was handed over to" in old.complaint
    with_key(lab, "next.key")
    assert lab.here("decide", REQUEST, "--out", "new.json").code == 0
    verify = ("--request", REQUEST)
    assert lab.here("verify", "old.json", *verify).code == 0
    assert lab.here("verify", "new.json", *verify).code == 77
    trust = lab.path("trust.yaml")
    text = trust.read_text().replace("keys:\n", f'keys:\n  - key: "{made["public"]}"\n', 1)
    trust.write_text(text.replace("logs:\n", f'logs:\n  - "{made["log"]}"\n', 1))
    for name in ("old.json", "new.json"):
        assert lab.here("verify", name, *verify).code == 0
    assert "sound" in lab.here("audit", "verify").out.lower()
    assert made["log"] in lab.here("audit", "show", "1").out
    assert "handed over" in lab.here("audit", "tail").out


def test_a_key_is_not_rotated_to_itself_or_by_a_stranger(lab: CliLab) -> None:
    """One line, and the log as it was."""
    assert lab.here("decide", REQUEST).code == 0
    assert lab.here("keys", "new", "other.key").code == 0
    itself = lab.here("keys", "rotate", "guard.key")
    assert (itself.code, "the new key is the old one" in itself.complaint) == (78, True)
    stranger = lab.here("keys", "rotate", "guard.key", "--key", "other.key")
    assert stranger.code == 69, stranger.err
    assert lab.here("decide", REQUEST).code == 0


def test_the_configuration_is_named_from_anywhere(lab: CliLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """`keys rotate --config FILE`, as every other verb that reads a configuration."""
    assert lab.here("decide", REQUEST).code == 0
    assert lab.here("keys", "new", "next.key").code == 0
    elsewhere = lab.path("elsewhere")
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    ended = lab.here("keys", "rotate", "../next.key", "--config", "../policyguard.yaml")
    assert (ended.code, ended.out.startswith("entry 1 hands the log over")) == (0, True), ended.err
