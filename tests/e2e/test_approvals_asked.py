"""Approvals of a request alone, asked for by `decide`, `hook`, `explain`: what counts, what each refusal says."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from policyguard.attest.approval import NAMESPACE, ApprovalTarget, approval_statement
from policyguard.attest.keys import PrivateKey
from policyguard.attest.sshsig import SshKey, sign
from policyguard.model.request import Request
from policyguard.values import NANOSECONDS_PER_S
from tests.e2e.cli_lab import CliLab, Ended, process_environment

KEYS = {name: PrivateKey(bytes([number]) * 32) for number, name in enumerate(("omar", "ines", "mallory"), 1)}
KILL = {
    "subject": {"type": "user", "id": "ines"},
    "action": {"name": "job:breakglass-kill"},
    "resource": {"type": "job", "id": "team/vision/run-21"},
    "context": {"ticket": "INC-18"},
}
OBSERVED = ("--observed", "context.ticket")


@dataclass(frozen=True)
class Given:
    """One approval as it lies in the folder: whose key, for whom, for what, when, and over which bytes it is signed."""

    key: str = "omar"
    account: str = "user:omar"
    ticket: str = "INC-18"
    subject: str = "ines"
    made_s: int = -60
    lasts_s: int = 1800
    over: bytes | None = None

    def put(self, folder: Path, name: str = "approval") -> None:
        request = Request.from_data(
            {**KILL, "subject": {"type": "user", "id": self.subject}, "context": {"ticket": self.ticket}}
        )
        made = (time.time_ns() // NANOSECONDS_PER_S + self.made_s) * NANOSECONDS_PER_S
        payload = approval_statement(
            subjects={"request": ApprovalTarget(request=request).request_digest},
            action=request.action,
            resource=request.resource.ref,
            approver=self.account,
            reason="the node burns",
            approved_at=made,
            expires=made + self.lasts_s * NANOSECONDS_PER_S,
        ).payload
        (folder / f"{name}.json").write_bytes(payload)
        signature = sign(payload if self.over is None else self.over, NAMESPACE, KEYS[self.key])
        (folder / f"{name}.json.sig").write_bytes(signature)


@pytest.fixture
def asked(lab: CliLab) -> CliLab:
    """The example lab with two engineers' keys, an empty folder of approvals, and a kill to be asked for."""
    persons = lab.path("policies", "persons.yaml")
    text = persons.read_text()
    for name in ("omar", "ines"):
        mail = f"emails: [{name}@lab.example]"
        text = text.replace(mail, f'{mail}, keys: ["{KEYS[name].public.text}"]')
    persons.write_text(text)
    lab.path("approvals").mkdir()
    lab.path("revoked").write_text("")
    with lab.path("policyguard.yaml").open("a") as file:
        file.write("approvals: approvals\nrevokedKeys: revoked\n")
    lab.path("kill.json").write_text(json.dumps(KILL))
    return lab


def by_hook(
    lab: CliLab, *words: str, config: str | None = "policyguard.yaml", cwd: Path | None = None
) -> tuple[int, dict[str, Any]]:
    """Ask through a hook process; what it printed on standard error is nothing."""
    options = ("--config", config) if config is not None else ()
    ended = lab.process("hook", *options, *OBSERVED, *words, stdin=lab.path("kill.json").read_bytes(), cwd=cwd)
    assert ended.err == ""
    return ended.code, ended.data


def by_decide(lab: CliLab, verb: str = "decide") -> Ended:
    return lab.here(verb, *OBSERVED, "--json", "kill.json")


def revoke_omar(lab: CliLab) -> None:
    lab.path("revoked").write_text(SshKey(KEYS["omar"].public.raw).fingerprint + "\n")


def ask_as_omar(lab: CliLab) -> None:
    lab.path("kill.json").write_text(json.dumps({**KILL, "subject": {"type": "user", "id": "omar"}}))


def nothing(lab: CliLab) -> None:
    """Leave the lab as it is."""


ADMIN = Given(account="user:omar-admin", subject="omar")
REFUSED: dict[str, tuple[Given, Callable[[CliLab], None], str]] = {
    "forged: signed over other bytes": (Given(over=b"{}"), nothing, "approval.forged"),
    "forged: in omar's name by somebody else's key": (Given(key="mallory"), nothing, "approval.unknown_signer"),
    "forged: in omar's name by the requester's key": (Given(key="ines"), nothing, "approval.not_the_signer"),
    "replayed for another request": (Given(ticket="INC-17"), nothing, "approval.other_request"),
    "replayed for another requester": (Given(subject="tess"), nothing, "approval.other_request"),
    "expired": (Given(made_s=-1900), nothing, "approval.expired"),
    "older than the quorum takes": (Given(made_s=-4000, lasts_s=9000), nothing, "approval.too_old"),
    "from the future": (Given(made_s=600), nothing, "approval.not_yet_valid"),
    "by a revoked key": (Given(), revoke_omar, "approval.revoked_key"),
    "by the requester's second account": (ADMIN, ask_as_omar, "approval.same_person"),
    "by the requester": (Given("ines", "user:ines"), nothing, "approval.contributor"),
}


@pytest.mark.parametrize(("given", "spoil", "code"), REFUSED.values(), ids=list(REFUSED))
def test_an_approval_that_does_not_count_says_why(
    given: Given, spoil: Callable[[CliLab], None], code: str, asked: CliLab
) -> None:
    """Denied by `decide`, `hook` and `explain` alike, with a code of its own and who is missing; no traceback."""
    given.put(asked.path("approvals"))
    spoil(asked)
    decided, explained = by_decide(asked), by_decide(asked, "explain")
    exit_code, hooked = by_hook(asked)
    for answer in (decided.data, explained.data, hooked):
        assert answer["decision"] is False
        assert "needs-approval" in answer["reason_codes"]
        assert f"{code}: " in answer["explanation"]
        assert "missing  1 more person with role `infra-engineer`" in answer["explanation"]
    assert (decided.code, explained.code, exit_code) == (77, 77, 77)
    assert decided.err == explained.err == ""


@pytest.mark.parametrize("verb", ["decide", "hook"])
def test_a_second_person_lets_it_happen_once(verb: str, asked: CliLab) -> None:
    """The twin of every refusal: without an approval denied, with omar's allowed, and used up by that."""
    ask: dict[str, Callable[[], tuple[int, dict[str, Any]]]] = {
        "decide": lambda: (by_decide(asked).code, by_decide(asked, "explain").data),
        "hook": lambda: by_hook(asked),
    }
    denied, answer = ask[verb]()
    assert denied == 77
    assert "ask      user:omar" in answer["explanation"]
    Given().put(asked.path("approvals"))
    assert by_decide(asked, "explain").code == 0
    assert ask[verb]()[0] == 0
    again, answer = ask[verb]()
    assert again == 77
    assert "approval.used: `approval.json` counts once, and counted for entry 1 of the log" in answer["explanation"]
    Given(made_s=-30).put(asked.path("approvals"), "another")
    assert ask[verb]()[0] == 0
    assert [entry["decision"] for entry in asked.entries()] == ["deny", "allow", "deny", "allow"]


def test_a_hook_without_a_configuration_is_configured_by_options(
    asked: CliLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All paths given, no yaml is read: then approvals are those the options name, and without them there are none."""
    Given().put(asked.path("approvals"))
    paths = ("--policies", "policies", "--key", "guard.key", "--log", "audit.db")
    assert by_hook(asked, *paths, config=None)[0] == 77
    assert by_hook(asked, *paths, "--approvals", "approvals", config=None)[0] == 0
    revoke_omar(asked)
    Given(made_s=-30).put(asked.path("approvals"), "another")
    code, answer = by_hook(asked, *paths, "--approvals=approvals", "--revoked-keys", "revoked", config=None)
    assert code == 77
    assert "approval.revoked_key" in answer["explanation"]


def test_measuring_takes_nothing_away_from_a_request(asked: CliLab) -> None:
    """With `--measure` the folder's repository, or that there is none, is no matter for who kills a job."""
    Given().put(asked.path("approvals"))
    elsewhere = asked.folder.parent / "work"
    elsewhere.mkdir()
    code, answer = by_hook(asked, "--measure", config=str(asked.path("policyguard.yaml")), cwd=elsewhere)
    assert code == 0, answer["explanation"]


def test_work_is_not_approved_by_its_request_alone(asked: CliLab) -> None:
    """A large job asked through `decide` has nobody who looked at its code: an approval of the request is not read."""
    request = Request.of("user:alice", "job:submit", "job:team/vision/run-19", gpus=256)
    asked.path("kill.json").write_text(
        json.dumps(
            {
                "subject": {"type": "user", "id": "alice"},
                "action": {"name": "job:submit"},
                "resource": {"type": "job", "id": "team/vision/run-19", "properties": {"gpus": 256}},
            }
        )
    )
    made = time.time_ns() // NANOSECONDS_PER_S * NANOSECONDS_PER_S
    payload = approval_statement(
        subjects={"request": ApprovalTarget(request=request).request_digest},
        action=request.action,
        resource=request.resource.ref,
        approver="user:omar",
        reason="r",
        approved_at=made,
        expires=made + 60 * NANOSECONDS_PER_S,
    ).payload
    asked.path("approvals", "a.json").write_bytes(payload)
    asked.path("approvals", "a.json.sig").write_bytes(sign(payload, NAMESPACE, KEYS["omar"]))
    answer = by_decide(asked)
    assert answer.code == 77
    statement = json.loads(base64.b64decode(answer.data["signed"]["envelope"]["payload"]))
    assert statement["predicate"]["approvals"] == []


@pytest.mark.parametrize("spoil", ["approvals", "revoked"])
def test_where_review_cannot_be_read_nothing_is_approved(spoil: str, asked: CliLab) -> None:
    """The folder or a pinned file is gone: denied, and it is said which; put back, it is allowed."""
    Given().put(asked.path("approvals"))
    asked.path(spoil).rename(asked.path("elsewhere"))
    ended = by_decide(asked)
    assert ended.code == 77
    assert "approval.unreadable" in ended.data["explanation"]
    asked.path("elsewhere").rename(asked.path(spoil))
    assert by_decide(asked).code == 0


def test_the_same_approval_twice_in_the_folder_is_one(asked: CliLab) -> None:
    """A copy, or a second signature over the same statement, is used up with the first."""
    given = replace(Given(), made_s=-90)
    given.put(asked.path("approvals"))
    assert by_decide(asked).code == 0
    for end in (".json", ".json.sig"):
        copy = asked.path("approvals", f"copy{end}")
        copy.write_bytes(asked.path("approvals", f"approval{end}").read_bytes())
    assert by_decide(asked).data["explanation"].count("approval.used") == 2


def test_without_a_place_for_approvals_it_is_reported(lab: CliLab) -> None:
    """In a lab that was just made no approvals are kept: denied, with who is missing and what to set up."""
    answer = lab.here("decide", *OBSERVED, "--json", "requests/denied-alone.json")
    assert answer.code == 77
    assert "no approval is read: neither `approvals:` nor `approvalLog:` is configured" in answer.data["explanation"]
    assert "ask      user:omar" in answer.data["explanation"]
    assert "who contributed is not known" not in answer.data["explanation"]


def test_of_processes_that_ask_at_once_one_is_allowed(asked: CliLab) -> None:
    """Four hooks on one log and one approval: whichever is first, it is one; the log adds up and says the same."""
    Given().put(asked.path("approvals"))
    command = [sys.executable, "-m", "policyguard", "hook", "--config", "policyguard.yaml", *OBSERVED]
    processes = [
        subprocess.Popen(
            command, cwd=asked.folder, env=process_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(asked.path("kill.json").read_bytes())
        process.stdin.close()
    codes = [process.wait(timeout=60) for process in processes]
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
    assert sorted(codes) == [0, 77, 77, 77]
    assert sorted(entry["decision"] for entry in asked.entries()) == ["allow", "deny", "deny", "deny"]
    assert asked.here("audit", "verify").code == 0


READ_BY_A_HOOK = """
import sys
from policyguard.hooks.stdio import open_guard, read_options, respond
answer, code = respond(open("kill.json", "rb").read(), lambda: open_guard(read_options(sys.argv[1:])))
print(code, [name for name in ("yaml", "casbin", "cel_expr_python", "click") if name in sys.modules])
"""


def test_reading_approvals_loads_neither_yaml_nor_casbin_nor_cel(asked: CliLab) -> None:
    """With a compiled snapshot and all paths given a hook with approvals is still a small process."""
    assert asked.here("compile", "-o", "snapshot").code == 0
    Given().put(asked.path("approvals"))
    words = ("--policies", "snapshot", "--key", "guard.key", "--log", "audit.db", "--approvals", "approvals")
    ended = subprocess.run(
        [sys.executable, "-c", READ_BY_A_HOOK, *words, *OBSERVED],
        cwd=asked.folder,
        env=process_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("0 []\n", "")


def test_a_log_that_cannot_be_read_is_needed_only_for_what_it_changes(asked: CliLab) -> None:
    """Who explains need not be allowed to read the log; an allow that might be used up is not claimed without it."""
    asked.path("audit.db").mkdir()
    assert by_decide(asked, "explain").code == 77
    Given().put(asked.path("approvals"))
    ended = by_decide(asked, "explain")
    assert (ended.code, ended.out) == (69, "")
    assert "audit.db` is not a regular file" in ended.complaint
    listed = asked.here("approve", "--list", "--request", "kill.json", "--json")
    assert listed.code == 1
    assert listed.data["approvals"][0]["standing"] == "approval.unreadable"
    asked.path("audit.db").rmdir()
    assert by_decide(asked, "explain").code == 0
    assert asked.here("approve", "--list", "--request", "kill.json").code == 0
