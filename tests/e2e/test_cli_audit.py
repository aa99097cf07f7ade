"""The log on the command line: verified, shown, proved, followed; and what tampering looks like there."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey
from policyguard.audit.merkle import ProofError
from policyguard.guard import log_origin
from policyguard.keyfiles import read_private_key
from tests.e2e.cli_lab import CliLab
from tests.unit.test_docs_run import ROOT, blocks

REQUESTS = ("allowed", "denied-stranger", "denied-ceiling")


@pytest.fixture
def logged(lab: CliLab) -> CliLab:
    """A lab whose log holds three decisions."""
    for name in REQUESTS:
        lab.here("decide", f"requests/{name}.json")
    return lab


def change(log: Path, statement: str, *values: object) -> None:
    """Change the log behind everybody's back."""
    with sqlite3.connect(log) as connection:
        connection.execute(statement, values)
    connection.close()


def test_a_sound_log_verifies(logged: CliLab) -> None:
    """`audit verify` says how much of which log adds up, and whose signatures it checked."""
    ended = logged.here("audit", "verify", "--json")
    assert ended.code == 0
    data = ended.data
    assert (data["verified"], data["signatures_checked"], data["size"]) == (True, True, 3)
    assert logged.here("audit", "verify").out.startswith("SOUND   3 entries of policyguard/")


def test_a_log_alone_is_held_against_itself(logged: CliLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without trust and key the log is still recomputed, and the answer says that nobody's signature was checked."""
    monkeypatch.chdir(tmp_path)
    ended = logged.here("audit", "verify", "--log", str(logged.path("audit.db")))
    assert ended.code == 0
    assert "signatures were not checked" in ended.err
    data = logged.here("audit", "verify", "--json", "--log", str(logged.path("audit.db"))).data
    assert data["signatures_checked"] is False


def test_entries_are_printed(logged: CliLab) -> None:
    """`tail` shows one line for each of the newest, `show` the whole statement of one."""
    lines = logged.here("audit", "tail", "-n", "2").out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2"]
    assert "DENY" in lines[0]
    assert [entry["decision"] for entry in logged.entries()] == ["allow", "deny", "deny"]
    shown = logged.here("audit", "show", "0", "--json").data
    assert (shown["entry"], shown["statement"]["predicate"]["decision"]) == (0, "allow")
    assert '"read-own-team"' in logged.here("audit", "show", "0").out


def test_what_is_proved_verifies(logged: CliLab) -> None:
    """`prove ENTRY` prints a SignedDecision that a worker accepts, made from the log alone."""
    ended = logged.here("audit", "prove", "0")
    logged.path("proved.json").write_text(ended.out)
    assert logged.here("verify", "proved.json", "--request", "requests/allowed.json").code == 0
    assert logged.here("audit", "prove", "1").code == 0
    consistency = logged.here("audit", "prove", "--since", "2").data
    assert consistency["old_size"] == 2
    assert consistency["path"]


def test_an_auditor_checks_a_newer_checkpoint_without_the_log(logged: CliLab) -> None:
    """By the function of `docs/log.md`; a checkpoint of another history, signed by the same log, is refused."""
    namespace: dict[str, Any] = {}
    (block,) = blocks(ROOT / "docs" / "log.md", "python")
    exec(block, namespace)
    kept, trust = logged.here("audit", "prove").out.encode(), logged.path("trust.yaml").read_bytes()
    logged.here("decide", "requests/allowed.json")
    proof = logged.here("audit", "prove", "--since", "3").out.encode()
    assert namespace["check_continues"](kept, proof, trust) == 4
    logged.path("audit.db").rename(logged.path("audit.db.old"))
    for path in logged.folder.glob("*.head"):
        path.unlink()
    for _ in range(4):
        logged.here("decide", "requests/allowed.json")
    other = logged.here("audit", "prove", "--since", "3").out.encode()
    with pytest.raises(ProofError, match="does not begin with"):
        namespace["check_continues"](kept, other, trust)


@pytest.mark.parametrize("words", [("show", "3"), ("prove", "3"), ("prove", "--since", "4")], ids=str)
def test_what_is_not_there_is_reported(words: tuple[str, ...], logged: CliLab) -> None:
    """An entry beyond the log is one line and exit code 69."""
    ended = logged.here("audit", *words)
    assert (ended.code, ended.out) == (69, "")
    assert ended.complaint


def test_verify_names_the_step(logged: CliLab) -> None:
    """A signed decision for another request, audience, trust or decision is refused at its step, exit code 77."""
    logged.here("decide", "--out", "s.json", "requests/allowed.json")
    logged.here("decide", "--out", "denied.json", "requests/denied-stranger.json")
    other = logged.write_request("other.json", context={"ticket": "OPS-1"})
    cases = {
        "V1": ("requests/allowed.json", "--request", "requests/allowed.json"),
        "V7": ("s.json", "--request", other),
        "V8": ("s.json", "--request", "requests/allowed.json", "--audience", "cluster-b"),
        "V10": ("denied.json", "--request", "requests/denied-stranger.json"),
    }
    for step, words in cases.items():
        ended = logged.here("verify", *words)
        assert (ended.code, ended.out) == (77, ""), step
        assert ended.complaint.startswith(f"policyguard: {step}: ")
    assert logged.here("verify", "s.json", "--request", "requests/allowed.json", "--replay-store", "used.db").code == 0
    again = logged.here("verify", "s.json", "--request", "requests/allowed.json", "--replay-store", "used.db")
    assert (again.code, again.complaint[:17]) == (77, "policyguard: V11:")


TRUST = {
    "a stranger's log": ("V2", "LOG", "OTHER_LOG"),
    "a stranger's key": ("V4", "KEY", "OTHER_KEY"),
    "a key that had expired": ("V4", "name: guard", "name: guard\n    expires: '2020-01-01T00:00:00Z'"),
    "a key of the future": ("V4", "name: guard", "name: guard\n    notBefore: '2100-01-01T00:00:00Z'"),
    "another policy digest": ("V9", "minEpoch: 1", f'digests: ["{"0" * 64}"]'),
    "an epoch to come": ("V9", "minEpoch: 1", "minEpoch: 2"),
}


@pytest.mark.parametrize(("step", "old", "new"), TRUST.values(), ids=list(TRUST))
def test_trust_decides_which_signers_a_worker_accepts(step: str, old: str, new: str, logged: CliLab) -> None:
    """One line of trust.yaml changed, and the same decision no longer counts; the step is named."""
    logged.here("decide", "--out", "s.json", "requests/allowed.json")
    words = ("verify", "s.json", "--request", "requests/allowed.json")
    assert logged.here(*words).code == 0
    own, other = read_private_key(logged.path("guard.key")).public, PrivateKey.generate(b"\1" * 32).public
    names = {
        "LOG": NoteKey(log_origin(own), own).text,
        "OTHER_LOG": NoteKey(log_origin(own), other).text,
        "KEY": own.text,
        "OTHER_KEY": other.text,
    }
    trust = logged.path("trust.yaml").read_text()
    edited = trust.replace(names.get(old, old), names.get(new, new))
    assert edited != trust
    logged.path("trust.yaml").write_text(edited)
    ended = logged.here(*words)
    assert (ended.code, ended.out) == (77, "")
    assert ended.complaint.startswith(f"policyguard: {step}: ")


def test_one_changed_byte_is_named(logged: CliLab) -> None:
    """A byte of an entry changed in the file: exit code 1 and the entry's number, in text and JSON."""
    (leaf,) = sqlite3.connect(logged.path("audit.db")).execute("SELECT leaf FROM entries WHERE idx = 1").fetchone()
    change(
        logged.path("audit.db"),
        "UPDATE entries SET leaf = ? WHERE idx = 1",
        leaf[:-9] + bytes([leaf[-9] ^ 1]) + leaf[-8:],
    )
    ended = logged.here("audit", "verify")
    assert (ended.code, ended.out[:16]) == (1, "BROKEN  entry 1:")
    data = logged.here("audit", "verify", "--json")
    assert (data.code, data.data["verified"], data.data["entry"]) == (1, False, 1)


def test_an_entry_taken_out_is_named(logged: CliLab) -> None:
    """A hole in the middle is found where it begins."""
    change(logged.path("audit.db"), "DELETE FROM entries WHERE idx = 1")
    ended = logged.here("audit", "verify", "--json")
    assert (ended.code, ended.data["entry"]) == (1, 1)


def forget_head(lab: CliLab) -> None:
    """Remove the head file, as who cuts the log might, too; only what is kept elsewhere is left then."""
    for path in lab.folder.glob("*.head"):
        path.unlink()


def test_a_stored_checkpoint_shows_truncation(logged: CliLab) -> None:
    """The newest entries cut off leave a log that adds up; the checkpoint kept elsewhere says that it was longer."""
    kept = logged.path("kept.txt")
    kept.write_text(logged.here("audit", "prove").out)
    assert logged.here("audit", "verify", "--checkpoint", "kept.txt").code == 0
    change(logged.path("audit.db"), "DELETE FROM entries WHERE idx = 2")
    assert logged.here("audit", "verify").code == 1
    forget_head(logged)
    assert logged.here("audit", "verify").code == 0
    ended = logged.here("audit", "verify", "--checkpoint", "kept.txt")
    assert (ended.code, ended.out[:6]) == (1, "BROKEN")


def test_a_checkpoint_that_is_none_says_nothing_about_the_log(logged: CliLab) -> None:
    """Bad input is 65, and never a broken log; neither is the checkpoint of another log."""
    kept = logged.here("audit", "prove").out
    origin = kept.partition("\n")[0]
    wrong = {
        "": "note has no signature lines after an empty line",
        "hello\n": "note has no signature lines after an empty line",
        kept.replace(
            f"\n{kept.split(chr(10))[1]}\n", "\nx\n", 1
        ): "checkpoint has the size `x`, expected a decimal number",
        kept.replace(origin, "other.log"): "found a checkpoint of log `other.log`",
    }
    for text, reason in wrong.items():
        logged.path("kept.txt").write_text(text)
        for verb in (("audit", "verify"), ("audit", "open-reviews")):
            ended = logged.here(*verb, "--checkpoint", "kept.txt")
            assert (ended.code, ended.out) == (65, ""), ended
            assert reason in ended.err
            assert f"expected a checkpoint of log `{origin}`" in ended.err
    logged.path("kept.txt").write_text(kept)
    assert logged.here("audit", "verify", "--checkpoint", "kept.txt").code == 0


def test_a_stored_checkpoint_shows_another_history(logged: CliLab) -> None:
    """A log written anew with the same key is as long and sound, and still not the one whose checkpoint was kept."""
    kept = logged.path("kept.txt")
    kept.write_text(logged.here("audit", "prove").out)
    logged.path("audit.db").unlink()
    forget_head(logged)
    for name in REQUESTS:
        logged.here("decide", f"requests/{name}.json")
    assert logged.here("audit", "verify").code == 0
    assert logged.here("audit", "verify", "--checkpoint", "kept.txt").code == 1


def test_a_checkpoint_file_that_is_none_is_refused(logged: CliLab) -> None:
    """What was kept must be a checkpoint; anything else does not count as agreement."""
    logged.path("kept.txt").write_text("nothing of the kind\n")
    assert logged.here("audit", "verify", "--checkpoint", "kept.txt").code == 65


def test_a_log_of_another_key_is_refused(logged: CliLab) -> None:
    """Deciding with another key on the same log stops before anything is added."""
    logged.here("keys", "new", "other.key")
    ended = logged.here("decide", "--key", "other.key", "requests/allowed.json")
    assert ended.code == 69, ended.err
    assert ended.complaint
    assert len(logged.entries()) == 3


def test_a_read_only_copy_can_be_audited(logged: CliLab, tmp_path: Path) -> None:
    """An auditor's copy on a medium that nobody may write verifies like the original."""
    copy = tmp_path / "copy.db"
    shutil.copy(logged.path("audit.db"), copy)
    copy.chmod(0o400)
    assert logged.here("audit", "verify", "--log", str(copy)).code == 0


def test_tail_follows(logged: CliLab) -> None:
    """A reader that goes away, as `head` does, ends `tail` without a word."""
    ended = logged.process("audit", "tail", shell='set -o pipefail; "$@" | head -1')
    assert ended.out.split()[0] == "0"
    assert ended.err == ""


def test_the_log_is_readable_as_json_lines(logged: CliLab) -> None:
    """Each line of `tail --json` is one object with the fields that a SIEM wants."""
    for line in logged.here("audit", "tail", "--json").out.splitlines():
        fields = {"entry", "decision", "requester", "action", "resource", "issued_at", "reason_codes", "decision_id"}
        assert set(json.loads(line)) == fields
