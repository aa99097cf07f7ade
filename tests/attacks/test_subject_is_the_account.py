"""Attacks on who asks: the subject is the account that the kernel authenticated, whatever files and variables say."""

from __future__ import annotations

import json
import os
import pwd
import sys
from typing import Any

import pytest

from policyguard import Guard
from policyguard.attest.dsse import parse
from policyguard.attest.statement import parse_statement
from policyguard.audit.entries import DECISION_ENTRY
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.evidence import identity
from policyguard.evidence.identity import Caller, calling_account
from tests.attacks.test_operator_configuration import Lab, lab  # noqa: F401 - the fixture
from tests.e2e.cli_lab import LOGIN, Ended


def configure(lab: Lab, lines: str = "") -> None:  # noqa: F811
    """Write the configuration without `speakFor:`, and with these lines."""
    text = "".join(
        line for line in lab.config.read_text().splitlines(keepends=True) if not line.startswith("speakFor:")
    )
    lab.config.write_text(text + lines)


def submit(lab: Lab, *words: str, subject: str | None = None, **variables: str) -> Ended:  # noqa: F811
    job = lab.job.parent / "job.yaml"
    stated = f"subject: {subject}\n" if subject is not None else ""
    job.write_text(f"{stated}resource: job:team/vision/run-17\nproperties: {{gpus: 8}}\n")
    command = ("--job", str(job), "--", sys.executable, "train.py")
    return lab.policyguard("run", "--config", str(lab.config), *words, *command, **variables)


def last(lab: Lab) -> Any:  # noqa: F811
    with SqliteStore.open(lab.op / "audit.db", read_only=True) as store:
        decisions = [row.leaf for row in store.read(0, 100) if DECISION_ENTRY.matches(row.leaf)]
        return parse_statement(parse(decisions[-1]).payload).predicate


def denied(lab: Lab, ended: Ended, reason: str, *, account: str = f"user:{LOGIN}", named: str = "user:alice") -> None:  # noqa: F811
    """Assert a signed and logged denial of the account, which says whose name it used; nothing ran."""
    assert (ended.code, "trained" in ended.out) == (77, False), ended.err
    assert ended.err.startswith(f"DENY  {account}  ")
    predicate = last(lab)
    assert (predicate.decision, predicate.reason_codes, predicate.requester) == ("deny", (reason,), account)
    assert json.loads(bytes(predicate.facts["subject.requested"].value)) == named
    assert json.loads(bytes(predicate.facts["subject.account"].value)) == account


def test_a_job_file_cannot_choose_the_subject(lab: Lab) -> None:  # noqa: F811
    """One line `subject:` ran a job as anybody."""
    configure(lab)
    denied(lab, submit(lab, subject="user:alice"), "id.subject_mismatch")


@pytest.mark.parametrize(
    ("lines", "words", "remedy"),
    [
        ("", (), "remedy   remove `subject:` from the job file to submit as "),
        (f"speakFor: [{LOGIN}]\n", (), "remedy   give `--subject user:alice`, or remove `subject:`"),
        (f"speakFor: [{LOGIN}]\n", ("--subject", "user:bob"), "or write `subject: user:bob` into the job file"),
    ],
)
def test_a_denied_subject_has_a_remedy(lab: Lab, lines: str, words: tuple[str, ...], remedy: str) -> None:  # noqa: F811
    """The denial names what the account can do: another option, another line, another account."""
    configure(lab, lines)
    ended = submit(lab, *words, subject="user:alice")
    assert (ended.code, remedy in ended.err) == (77, True), ended.err


def test_an_option_cannot_choose_the_subject(lab: Lab) -> None:  # noqa: F811
    """`--subject` needs an account that the operator lists."""
    configure(lab)
    denied(lab, submit(lab, "--subject", "user:alice"), "id.subject_not_allowed")
    configure(lab, "speakFor: [somebody-else]\n")
    denied(lab, submit(lab, "--subject", "user:alice"), "id.subject_not_allowed")


@pytest.mark.parametrize("name", ["USER", "LOGNAME", "USERNAME", "SUDO_USER", "SUDO_UID"])
def test_a_variable_cannot_choose_the_subject(lab: Lab, name: str) -> None:  # noqa: F811
    """Neither those of login nor those of sudo are read."""
    configure(lab)
    submit(lab, **{name: "alice"})
    assert last(lab).requester == f"user:{LOGIN}"


def test_an_account_that_speaks_for_others_still_agrees_with_the_job_file(lab: Lab) -> None:  # noqa: F811
    """`speakFor:` alone makes no subject: it is named by `--subject`, and the job file must agree."""
    configure(lab, f"speakFor: [{LOGIN}]\n")
    denied(lab, submit(lab, subject="user:alice"), "id.subject_mismatch")
    ended = submit(lab, "--subject", "user:bob", subject="user:alice")
    denied(lab, ended, "id.subject_mismatch", named="user:bob")


def test_an_account_of_the_list_names_the_subject(lab: Lab) -> None:  # noqa: F811
    """The twin: allowed, and the log says which account it was."""
    configure(lab, f"speakFor: [{LOGIN}]\n")
    for subject in ("user:alice", None):
        ended = submit(lab, "--subject", "user:alice", subject=subject)
        assert ended.code == 0, ended.err
        predicate = last(lab)
        assert (predicate.decision, predicate.requester) == ("allow", "user:alice")
        assert json.loads(bytes(predicate.facts["subject.account"].value)) == f"user:{LOGIN}"
        assert predicate.facts["subject.account"].assurance == "observed"


def test_the_operator_says_which_subject_an_account_is(lab: Lab) -> None:  # noqa: F811
    """The twin without `--subject`: `accounts:` maps the login, with a job file that says so or says nothing."""
    configure(lab, f'accounts: {{{LOGIN}: "user:alice"}}\n')
    for subject in ("user:alice", None):
        ended = submit(lab, subject=subject)
        assert ended.code == 0, ended.err
    denied(
        lab, submit(lab, subject=f"user:{LOGIN}"), "id.subject_mismatch", account="user:alice", named=f"user:{LOGIN}"
    )


@pytest.mark.parametrize("lines", ["accounts: [x]\n", "accounts: {x: alice}\n", "accounts: {x: 5}\n", "speakFor: x\n"])
def test_a_malformed_list_of_accounts_is_refused(lab: Lab, lines: str) -> None:  # noqa: F811
    """One line, exit code 78."""
    configure(lab, lines)
    ended = submit(lab)
    assert (ended.code, lines.partition(":")[0] in ended.complaint) == (78, True)


def test_a_host_says_who_asks_only_where_the_configuration_lets_it(lab: Lab) -> None:  # noqa: F811
    """`Guard.decide_job` follows the same rule; its decision is a denial, signed and logged."""
    configure(lab)
    job = lab.job.parent / "job.yaml"
    job.write_text("resource: job:team/vision/run-17\nproperties: {gpus: 8}\n")
    words, environment = [sys.executable, "train.py"], {"PATH": os.defpath}
    with Guard.from_config(lab.config) as guard:
        signed = guard.decide_job(job, words, directory=lab.job, environment=environment, subject="user:alice")
    assert signed.decision.reason_codes == ("id.subject_not_allowed",)
    assert last(lab).requester == f"user:{LOGIN}"


# ---- the account itself


def test_an_account_without_a_name_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A uid that the user database does not know, and uid 65534, which a user namespace shows for any account."""
    monkeypatch.setattr(os, "getuid", lambda: 1_234_567)
    caller = calling_account({}, {"root"})
    assert (caller.ref, caller.name) == (None, "user:uid-1234567")
    refusal = caller.refuse("user:alice", None)
    assert refusal is not None
    assert refusal[0] == identity.UNMAPPED
    monkeypatch.setattr(os, "getuid", lambda: 65534)
    assert calling_account({"nobody": "user:alice"}, {"nobody"}).ref is None


def test_an_account_is_not_the_subject_that_belongs_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """`accounts: {asmith: user:alice}`: a login `alice` on this machine is another person, and has no subject."""
    entry = pwd.getpwuid(os.getuid())
    monkeypatch.setattr(identity, "account_name", lambda uid: "alice")
    assert calling_account({"asmith": "user:alice"}).ref is None
    assert calling_account({"asmith": "user:ann"}).ref == "user:alice"
    assert entry.pw_name == LOGIN


def test_the_subject_of_an_account_needs_no_list() -> None:
    """Its own subject may be named by every account, with `--subject` and in a job file."""
    caller = Caller(uid=1, login="bob", ref="user:bob")
    assert caller.refuse("user:bob", None) is None
    assert caller.refuse("user:bob", "user:bob") is None
    assert caller.refuse("service:bob", None) is not None
