"""Job files on the command line: read, and looked at by the collectors of the launcher."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from policyguard.cli.options import cache_seal, read_input, snapshot_keys
from policyguard.cli.output import say
from policyguard.config.file import Config
from policyguard.config.measurement import EnvironmentLook, Looks
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import ConfigurationError, PolicyErrors, RequestError
from policyguard.evidence.approvals.artifact_collector import ArtifactReviewCollector, artifact_digest
from policyguard.evidence.approvals.collectors import ReviewedRepositoryCollector, ReviewFiles
from policyguard.evidence.checkpoint import CheckpointCollector, JobCheckpoints
from policyguard.evidence.collector import Collector, JobInputs, gather
from policyguard.evidence.dataset import DatasetCollector
from policyguard.evidence.environment_collector import EnvironmentCollector, MissingBaselineCollector
from policyguard.evidence.gpu_grants import GrantCollector
from policyguard.evidence.identity import IdentityCollector
from policyguard.evidence.job import JobCollector
from policyguard.evidence.quota import QuotaCollector
from policyguard.evidence.repository import RepositoryCollector
from policyguard.guard import Collectors, CollectorsFor
from policyguard.hooks.launcher.job_file import read_job
from policyguard.model.facts import Facts
from policyguard.model.request import Request
from policyguard.policy.reader import read_value
from policyguard.policy_store.load import load_snapshot
from policyguard.scan.digest_cache import DigestCache
from policyguard.scan.files import Options

MAX_JOB_BYTES = 262_144


def job_collectors(looks: Looks, request: Request, seal: bytes | None = None) -> tuple[Collector, ...]:
    """Return what looks at such a request: the same at the decision, at every worker and at every later look.

    Args:
        seal: what remembered digests are sealed with (`cache_seal`).
    """
    checkpoints = looks.checkpoints
    options = Options(extra_globals=checkpoints.classes, cache=digest_cache(checkpoints.cache, seal))
    if request.resource.type == "checkpoint":
        return (IdentityCollector(), CheckpointCollector(options, checkpoints.producers))
    if request.resource.type == "dataset":
        return (IdentityCollector(), DatasetCollector(options, checkpoints.producers))
    collectors: list[Collector] = [
        IdentityCollector(),
        JobCollector(),
        RepositoryCollector(),
        JobCheckpoints(options, checkpoints.producers),
        _grants(looks),
    ]
    if looks.environment is not None:
        collectors.append(_environment(looks.environment, seal))
    else:
        collectors.append(MissingBaselineCollector())
    if looks.quota is not None:
        file = str(looks.quota.file) if looks.quota.file is not None else None
        collectors.append(QuotaCollector(file=file, command=looks.quota.command))
    return tuple(collectors)


def _grants(looks: Looks) -> GrantCollector:
    return GrantCollector(str(looks.grants.folder), looks.grants.keys) if looks.grants is not None else GrantCollector()


def _environment(look: EnvironmentLook, seal: bytes | None) -> EnvironmentCollector:
    cache, interpreter = (str(path) if path is not None else None for path in (look.cache, look.interpreter))
    return EnvironmentCollector(
        str(look.baseline),
        look.keys,
        cache=cache,
        threshold=look.threshold,
        seal=seal,
        interpreter=interpreter,
        tell=lambda doubt: say_doubt(look.cache, doubt),
    )


def digest_cache(path: Path | None, seal: bytes | None) -> DigestCache:
    """Return the cache of checkpoints' digests; says on standard error if what it holds is not believed.

    Without a path it lives as long as this process: a watch looks often.
    """
    if path is None:
        return DigestCache()
    cache = DigestCache.open(path, key=seal)
    say_doubt(path, cache.doubt)
    return cache


def say_doubt(path: Path | None, doubt: str) -> None:
    """Say on standard error that a cache is not believed, and why; nothing if there is no doubt."""
    if doubt:
        say(f"{path}: not believed, everything is hashed again: {doubt}", err=True, fg="yellow")


def reviewing_collectors(config: Config, request: Request) -> Collectors:
    """Return what looks at a job, at its contributors and at its approvals where the configuration says how.

    A worker needs no approvals: what it must measure again, the bound facts, is the same with and without.
    """
    looks = config.looks
    has_cache = looks.checkpoints.cache or (looks.environment and looks.environment.cache)
    seal = cache_seal(config, is_required=True) if has_cache else None
    files, plain = review_files(config), job_collectors(looks, request, seal)
    if files == ReviewFiles():
        return plain

    def collectors(snapshot: Snapshot) -> Sequence[Collector]:
        reviewed = ReviewedRepositoryCollector(snapshot.people, files)
        return [reviewed if each.name == reviewed.name else each for each in plain]

    return collectors


def artifact_collectors(config: Config, request: Request, path: Path) -> CollectorsFor:
    """Return what looks at the weights, the data or the policies in `path`, and at approvals of just these."""
    kind = request.resource.type
    if kind not in ("checkpoint", "dataset", "policy"):
        raise ConfigurationError(
            f"`{request.resource.ref}` is measured nowhere by a path, expected a checkpoint, a dataset or policies",
            help="jobs are looked at by `policyguard run`, repositories by the git hooks",
        )
    seal = cache_seal(config, is_required=True) if config.looks.checkpoints.cache else None
    looks = config.looks.checkpoints
    options = Options(extra_globals=looks.classes, cache=digest_cache(looks.cache, seal))

    def measured() -> str:
        if kind != "policy":
            return artifact_digest(path, options)
        return load_snapshot(path, snapshot_keys(config, path)).policy_digest

    def collectors(snapshot: Snapshot) -> Sequence[Collector]:
        subject = "policy" if kind == "policy" else "checkpoint"
        review = ArtifactReviewCollector(snapshot.people, review_files(config), subject, measured)
        return (*(job_collectors(config.looks, request, seal) if kind != "policy" else ()), review)

    return collectors


def review_files(config: Config) -> ReviewFiles:
    """Return where the configuration keeps what reviews are judged by."""
    return ReviewFiles(
        approvals=config.approvals,
        approval_log=config.approval_log,
        allowed_signers=config.allowed_signers,
        revoked_keys=config.revoked_keys,
        gpg_keyring=config.gpg_keyring,
        accepted=config.accepted,
        signed_only=config.signed_commits,
    )


def job_request(path: Path, words: Sequence[str], environment: Mapping[str, str]) -> tuple[Request, JobInputs]:
    """Return the request of a job file and what is to be measured for this command, here."""
    try:
        data = read_value(read_input(path, MAX_JOB_BYTES), str(path))
    except PolicyErrors as problems:
        raise RequestError(str(problems.errors[0]), path=str(path), help=problems.errors[0].help) from problems
    return read_job(data, words, _here(), environment)


def _here() -> str:
    try:
        return os.getcwd()
    except OSError as problem:
        raise ConfigurationError(f"the current folder: {(problem.strerror or '').lower()}") from problem


def look_at_job(looks: Looks, path: Path, words: Sequence[str], environment: Mapping[str, str]) -> Facts:
    """Return what the collectors see of this job now."""
    request, inputs = job_request(path, words, environment)
    return gather(request, job_collectors(looks, request), inputs, time.time_ns)
