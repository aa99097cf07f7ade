"""Collectors for checkpoints: those that a job names or gets as arguments, and the one a request is about.

Content, owner and folder are measured here. A producer is attested by the signature of a manifest that is in the same
folder and matches the files. Both are bound: the worker measures again and must get the same values (step V7).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from policyguard.attest.keys import PublicKey
from policyguard.errors import EvidenceError, VerificationError
from policyguard.evidence.checkpoint_folders import loadable
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.fs.safe_open import open_resolved
from policyguard.model.facts import Assurance, Fact
from policyguard.model.request import Request
from policyguard.scan.files import Options, scan_paths
from policyguard.scan.findings import CheckpointScan, Reason, Verdict
from policyguard.scan.formats.registry import SIDE_FILES, category_by_suffix, format_category, is_named_as_checkpoint
from policyguard.scan.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, check_files, verify_manifest
from policyguard.scan.model_repository import inspect_repository
from policyguard.text import printable_name
from policyguard.values import FrozenMap, Instant, Value

CHECKPOINTS = "resource.checkpoints"
Producers = Mapping[str, Sequence[PublicKey]]
"""The pinned keys of each producer, by its `type:id`."""


class JobCheckpoints:
    """Supplies `resource.checkpoints`: one record for each checkpoint that a job can load.

    Scanned are the files and folders that the job names as checkpoints, each of its other files and arguments that
    exists and is not Python source, and what arguments, variables and settings name that holds a checkpoint.
    """

    name = "checkpoints"
    measures_contributors = False
    declares = (CHECKPOINTS,)

    def __init__(
        self, options: Options | None = None, producers: Mapping[str, Sequence[PublicKey]] | None = None
    ) -> None:
        self._options, self._producers = options or Options(), producers or {}

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Scan the checkpoints, sorted by path; an unreadable one gets the verdict `unknown`.

        Raises:
            EvidenceError: the job names too many paths.
        """
        promised = [name for name in inputs.files if is_named_as_checkpoint(name)]
        named = [
            os.path.normpath(os.path.join(inputs.directory, name))
            for name in (*inputs.checkpoints, *promised)
            if "\0" not in name
        ]
        loaded = loadable(inputs)
        options = fresh_options(self._options)
        # INVARIANT I17: what is named as a checkpoint is always a record, also when it is not there.
        records = {inputs.submitted_path(path): _not_searched(path, inputs) for path in loaded.not_searched}
        for path in dict.fromkeys((*named, *loaded.paths)):
            records |= self._records(Path(path), inputs, options)
        value = tuple(records[name] for name in sorted(records))
        return Collected(entries={CHECKPOINTS: Fact(value, Assurance.MEASURED, self.name, now, bound=True)})

    def _records(self, path: Path, inputs: JobInputs, options: Options) -> dict[str, FrozenMap]:
        # A loader follows a link that is named, so what it leads to is scanned.
        path = Path(os.path.realpath(path)) if os.path.islink(path) else path
        scans = scan_paths([path], options)
        manifest = attested(path, scans, self._producers)
        producer = manifest.producer if manifest else ""
        return {
            inputs.submitted_path(scan.path): record(scan, inputs, producer)
            for scan in scans
            if scan.format not in SIDE_FILES or scan.verdict is not Verdict.CLEAN or is_named_as_checkpoint(scan.path)
        }


class CheckpointCollector:
    """Supplies the facts about the checkpoint of a request, from the files that the sender names.

    `inputs.checkpoints`, or else `inputs.files`, are the files or the folder to be loaded; the enforcement point that
    loads them fills it in.
    """

    name = "checkpoint"
    measures_contributors = False
    declares = tuple(
        f"resource.{name}"
        for name in (
            "format",
            "named_format",
            "verdict",
            "reasons",
            "pickle_globals",
            "templates",
            "configurations",
            "others_may_write",
            "digest",
            "producer",
            "manifest_matches",
            "remote_code",
            "foreign_code",
            "revision",
        )
    )

    def __init__(
        self, options: Options | None = None, producers: Mapping[str, Sequence[PublicKey]] | None = None
    ) -> None:
        self._options, self._producers = options or Options(), producers or {}

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Scan the files together; the worst verdict counts. Without files, every fact is missing.

        Raises:
            EvidenceError: no file is named, so there is nothing to scan.
        """
        names = inputs.checkpoints or inputs.files
        if not names:
            raise EvidenceError("no files are named, expected those that are to be loaded")
        paths = [Path(inputs.directory, name) for name in names]
        options = fresh_options(self._options)
        scans = [scan for path in paths for scan in scan_paths([path], options)]
        weights = [scan for scan in scans if _is_loaded(scan)]
        values: dict[str, Value] = {
            "format": _worst([format_category(scan) for scan in weights]),
            "named_format": _worst([category_by_suffix(scan.path) for scan in weights]),
            "verdict": max((scan.verdict for scan in scans), key=list(Verdict).index, default=Verdict.UNKNOWN).value,
            "reasons": tuple(sorted({reason.code for scan in scans for reason in scan.reasons})),
            "pickle_globals": tuple(sorted({name for scan in scans for name in scan.globals})),
            "templates": tuple(sorted({digest for scan in scans for digest in scan.templates})),
            "configurations": tuple(sorted({digest for scan in scans for digest in scan.configurations})),
            "others_may_write": any(others_may_write(scan) for scan in scans),
            "digest": "",
        }
        entries = {f"resource.{name}": self._fact(value, Assurance.MEASURED, now) for name, value in values.items()}
        self._add_manifest(entries, paths, scans, now)
        self._add_repository(entries, paths, now)
        return Collected(entries={path: fact for path, fact in entries.items() if fact.value != ""})

    def _add_manifest(
        self, entries: dict[str, Fact], paths: Sequence[Path], scans: Sequence[CheckpointScan], now: Instant
    ) -> None:
        manifest = attested(paths[0], scans, self._producers) if len(paths) == 1 else None
        entries["resource.manifest_matches"] = self._fact(manifest is not None, Assurance.MEASURED, now)
        if manifest is not None:
            entries["resource.producer"] = self._fact(manifest.producer, Assurance.ATTESTED, now)
            entries["resource.digest"] = self._fact(manifest.root_digest, Assurance.MEASURED, now)
        elif len(scans) == 1:
            entries["resource.digest"] = self._fact(scans[0].sha256, Assurance.MEASURED, now)

    def _add_repository(self, entries: dict[str, Fact], paths: Sequence[Path], now: Instant) -> None:
        if len(paths) != 1 or not paths[0].is_dir():
            return
        repository = inspect_repository(paths[0])
        values: dict[str, Value] = {
            "remote_code": repository.remote_code,
            "foreign_code": bool(repository.foreign_code or repository.problems),
            "revision": repository.revision,
        }
        for name, value in values.items():
            entries[f"resource.{name}"] = self._fact(value, Assurance.MEASURED, now)

    def _fact(self, value: Value, assurance: Assurance, now: Instant) -> Fact:
        return Fact(value, assurance, self.name, now, bound=True)


def fresh_options(options: Options) -> Options:
    """Copy the scan options without the digests of earlier measurements."""
    # INVARIANT I16: each measurement hashes a file again, unless the cache knows that it cannot have changed.
    return replace(options, digests={})


def _is_loaded(scan: CheckpointScan) -> bool:
    """Return True for weights; code named by settings is reported by `remote_code` and related facts."""
    return scan.format not in SIDE_FILES or any(not reason.code.startswith("hub.") for reason in scan.reasons)


def record(scan: CheckpointScan, inputs: JobInputs, producer: str) -> FrozenMap:
    """Convert a scan to a `checkpoint_ref` record; `producer` is empty if no signed manifest fits.

    Args:
        scan: the result of the scan.
        inputs: the job; paths are recorded relative to the folder that it was submitted in.
        producer: the verified producer, if any.
    """
    return FrozenMap(
        path=printable_name(os.path.relpath(inputs.submitted_path(scan.path), inputs.submitted.directory)),
        digest=scan.sha256,
        size=scan.size_bytes,
        format=format_category(scan),
        named_format=category_by_suffix(scan.path),
        container=scan.format,
        verdict=scan.verdict.value,
        reasons=tuple(sorted({reason.code for reason in scan.reasons})),
        pickle_globals=scan.globals,
        owner_uid=scan.owner_uid,
        others_may_write=others_may_write(scan),
        producer=producer,
        manifest_matches=bool(producer),
    )


def others_may_write(scan: CheckpointScan) -> bool:
    """Return True if an account other than the owner can change or replace the file."""
    return scan.dir_group_writable or scan.dir_world_writable or bool(scan.mode & 0o022)


def attested(path: Path, scans: Sequence[CheckpointScan], producers: Producers) -> Manifest | None:
    """Return the manifest of the files if a pinned producer signed it and it matches the scan, else None.

    A folder has it inside as `checkpoint.dsse.json`; a file has it in the same folder, as `<name>.dsse.json`.

    Args:
        path: the checkpoint.
        scans: the scans of its files.
        producers: the pinned keys of each producer.
    """
    manifest_path = path / MANIFEST_NAME if path.is_dir() else path.with_name(path.name + ".dsse.json")
    try:
        fd, status, _ = open_resolved(str(manifest_path))
        with open(fd, "rb") as file:
            data = file.read(MAX_MANIFEST_BYTES) if status.st_size <= MAX_MANIFEST_BYTES else b""
        manifest = verify_manifest(data, producers)
        check_files(manifest, path, scans)
    except (EvidenceError, VerificationError, OSError):
        return None
    return manifest


def _not_searched(path: str, inputs: JobInputs) -> FrozenMap:
    """Record a folder, or a file of settings, in which there may be more; it is of no size, as it is not loaded."""
    reason = Reason("ckpt.not_searched")
    return record(CheckpointScan(path=path, verdict=reason.verdict, format="unknown", reasons=(reason,)), inputs, "")


def _worst(categories: Sequence[str]) -> str:
    order = ("safetensors", "other", "pickle", "unknown")
    return max(categories, key=order.index, default="unknown")
