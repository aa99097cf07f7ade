"""The account that runs this process, from the kernel, never from `USER`, `LOGNAME` or another variable.

The assurance is observed: the kernel authenticated the user at the start of the session; this module only reads it.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Collection, Mapping
from types import MappingProxyType

import msgspec

from policyguard.evidence.collector import Collected, JobInputs
from policyguard.model.facts import Assurance, Fact
from policyguard.model.request import Request
from policyguard.text import printable_name, quoted
from policyguard.values import Instant, Value

USER, UID, GROUPS, MATCHES = "subject.user", "subject.uid", "subject.groups", "subject.os_user"
ACCOUNT, AUTHENTICATED = "subject.account", "subject.authenticated"

OVERFLOW_UID = 65534
"""The uid that the kernel reports where a user namespace maps none; it identifies nobody."""

UNMAPPED, MISMATCH, NOT_SPEAKING = "id.unmapped_account", "id.subject_mismatch", "id.subject_not_allowed"
"""Reason codes of requests that are denied because of the account that made them."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The account that runs this process, and the subject that it is configured to be."""

    uid: int
    login: str | None
    ref: str | None
    """The subject, `type:id`; None if the account has none."""

    may_speak: bool = False
    """True if `speakFor:` lets this account name another subject."""

    problem: str = ""
    """Why the account has no subject."""

    @property
    def name(self) -> str:
        """The subject; for an account without one, a name for the log."""
        return self.ref or f"user:uid-{self.uid}"

    def refuse(self, subject: str, requested: str | None) -> tuple[str, str] | None:
        """Return the reason code and text if this account may not act for the subject; None if it may.

        Args:
            subject: who the request says asks; a job file may say so.
            requested: what `--subject` names.
        """
        # INVARIANT I1: the subject is the account that the kernel authenticated, whatever a file or variable says.
        if self.ref is None:
            return UNMAPPED, self.problem
        if requested is not None and requested != self.ref and not self.may_speak:
            return NOT_SPEAKING, (
                f"--subject: found {quoted(requested)}, expected `{self.ref}`, the subject of the account "
                f"`{self.login}`; the operator lists accounts that name others under `speakFor:`"
            )
        expected = requested or self.ref
        if subject != expected:
            return MISMATCH, (
                f"the job file says `subject: {printable_name(subject)}`, expected `{expected}`, "
                + ("as --subject says" if requested else f"the subject of the account `{self.login}`")
            )
        return None


NO_ACCOUNTS: Mapping[str, str] = MappingProxyType({})


def calling_account(accounts: Mapping[str, str] = NO_ACCOUNTS, speak_for: Collection[str] = ()) -> Caller:
    """Identify the account that runs this process by its real uid.

    Args:
        accounts: login name to subject; an account that is not listed is `user:LOGIN`.
        speak_for: login names that may name another subject.
    """
    uid = os.getuid()
    login = None if uid == OVERFLOW_UID else account_name(uid)
    if login is None:
        return Caller(uid=uid, login=None, ref=None, problem=f"uid {uid} has no account in the user database")
    ref = accounts.get(login)
    if ref is None:
        ref = f"user:{login}"
        other = next((name for name, subject in accounts.items() if subject == ref), None)
        if other is not None:
            problem = f"the account `{login}` has no subject: `accounts:` says that `{ref}` is the account `{other}`"
            return Caller(uid=uid, login=login, ref=None, problem=problem)
    return Caller(uid=uid, login=login, ref=ref, may_speak=login in speak_for)


class IdentityCollector:
    """Supplies the real uid, its login and subject, and whether it may make this request."""

    name = "identity"
    declares = (UID, USER, GROUPS, MATCHES, ACCOUNT, AUTHENTICATED)

    def __init__(self, accounts: Mapping[str, str] = NO_ACCOUNTS, speak_for: Collection[str] = ()) -> None:
        self._accounts, self._speak_for = accounts, frozenset(speak_for)

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Measure the identity of this process.

        The real uid counts, not the effective one: in a set-uid launcher the real one is who asks.
        """
        uid = os.getuid()
        values: dict[str, Value] = {UID: uid, GROUPS: group_names()}
        missing = {}
        account = account_name(uid)
        if account is None:
            reason = f"uid {uid} has no account in the user database"
            missing = {USER: reason, MATCHES: reason}
        else:
            values[USER] = account
            # INVARIANT I1: the subject is the OS user only if type and id say so: `svc:alice` is not `user:alice`.
            values[MATCHES] = request.subject.type == "user" and request.subject.id == account
        caller = calling_account(self._accounts, self._speak_for)
        if caller.ref is None:
            missing |= {ACCOUNT: caller.problem, AUTHENTICATED: caller.problem}
        else:
            values[ACCOUNT] = caller.ref
            values[AUTHENTICATED] = caller.may_speak or request.subject.ref == caller.ref
        entries = {path: Fact(value, Assurance.OBSERVED, self.name, now) for path, value in values.items()}
        return Collected(entries=entries, missing=missing)


def account_name(uid: int) -> str | None:
    """Return the login name of a uid; None if the user database does not have it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def group_names() -> tuple[str, ...]:
    """List the names of all groups of this process, sorted; a group without a name is `gid:1234`."""
    return tuple(sorted({_group_name(gid) for gid in {os.getgid(), *os.getgroups()}}))


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"gid:{gid}"
