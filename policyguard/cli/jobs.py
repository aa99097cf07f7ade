"""Job files on the command line: read, and looked at by the collectors of the launcher."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from policyguard.errors import ConfigurationError, PolicyErrors, RequestError
from policyguard.evidence.collector import Collector, JobInputs, gather
from policyguard.evidence.identity import IdentityCollector
from policyguard.evidence.job import JobCollector
from policyguard.evidence.repository import RepositoryCollector
from policyguard.hooks.jobfile import read_job
from policyguard.model.facts import Facts
from policyguard.model.request import Request
from policyguard.policy.reader import read_value
from policyguard.snapshots import read_bounded

MAX_JOB_BYTES = 262_144


def job_collectors() -> tuple[Collector, ...]:
    """Return what looks at a job: the same at the decision and at every worker."""
    return (IdentityCollector(), JobCollector(), RepositoryCollector())


def job_request(path: Path, words: Sequence[str], environment: Mapping[str, str]) -> tuple[Request, JobInputs]:
    """Return the request of a job file and what is to be measured for this command, here."""
    try:
        data = read_value(read_bounded(path, MAX_JOB_BYTES), str(path))
    except PolicyErrors as problems:
        raise RequestError(str(problems.errors[0]), path=str(path), help=problems.errors[0].help) from problems
    return read_job(data, words, _here(), environment)


def _here() -> str:
    try:
        return os.getcwd()
    except OSError as problem:
        raise ConfigurationError(f"the current folder: {(problem.strerror or '').lower()}") from problem


def look_at_job(path: Path, words: Sequence[str], environment: Mapping[str, str]) -> Facts:
    """Return what the collectors see of this job now."""
    request, inputs = job_request(path, words, environment)
    return gather(request, job_collectors(), inputs, time.time_ns)
