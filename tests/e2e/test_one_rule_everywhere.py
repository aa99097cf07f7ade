"""Rules that hold for every verb and every hook: one exit code for one mistake, one way to read the passphrase."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.keyfiles import write_private_key
from tests.e2e.cli_lab import ROOT, CliLab
from tests.e2e.repo_lab import RESOURCE, make_forge

JOB = "resource: job:team/vision/run-17\naction: job:submit\n"
PLACES = ("--policies=policies", "--key=guard.key", "--log=audit.db")
ASKERS = {
    "decide": ("decide", "requests/allowed.json"),
    "explain": ("explain", "requests/allowed.json"),
    "hook": ("hook", *PLACES),
    "hook from a configuration": ("hook", "--config", "policyguard.yaml"),
    "run": ("run", "--config", "../policyguard.yaml", "--job", "../job.yaml", "--", "true"),
    "check-engine": ("check-engine", "policies"),
    "compile": ("compile", "policies", "-o", "compiled"),
    "lint": ("lint", "policies"),
}


@pytest.mark.parametrize("words", ASKERS.values(), ids=ASKERS)
def test_broken_policies_are_bad_data_for_everybody(lab: CliLab, words: tuple[str, ...]) -> None:
    """The author wrote them, so it is 65, as for a broken request; `decide` said 65 and `hook` 78."""
    lab.path("policies", "broken.yaml").write_text("apiVersion: policyguard/v1\nkind: Nonsense\n")
    lab.path("job.yaml").write_text(JOB)
    lab.path("code").mkdir()
    where = lab.path("code") if words[0] == "run" else None
    ended = lab.process(*words, cwd=where, stdin=lab.path("requests", "allowed.json").read_bytes())
    assert ended.code == (1 if words[0] == "lint" else 65), ended.err
    if words[0] == "hook":
        assert ended.data["decision"] is False


def test_broken_policies_refuse_a_push_as_bad_data(tmp_path: Path) -> None:
    """The hook of a repository answers like the others; git refuses the push."""
    forge = make_forge(tmp_path)
    shutil.copytree(ROOT / "policies", tmp_path / "broken")
    (tmp_path / "broken" / "broken.yaml").write_text("apiVersion: policyguard/v1\nkind: Nonsense\n")
    ended = forge.policyguard(
        *("hook", "git", "pre-receive", "--repo", "trainer.git", "--policies", "broken", "--key", "guard.key"),
        *("--log", "audit.db", "--resource", RESOURCE, "--pusher", "REMOTE_USER"),
        stdin=f"{forge.value()} {'0' * 40} refs/heads/main\n".encode(),
        REMOTE_USER="alice",
    )
    assert ended.status == 65, ended.text


@pytest.mark.parametrize("secret", [b"correct horse", b"\xff\xfe caf\xe9"], ids=["UTF-8", "other bytes"])
@pytest.mark.parametrize("asker", ["decide", "explain", "hook", "hook from a configuration", "run"])
def test_a_passphrase_is_bytes_for_everybody(lab: CliLab, asker: str, secret: bytes) -> None:
    """A passphrase that is not UTF-8 worked for `decide` and made `hook` fail."""
    lab.path("guard.key").unlink()
    write_private_key(lab.path("guard.key"), PrivateKey.generate(bytes(32)), passphrase=secret)
    lab.path("job.yaml").write_text(JOB)
    lab.path("code").mkdir()
    ended = lab.process(
        *ASKERS[asker],
        cwd=lab.path("code") if asker == "run" else None,
        stdin=lab.path("requests", "allowed.json").read_bytes(),
        variables={"POLICYGUARD_PASSPHRASE": os.fsdecode(secret)},
    )
    expected = {"run": 77}.get(asker, 0)
    assert ended.code == expected, (ended.out, ended.err)
    if asker.startswith("hook"):
        assert json.loads(ended.out)["decision"] is True
