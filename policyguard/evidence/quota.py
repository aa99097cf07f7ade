"""A team's GPU limit and usage, from a file or command of the scheduler, as of the time it reports.

    {"observed_at": "2026-03-01T09:00:00Z", "teams": {"vision": {"limit": 512, "used": 448}}}

The explanation of a denial contains limit and usage, because both are facts that the rule read; the rule's `contact`
says who can raise the limit. The schema's `maxAge` limits their age.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence

import msgspec

from policyguard.errors import EvidenceError
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.fs.safe_open import read_small
from policyguard.model.facts import Assurance, Fact
from policyguard.model.request import Request
from policyguard.text import printable_name
from policyguard.values import MAX_INTEGER, Instant, parse_instant

LIMIT, USAGE = "resource.team_limit", "resource.team_usage"
MAX_QUOTA_BYTES = 1 << 20
COMMAND_TIMEOUT_S = 10

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where the operator's programs are searched; the caller's `PATH` is ignored."""


class TeamQuota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many GPUs a team may use, and how many it uses."""

    limit: int
    used: int


class Quotas(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The scheduler's report, with its time."""

    observed_at: str
    teams: dict[str, TeamQuota]


class QuotaCollector:
    """Supplies `resource.team_limit` and `resource.team_usage` of the resource's team (`job:team/TEAM/...`)."""

    name = "quota"
    measures_contributors = False
    declares = (LIMIT, USAGE)

    def __init__(self, *, file: str | None = None, command: Sequence[str] = (), directory: str | None = None) -> None:
        if (file is None) == (not command):
            raise ValueError("expected exactly one of `file` and `command`")
        self._file, self._command, self._directory = file, tuple(command), directory

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Collect limit and usage, dated by the scheduler.

        They are not bound to the decision, because usage changes by itself.

        Raises:
            EvidenceError: the team has no quota, or the report is out of range or from the future.
        """
        quotas = self._read()
        team = _team(request)
        quota = quotas.teams.get(team)
        if quota is None:
            raise EvidenceError(f"no quota is known of the team `{team}`")
        if not (0 <= quota.limit <= MAX_INTEGER and 0 <= quota.used <= MAX_INTEGER):
            raise EvidenceError(f"the quota of the team `{team}` is out of range")
        observed_at = parse_instant(quotas.observed_at)
        # INVARIANT I1: a quota is as old as its provider says, and one from the future is none.
        if observed_at > now:
            raise EvidenceError(f"quotas are of `{quotas.observed_at}`, which is in the future")
        return Collected(
            entries={
                LIMIT: Fact(quota.limit, Assurance.OBSERVED, self.name, observed_at),
                USAGE: Fact(quota.used, Assurance.OBSERVED, self.name, observed_at),
            }
        )

    def _read(self) -> Quotas:
        data = (
            _printed(self._command, self._directory) if self._file is None else read_small(self._file, MAX_QUOTA_BYTES)
        )
        try:
            quotas = _DECODER.decode(data)
            parse_instant(quotas.observed_at)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as problem:
            raise EvidenceError(f"quotas: {str(problem).lower()}") from None
        return quotas


_DECODER = msgspec.json.Decoder(Quotas)


def _printed(command: Sequence[str], directory: str | None) -> bytes:
    """Run the operator's command with a fixed environment and no input; return its output."""
    # INVARIANT I1: nothing of the caller reaches a program that makes facts: no variable, and no current folder.
    environment = {"PATH": SYSTEM_PATH, "HOME": _home(), "LANG": "C.UTF-8"}
    try:
        ended = subprocess.run(
            command,
            env=environment,
            cwd=directory or "/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except (OSError, ValueError) as problem:
        raise EvidenceError(f"`{printable_name(command[0])}`: cannot be started") from problem
    except subprocess.TimeoutExpired:
        raise EvidenceError(f"`{printable_name(command[0])}`: took longer than {COMMAND_TIMEOUT_S} s") from None
    if ended.returncode:
        raise EvidenceError(f"`{printable_name(command[0])}`: ended with status {ended.returncode}")
    if len(ended.stdout) > MAX_QUOTA_BYTES:
        raise EvidenceError(f"`{printable_name(command[0])}`: printed more than {MAX_QUOTA_BYTES} bytes")
    return ended.stdout


def _home() -> str:
    """Return this account's home folder from the user database, never from `HOME`."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"


def _team(request: Request) -> str:
    segments = request.resource.id.split("/")
    if len(segments) < 2 or segments[0] != "team":
        raise EvidenceError(f"`{printable_name(request.resource.id)}` names no team, expected `team/TEAM/...`")
    return segments[1]
