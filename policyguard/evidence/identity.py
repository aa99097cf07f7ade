"""The account that runs this process, from the operating system, never from `USER`, `LOGNAME` or another variable.

Assurance is observed: the kernel authenticated the user when the session began, we only read it.
"""

from __future__ import annotations

import grp
import os
import pwd

from policyguard.evidence.collector import Collected, JobInputs
from policyguard.model.facts import Assurance, Fact
from policyguard.model.request import Request
from policyguard.values import Instant, Value

USER, UID, GROUPS, MATCHES = "subject.user", "subject.uid", "subject.groups", "subject.os_user"


class IdentityCollector:
    """Supplies the real uid, its account name, the names of its groups, and whether the subject is that account."""

    name = "identity"
    measures_contributors = False
    declares = (UID, USER, GROUPS, MATCHES)

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Measure the identity of the process.

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
        entries = {path: Fact(value, Assurance.OBSERVED, self.name, now) for path, value in values.items()}
        return Collected(entries=entries, missing=missing)


def account_name(uid: int) -> str | None:
    """Look up the account name of a uid; None if the user database does not contain it."""
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
