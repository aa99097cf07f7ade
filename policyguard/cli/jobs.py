"""Job files on the command line: read, and looked at by the collectors of the launcher."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from policyguard.config import Config
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import PolicyErrors, RequestError
from policyguard.evidence.collector import Collector, JobInputs, gather
from policyguard.evidence.identity import IdentityCollector
from policyguard.evidence.job import JobCollector
from policyguard.evidence.repository import RepositoryCollector
from policyguard.evidence.review import ReviewedRepositoryCollector, ReviewFiles
from policyguard.guard import Collectors
from policyguard.hooks.jobfile import read_job
from policyguard.model.facts import Facts
from policyguard.model.request import Request
from policyguard.policy.reader import read_value
from policyguard.snapshots import read_bounded

MAX_JOB_BYTES = 262_144


def job_collectors() -> tuple[Collector, ...]:
    """Return what looks at a job: the same at the decision and at every worker."""
    return (IdentityCollector(), JobCollector(), RepositoryCollector())


def reviewing_collectors(config: Config) -> Collectors:
    """Return what looks at a job, at its contributors and at its approvals where the configuration says how.

    A worker needs no approvals: what it must measure again, the bound facts, is the same with and without.
    """
    files = review_files(config)
    if files == ReviewFiles():
        return job_collectors()

    def collectors(snapshot: Snapshot) -> Sequence[Collector]:
        return (IdentityCollector(), JobCollector(), ReviewedRepositoryCollector(snapshot.people, files))

    return collectors


def review_files(config: Config) -> ReviewFiles:
    """Return where the configuration keeps what reviews are judged by."""
    return ReviewFiles(
        approvals=config.approvals, allowed_signers=config.allowed_signers, revoked_keys=config.revoked_keys,
        accepted=config.accepted,
    )  # fmt: skip


def job_request(path: Path, words: Sequence[str], environment: Mapping[str, str]) -> tuple[Request, JobInputs]:
    """Return the request of a job file and what is to be measured for this command, here."""
    try:
        data = read_value(read_bounded(path, MAX_JOB_BYTES), str(path))
    except PolicyErrors as problems:
        raise RequestError(str(problems.errors[0]), path=str(path), help=problems.errors[0].help) from problems
    return read_job(data, words, os.getcwd(), environment)


def look_at_job(path: Path, words: Sequence[str], environment: Mapping[str, str]) -> Facts:
    """Return what the collectors see of this job now."""
    request, inputs = job_request(path, words, environment)
    return gather(request, job_collectors(), inputs, time.time_ns)
