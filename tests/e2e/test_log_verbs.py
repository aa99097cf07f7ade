"""The log as an operator and an auditor meet it: entries that cannot be read, rotation, a reset, what the end says."""

from __future__ import annotations

import json

import pytest

from policyguard.attest.dsse import sign
from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey, sign_note
from policyguard.attest.statement import MAX_STATEMENT_BYTES, PAYLOAD_TYPE
from policyguard.audit.head import HeadLocation, read_head
from policyguard.audit.log import Log
from policyguard.guard import log_origin
from policyguard.keyfiles import read_private_key
from tests.e2e.cli_lab import CliLab


def test_readers_skip_what_they_cannot_read(lab: CliLab) -> None:
    """An entry of a writer without bounds, as version 0.1.0 was: reported, skipped, exit code 1."""
    lab.here("decide", "requests/allowed.json")
    key = read_private_key(lab.path("guard.key"))
    with Log.open(lab.path("audit.db"), key) as log:
        log.append(sign(b"{" + b" " * MAX_STATEMENT_BYTES + b"}", PAYLOAD_TYPE, (key,)).to_bytes())
        log.append(b"no envelope")
    lab.here("decide", "requests/denied-stranger.json")
    tail = lab.here("audit", "tail")
    assert tail.code == 1
    assert [line.split()[0] for line in tail.out.splitlines()] == ["0", "3"]
    assert [line.split(":")[2].strip() for line in tail.err.splitlines()] == ["entry 1", "entry 2"]
    assert lab.here("audit", "show", "1").code == 1
    assert lab.here("audit", "show", "3").code == 0
    reviews = lab.here("audit", "open-reviews")
    assert (reviews.code, reviews.out) == (1, "nothing to review\n")
    assert reviews.err.count("skipped: entry") == 2
    assert lab.here("audit", "verify").code == 0


def test_a_rotated_log_is_verified_as_a_chain(lab: CliLab) -> None:
    lab.here("decide", "requests/allowed.json")
    kept = lab.here("audit", "prove").out
    lab.path("kept.note").write_text(kept)
    rotated = lab.here("audit", "rotate", "--json")
    assert rotated.code == 0, rotated.err
    archive = rotated.data["archive"]
    assert lab.here("decide", "requests/allowed.json").code == 0
    verified = lab.here("audit", "verify", "--previous", archive, "--checkpoint", "kept.note", "--json")
    assert (verified.code, verified.data["size"]) == (0, 2)
    assert "end_checked" not in verified.data
    # Without the older log the checkpoint that was kept from it is in no tree.
    lonely = lab.here("audit", "verify", "--checkpoint", "kept.note")
    assert (lonely.code, "this log was rotated: give --previous FILE" in lonely.out) == (1, True), lonely.out
    assert "BROKEN" not in lonely.out
    assert lab.here("audit", "tail").out.splitlines()[0].split()[2] == "ROTATED"
    shown = json.loads(lab.here("audit", "show", "0", "--json").out)
    assert shown["statement"]["old"]["size"] == 1
    assert lab.here("audit", "verify", "--log", archive, "--previous", "audit.db").code == 1


def test_an_entry_beyond_the_end_is_no_missing_entry(lab: CliLab) -> None:
    lab.here("decide", "requests/allowed.json")
    ended = lab.here("audit", "show", "999")
    assert (ended.code, "the log has 1 entry, numbered from 0" in ended.err) == (69, True), ended.err


def test_a_rotated_log_that_lost_its_end_is_broken(lab: CliLab) -> None:
    """The head file is of this log: no rotation explains what it names and the log does not have."""
    lab.here("decide", "requests/allowed.json")
    lab.path("kept.note").write_text(lab.here("audit", "prove").out)
    assert lab.here("audit", "rotate").code == 0
    older = lab.path("audit.db").read_bytes()
    lab.here("decide", "requests/allowed.json")
    lab.path("audit.db").write_bytes(older)
    for words in ((), ("--checkpoint", "kept.note")):
        ended = lab.here("audit", "verify", *words)
        assert (ended.code, ended.out[:6]) == (1, "BROKEN"), ended.out
        assert "log has 1 entry, the head file says 2: the end was cut off" in ended.out


def test_a_deleted_log_is_accepted_with_a_reason_only(lab: CliLab) -> None:
    lab.here("decide", "requests/allowed.json")
    lab.path("audit.db").unlink()
    refused = lab.here("decide", "requests/allowed.json")
    assert refused.code == 69
    assert "is gone" in refused.err
    assert "accept-reset" in refused.err
    assert not lab.path("audit.db").exists()
    assert lab.here("audit", "accept-reset").code == 64
    accepted = lab.here("audit", "accept-reset", "--reason", "the disk was lost", "--json")
    assert (accepted.code, accepted.data["entry"]) == (0, 0)
    assert lab.here("decide", "requests/allowed.json").code == 0
    assert lab.here("audit", "verify").code == 0
    again = lab.here("audit", "accept-reset", "--reason", "once more")
    assert again.code == 78
    assert "goes on from its head file" in again.err


def test_a_configured_witness_is_needed(lab: CliLab) -> None:
    """A witness in the configuration: the operator asks for a countersignature over the old head."""
    witness = PrivateKey.generate(bytes(range(1, 33)))
    name = NoteKey("witness.example/w", witness.public)
    config = lab.path("policyguard.yaml")
    config.write_text(config.read_text() + f'witness: "{name.text}"\n')
    lab.here("decide", "requests/allowed.json")
    key = read_private_key(lab.path("guard.key"))
    head = read_head(HeadLocation.of(lab.path("audit.db")), log_origin(key.public))
    assert head is not None
    checkpoint = head.checkpoint()
    assert checkpoint is not None
    lab.path("audit.db").unlink()
    words = ("audit", "accept-reset", "--reason", "lost")
    assert "--witness is missing" in lab.here(*words).err
    lab.path("note").write_bytes(sign_note(checkpoint.to_text(), name, witness))
    assert lab.here(*words, "--witness", "note").code == 0


@pytest.mark.parametrize("judged", [True, False])
def test_verify_says_whether_the_end_was_judged(lab: CliLab, judged: bool) -> None:
    lab.here("decide", "requests/allowed.json")
    for path in () if judged else lab.folder.glob("*.head"):
        path.unlink()
    verified = lab.here("audit", "verify")
    assert verified.code == 0
    assert ("sound up to 1; the end cannot be judged" in verified.out) is not judged
    assert lab.here("audit", "verify", "--json").data.get("end_checked", True) is judged


def test_verify_misses_the_entries_that_the_head_names(lab: CliLab) -> None:
    """An older copy is sound in itself, and not for an auditor who has the head file."""
    lab.here("decide", "requests/allowed.json")
    older = lab.path("audit.db").read_bytes()
    lab.here("decide", "requests/allowed.json")
    lab.path("audit.db").write_bytes(older)
    verified = lab.here("audit", "verify")
    assert verified.code == 1
    assert "log has 1 entry, the head file says 2: the end was cut off" in verified.out
