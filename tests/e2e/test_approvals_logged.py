"""Approvals as entries of the log: taken in, read by the collectors, shown to auditors, and there to stay."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.audit import approvals as entries
from policyguard.audit.approvals import approval_leaf
from policyguard.audit.log import Log
from policyguard.keyfiles import read_private_key, write_private_key
from tests.e2e.cli_lab import CliLab, Ended
from tests.e2e.test_approvals_asked import KEYS, KILL, Given, by_decide, by_hook

APPROVE = ("approve", "--request", "kill.json", "--as", "user:omar", "--reason", "the node burns")


@pytest.fixture
def logged(lab: CliLab) -> CliLab:
    """The example lab with omar's key, approvals in the decision log, and a kill that was denied once."""
    persons = lab.path("policies", "persons.yaml")
    mail = "emails: [omar@lab.example]"
    persons.write_text(persons.read_text().replace(mail, f'{mail}, keys: ["{KEYS["omar"].public.text}"]'))
    with lab.path("policyguard.yaml").open("a") as file:
        file.write("approvalLog: audit.db\n")
    lab.path("kill.json").write_text(json.dumps(KILL))
    write_private_key(lab.path("omar.key"), KEYS["omar"])
    write_private_key(lab.path("mallory.key"), KEYS["mallory"])
    assert by_decide(lab).code == 77
    return lab


def approve(lab: CliLab, *words: str, key: str = "omar.key") -> Ended:
    return lab.here(*APPROVE, "--key", key, *words)


@pytest.mark.parametrize("where", [(), ("--log", "audit.db")], ids=["by configuration", "by option"])
def test_an_approval_in_the_log_counts(where: tuple[str, ...], logged: CliLab) -> None:
    """Signed into the log it is an entry, the kill is allowed by it, and then it is used up."""
    made = approve(logged, *where)
    assert (made.code, made.err) == (0, "")
    assert "entry     1 of audit.db" in made.out
    assert by_decide(logged).code == 0
    again = by_decide(logged)
    assert again.code == 77
    assert "approval.used: `log entry 1` counts once, and counted for entry 2 of the log" in again.data["explanation"]


def test_a_hook_reads_the_log(logged: CliLab) -> None:
    """The same through the hook's process."""
    assert by_hook(logged)[0] == 77
    assert approve(logged).code == 0
    assert by_hook(logged)[0] == 0


@pytest.mark.parametrize("form", ["detached", "envelope"])
def test_what_somebody_else_signed_is_taken_in(form: str, logged: CliLab) -> None:
    """Who keeps the log takes omar's file in, whichever form it has; the second time it stands there already."""
    if form == "detached":
        Given().put(logged.folder, "omar")
    else:
        assert approve(logged, "--folder", ".").code == 0
        next(logged.folder.glob("user-omar-*.json")).rename(logged.path("omar.json"))
    taken = logged.here("approve", "--add", "omar.json")
    assert (taken.code, taken.out) == (0, "omar.json: entry 1 of audit.db\n")
    assert logged.here("approve", "--add", "omar.json").out == "omar.json: entry 1 of audit.db, which has it already\n"
    assert by_decide(logged).code == 0


def test_auditors_see_approvals(logged: CliLab) -> None:
    """`tail`, `show`, `verify` and `prove` show the entry for what it is, and no worker takes it for a decision."""
    assert approve(logged).code == 0
    first, second = (json.loads(line) for line in logged.here("audit", "tail", "--json").out.splitlines())
    assert first["decision"] == "deny"
    assert (second["entry"], second["approver"], second["action"]) == (1, "user:omar", "job:breakglass-kill")
    assert (second["key"], second["reason"]) == (KEYS["omar"].public.keyid, "the node burns")
    assert (
        "  APPROVAL  user:omar  job:breakglass-kill  job:team/vision/run-21  until 20"
        in logged.here("audit", "tail").out
    )
    assert (
        json.loads(logged.here("audit", "show", "1", "--json").out)["statement"]["predicate"]["approver"] == "user:omar"
    )
    shown = logged.here("audit", "show", "1").out
    assert '"reason": "the node burns"' in shown
    assert "2 entries of" in logged.here("audit", "verify").out
    assert ", 1 of them approvals, under 2 checkpoints" in logged.here("audit", "verify").out
    assert logged.here("audit", "verify", "--json").data["approvals"] == 1
    proof = logged.here("audit", "prove", "1").out
    logged.path("proof.json").write_text(proof)
    refused = logged.here("verify", "proof.json", "--audience", "local", "--request", "kill.json")
    assert (refused.code, refused.out) == (77, "")
    assert "V5: payload type is `application/vnd.policyguard.approval.v1+json`" in refused.complaint


def test_an_approval_cannot_be_taken_out_unseen(logged: CliLab) -> None:
    """Its row deleted, or put in another one's place, the log does not add up, and the entry is named."""
    assert approve(logged).code == 0
    assert by_decide(logged).code == 0
    assert logged.here("audit", "verify").code == 0
    with sqlite3.connect(logged.path("audit.db")) as connection:
        connection.execute("DELETE FROM entries WHERE idx = 1")
    connection.close()
    ended = logged.here("audit", "verify")
    assert ended.code == 1
    assert "entry 1 is missing" in ended.out


def test_a_log_of_approvals_alone(logged: CliLab) -> None:
    """Approvals may have a log of their own, made at the first one; the decision log then has decisions only."""
    text = logged.path("policyguard.yaml").read_text().replace("approvalLog: audit.db", "approvalLog: approvals.db")
    logged.path("policyguard.yaml").write_text(text)
    assert (
        "approval.unreadable: `approvals.db` log `approvals.db` does not exist" in by_decide(logged).data["explanation"]
    )
    assert approve(logged).code == 0
    assert by_decide(logged).code == 0
    assert [entry["decision"] for entry in logged.entries()] == ["deny", "deny", "allow"]
    assert logged.here("audit", "tail", "--log", "approvals.db", "--json").data["entry"] == 0


def test_listing_reads_the_log_too(logged: CliLab) -> None:
    """`approve --list` says of an entry whether it counts, and once it has counted, that it is used up."""
    assert approve(logged).code == 0
    listed = logged.here("approve", "--list", "--request", "kill.json", "--json")
    assert listed.code == 0
    assert [(row["source"], row["standing"]) for row in listed.data["approvals"]] == [("log entry 1", "counts")]
    assert by_decide(logged).code == 0
    listed = logged.here("approve", "--list", "--request", "kill.json")
    assert listed.code == 1
    assert "approval.used             log entry 1  counts once, and counted for entry 2 of the log" in listed.out


REFUSED = {
    "signed by nobody known": ("mallory.key", "approval.unknown_signer"),
    "not an approval": ("text", "approval.malformed"),
}


@pytest.mark.parametrize(("source", "code"), REFUSED.values(), ids=list(REFUSED))
def test_what_nobody_known_signed_is_not_taken_in(source: str, code: str, logged: CliLab) -> None:
    """I9: an entry stays for ever, so that it is authenticate for first; the log is as it was."""
    if source == "text":
        logged.path("text").write_text("yes\n")
        ended = logged.here("approve", "--add", "text")
    else:
        ended = approve(logged, key=source)
    assert (ended.code, ended.out) == (65, "")
    assert f"is not taken into the log: {code}" in ended.complaint
    assert len(logged.here("audit", "tail").out.splitlines()) == 1


def test_an_entry_that_is_no_approval_counts_for_nothing(logged: CliLab) -> None:
    """I9: whoever has the log's key may write any line; it is refused by name, and the good one beside it counts."""
    key = read_private_key(logged.path("guard.key"))
    with Log.open(logged.path("audit.db"), key) as log:
        log.append(approval_leaf(b"yes", key))
    assert "approval.malformed: `log entry 1`" in by_decide(logged).data["explanation"]
    assert "entry 1: approval: is neither an envelope" in logged.here("audit", "show", "1").complaint
    assert approve(logged).code == 0
    assert by_decide(logged).code == 0


def test_only_the_newest_entries_are_searched(logged: CliLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """An approval further back than that is not found, which denies; a new one is."""
    monkeypatch.setattr(entries, "MAX_RECENT_ENTRIES", 3)
    assert approve(logged).code == 0
    key = PrivateKey.generate(b"k" * 32)
    with Log.open(logged.path("audit.db"), read_private_key(logged.path("guard.key"))) as log:
        log.append_many([approval_leaf(b"yes", key)] * 3)
    assert by_decide(logged).code == 77
    Given(made_s=-30).put(logged.folder, "another")
    assert logged.here("approve", "--add", "another.json").code == 0
    assert by_decide(logged).code == 0


def test_without_the_logs_key_nothing_is_taken_in(logged: CliLab, tmp_path: Path) -> None:
    """The log is signed by its keeper; another key, or none, is one line and no entry."""
    write_private_key(tmp_path / "other.key", PrivateKey.generate(b"z" * 32))
    config = logged.path("policyguard.yaml")
    text = config.read_text()
    for key, said, code in ((str(tmp_path / "other.key"), "entry 0", 69), ("none.key", "cannot be read", 78)):
        config.write_text(text.replace("key: guard.key", f"key: {key}"))
        ended = approve(logged)
        assert (ended.code, ended.out) == (code, "")
        assert said in ended.complaint
    config.write_text(text)
    assert len(logged.here("audit", "tail").out.splitlines()) == 1
