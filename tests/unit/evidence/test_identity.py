"""Identity comes from the kernel and the user database, never from variables."""

from __future__ import annotations

import os
import pwd

import pytest

from policyguard.evidence.collector import JobInputs
from policyguard.evidence.identity import IdentityCollector, account_name, group_names
from policyguard.model.facts import Assurance
from policyguard.model.request import Request

ME = pwd.getpwuid(os.getuid()).pw_name


def seen(subject: str) -> dict[str, object]:
    request = Request.of(subject, "job:submit", "job:team/vision/x")
    return {path: fact.value for path, fact in IdentityCollector().collect(request, JobInputs(), 1).entries.items()}


def test_the_process_is_named_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """`USER` and `LOGNAME` are claims and are not looked at."""
    monkeypatch.setenv("USER", "somebody-else")
    monkeypatch.setenv("LOGNAME", "somebody-else")
    found = seen("user:somebody-else")
    assert (os.getuid(), ME, False) == (found["subject.uid"], found["subject.user"], found["subject.os_user"])


@pytest.mark.parametrize(
    ("subject", "matches"),
    [(f"user:{ME}", True), (f"svc:{ME}", False), (f"user:{ME}x", False), (f"user:{ME.upper()}", False)],
    ids=["the account itself", "another type", "a longer name", "another case"],
)
def test_the_subject_is_the_os_user_only_if_type_and_id_say_so(subject: str, matches: bool) -> None:
    """I1: a service account named like a user is not that user."""
    assert seen(subject)["subject.os_user"] is matches


def test_identity_is_observed_and_not_bound() -> None:
    """The kernel authenticated the user earlier; a worker may run under another uid."""
    request = Request.of("user:a", "job:submit", "job:x")
    facts = IdentityCollector().collect(request, JobInputs(), 1).entries.values()
    assert {(Assurance.OBSERVED, False)} == {(fact.assurance, fact.bound) for fact in facts}


def test_a_uid_without_an_account_has_no_name() -> None:
    """Containers often run as a uid that no database knows."""
    assert account_name(4_000_000_123) is None
    assert account_name(os.getuid()) == ME


def test_groups_are_sorted_names() -> None:
    """Every group of the process once; those without a name are spelled by number."""
    names = group_names()
    assert list(names) == sorted(set(names))
    assert names


@pytest.mark.skipif(os.geteuid() != 0, reason="changing the uid needs root")
def test_a_process_with_an_unknown_uid_supplies_what_it_can() -> None:
    """The name and the match are missing with a reason, uid and groups are there."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([54321])
        os.setuid(54321)
        request = Request.of("user:alice", "job:submit", "job:x")
        found = IdentityCollector().collect(request, JobInputs(), 1)
        words = [*sorted(found.entries), *sorted(found.missing), str(found.entries["subject.groups"].value)]
        os.write(write, " ".join(words).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    answer = os.read(read, 1000).decode()
    os.close(read)
    assert answer.startswith(
        "subject.groups subject.uid subject.account subject.authenticated subject.os_user subject.user"
    )
    assert "gid:54321" in answer
