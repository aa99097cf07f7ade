"""Reads job files and builds collectors for the verbs; warnings go to standard error."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policyguard.assembly import jobs
from policyguard.cli.output import say
from policyguard.cli.settings import cache_seal, snapshot_keys
from policyguard.config.file import Config
from policyguard.config.job_file import check_declared, check_starting, check_subject, read_job_file, with_start
from policyguard.config.measurement import MeasurementConfig
from policyguard.evidence.collector import CollectorsFor, gather
from policyguard.evidence.from_commit import exported
from policyguard.evidence.identity import calling_account
from policyguard.model.facts import Facts
from policyguard.model.request import Request


def warn(message: str) -> None:
    """Print a warning on standard error."""
    say(message, err=True, fg="yellow")


def configured_collectors(config: Config) -> CollectorsFor:
    """Build the collectors of `policyguard run` from the configuration."""
    return jobs.configured_collectors(config, seal=lambda: cache_seal(config, is_required=True), report=warn)


def artifact_collectors(config: Config, request: Request, path: Path) -> CollectorsFor:
    """Build the collectors for the artifact at `path` from the configuration.

    Args:
        config: the configuration.
        request: what is asked.
        path: the artifact.
    """
    return jobs.artifact_collectors(
        config,
        request,
        path,
        seal=lambda: cache_seal(config, is_required=True),
        policy_keys=lambda policies: snapshot_keys(config, policies),
        report=warn,
    )


def measure_job(
    measurement: MeasurementConfig,
    path: Path,
    argv: Sequence[str],
    environment: Mapping[str, str],
    subject: str | None = None,
    **start: Any,
) -> Facts:
    """Measure the job of a job file now, as a worker does before it starts the command.

    Args:
        measurement: what is measured.
        path: the job file.
        argv: the command.
        environment: its variables.
        subject: who asked, if the job file does not say so; by default the account of this process.
        start: the options of `start_options`, beside what the job file says.

    Raises:
        RequestError: the job file cannot be used, or names a subject different from `subject`.
    """
    account = calling_account(measurement.accounts).name if subject is None else subject
    request, inputs = read_job_file(path, argv, None, environment, account=account)
    if start:
        inputs = with_start(inputs, **start)
    check_subject(request, subject)
    check_starting(request)
    check_declared(inputs)
    with exported(inputs) as started:
        return gather(request, jobs.job_collectors(measurement, request, report=warn), started, time.time_ns)
