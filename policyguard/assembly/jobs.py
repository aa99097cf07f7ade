"""Builds the collectors for jobs and artifacts from a configuration, and opens their caches of digests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import structs

from policyguard.assembly.requests import request_collectors
from policyguard.attest.keys import PublicKey
from policyguard.config.file import Config
from policyguard.config.measurement import EnvironmentConfig, MeasurementConfig, QuotaConfig
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import ConfigurationError
from policyguard.evidence.approvals.artifact_collector import ArtifactReviewCollector, artifact_digest
from policyguard.evidence.approvals.collectors import ReviewedRepositoryCollector, ReviewFiles, is_reviewed
from policyguard.evidence.checkpoint import CheckpointCollector, JobCheckpoints
from policyguard.evidence.collector import Collector, CollectorsFor, JobInputs
from policyguard.evidence.confinement import ConfinementCollector
from policyguard.evidence.dataset import DatasetCollector
from policyguard.evidence.environment_collector import EnvironmentCollector, MissingBaselineCollector
from policyguard.evidence.from_commit import FromCommitCollector
from policyguard.evidence.gpu_grants import GrantCollector
from policyguard.evidence.identity import IdentityCollector
from policyguard.evidence.injected import InjectionCollector
from policyguard.evidence.job import ARGV, FILES, JobCollector
from policyguard.evidence.program import ProgramCollector
from policyguard.evidence.quota import QuotaCollector
from policyguard.evidence.repository import RepositoryCollector
from policyguard.evidence.scale import ScaleCollector
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.request import Request
from policyguard.policy_store.load import load_snapshot
from policyguard.scan.digest_cache import DigestCache
from policyguard.scan.files import Options
from policyguard.text import printable_name

Report = Callable[[str], object]
"""Called with a line for the operator, such as why a cache is not used."""

Seal = Callable[[], bytes | None]
"""Supplies the key that caches of digests are sealed with; called only where a cache is configured."""


def log_warning(message: str) -> None:
    """Log a warning to the logger `policyguard`; the default where a host passes no report function."""
    logging.getLogger("policyguard").warning("%s", message)


def configured_collectors(config: Config, *, seal: Seal, report: Report = log_warning) -> CollectorsFor:
    """Return the function that chooses collectors for each request to a guard of this configuration.

    With a command, those of `policyguard run`; for a request alone, those of `policyguard decide`. Caches are opened
    now, once for all requests.

    Args:
        config: says what is measured.
        seal: supplies the key that seals caches.
        report: takes the reason why a cache is not used.

    Raises:
        ConfigurationError, SigningError: a cache or its seal cannot be used.
    """
    measurement = config.measurement
    has_cache = measurement.checkpoints.cache or (measurement.environment and measurement.environment.cache)
    key = seal() if has_cache else None
    options = scan_options(measurement, key, report)
    files = review_files(config)
    without_command = request_collectors(files)

    def collectors(snapshot: Snapshot, request: Request, inputs: JobInputs | None) -> Sequence[Collector]:
        if inputs is None:
            return without_command(snapshot, request, inputs)
        chosen = job_collectors(measurement, request, seal=key, options=options, report=report)
        if not is_reviewed(snapshot.people, files):
            return chosen
        reviewed = ReviewedRepositoryCollector(snapshot.people, files, repositories=measurement.repositories)
        return [reviewed if collector.name == reviewed.name else collector for collector in chosen]

    return collectors


def job_collectors(
    measurement: MeasurementConfig,
    request: Request,
    *,
    seal: bytes | None = None,
    options: Options | None = None,
    report: Report = log_warning,
) -> tuple[Collector, ...]:
    """List the collectors for one job; the decision, the worker and the watch use the same list.

    A worker needs no approvals: the bound facts, which it must measure again, are the same with and without them.

    Args:
        seal: the key that remembered digests are sealed with.
        options: how to scan checkpoints; by the configuration if None.
        report: takes the reason why a cache is not used.
    """
    options = options or scan_options(measurement, seal, report)
    producers = measurement.checkpoints.producers
    identity = IdentityCollector(measurement.accounts, measurement.speak_for)
    if request.resource.type == "checkpoint":
        return (identity, CheckpointCollector(options, producers))
    if request.resource.type == "dataset":
        return (identity, DatasetCollector(options, producers))
    grants, quota = measurement.grants, measurement.quota
    return (
        identity,
        JobCollector(),
        RepositoryCollector(repositories=measurement.repositories),
        InjectionCollector(),
        ProgramCollector(),
        ScaleCollector(),
        JobCheckpoints(options, producers),
        GrantCollector(str(grants.folder), grants.keys) if grants is not None else GrantCollector(),
        _environment_collector(measurement.environment, seal, report),
        ConfinementCollector(measurement.confinement),
        FromCommitCollector(),
        *((_quota_collector(quota),) if quota is not None else ()),
    )


def _quota_collector(config: QuotaConfig) -> Collector:
    file, directory = (str(path) if path is not None else None for path in (config.file, config.directory))
    return QuotaCollector(file=file, command=config.command, directory=directory)


def _environment_collector(config: EnvironmentConfig | None, seal: bytes | None, report: Report) -> Collector:
    if config is None:
        return MissingBaselineCollector()
    cache, interpreter = (str(path) if path is not None else None for path in (config.cache, config.interpreter))
    return EnvironmentCollector(
        str(config.baseline),
        config.keys,
        cache=cache,
        threshold=config.threshold,
        seal=seal,
        interpreter=interpreter,
        tell=lambda doubt: report_doubt(config.cache, doubt, report),
    )


def artifact_collectors(
    config: Config,
    request: Request,
    path: Path,
    *,
    seal: Seal,
    policy_keys: Callable[[Path], Sequence[PublicKey]],
    report: Report = log_warning,
) -> CollectorsFor:
    """List the collectors for the weights, data or policies at `path`, and for approvals of that digest.

    Args:
        config: says where approvals are and how checkpoints are scanned.
        request, path: the artifact, and where it is.
        seal: see `configured_collectors`.
        policy_keys: supplies the keys that may have signed policies at a path.
        report: takes the reason why a cache is not used.

    Raises:
        ConfigurationError, SigningError: the resource is of another type, or a cache or its seal cannot be used.
    """
    if request.resource.type not in ("checkpoint", "dataset", "policy"):
        raise ConfigurationError(
            f"`{request.resource.ref}` is not measured by a path, expected a checkpoint, a dataset or policies",
            help="`policyguard run` measures jobs, and the git hooks measure repositories",
        )
    key = seal() if config.measurement.checkpoints.cache else None
    options = scan_options(config.measurement, key, report)
    files = review_files(config)

    def policy_digest() -> str:
        return load_snapshot(path, policy_keys(path)).policy_digest

    def collectors(snapshot: Snapshot, request: Request, inputs: JobInputs | None) -> Sequence[Collector]:  # noqa: ARG001
        if request.resource.type == "policy":
            return (ArtifactReviewCollector(snapshot.people, files, "policy", policy_digest),)
        review = ArtifactReviewCollector(snapshot.people, files, "checkpoint", lambda: artifact_digest(path, options))
        return (*job_collectors(config.measurement, request, seal=key, options=options, report=report), review)

    return collectors


def scan_options(measurement: MeasurementConfig, seal: bytes | None, report: Report = log_warning) -> Options:
    """Build the options for scanning checkpoints, and open the digest cache.

    Args:
        measurement: says how checkpoints are scanned.
        seal: the key that seals the cache, if any.
        report: takes a line that a person should read.
    """
    checkpoints = measurement.checkpoints
    return Options(extra_globals=checkpoints.classes, cache=digest_cache(checkpoints.cache, seal, report))


def digest_cache(path: Path | None, seal: bytes | None, report: Report = log_warning) -> DigestCache:
    """Open the cache of checkpoint digests; report it if its content cannot be trusted.

    Without a path it lives as long as this process, which helps a watch: it measures again and again.

    Args:
        path: the cache file; None for no cache.
        seal: the key that seals the cache, if any.
        report: takes a line that a person should read.
    """
    if path is None:
        return DigestCache()
    cache = DigestCache.open(path, key=seal)
    report_doubt(path, cache.doubt, report)
    return cache


def report_doubt(path: Path | None, doubt: str, report: Report) -> None:
    """Report why a cache is not used; do nothing if it is used.

    Args:
        path: the cache file.
        doubt: why it is not used; empty if it is used.
        report: takes a line that a person should read.
    """
    if doubt:
        report(f"{path}: not believed, everything is hashed again: {doubt}")


def review_files(config: Config) -> ReviewFiles:
    """Collect the configured paths of approvals, allowed signers and keyrings."""
    return ReviewFiles(
        approvals=config.approvals,
        approval_log=config.approval_log,
        allowed_signers=config.allowed_signers,
        revoked_keys=config.revoked_keys,
        gpg_keyring=config.gpg_keyring,
        reviewed_commits=config.reviewed_commits,
        signed_only=config.signed_commits,
    )


def job_facts(facts: Facts, inputs: JobInputs) -> Facts:
    """Check that the facts bind the command, and add the names of files that could not be measured as a claim.

    The names of files that could not be measured become a claim. Names are no measured files: the request then does
    not fit the schema, and its denial is signed and logged.

    Raises:
        ConfigurationError: the command was not measured.
    """
    # INVARIANT I15: nothing is started under a decision that is not bound to the command itself.
    if inputs.argv and ARGV not in facts.bound:
        raise ConfigurationError("the guard does not measure commands, expected one with a `JobCollector`")
    if not inputs.files or FILES in facts.entries:
        return facts
    named = Fact(tuple(printable_name(name) for name in inputs.files), Assurance.CLAIMED, "job file", 0)
    return structs.replace(facts, entries={**facts.entries, FILES: named})
