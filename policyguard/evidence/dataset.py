"""The collector for datasets: hashes the content, and reads the class that its producer signed.

A class such as `restricted` cannot be measured. It is attested: a pinned producer signed a manifest with the class, and
every file still matches it. Otherwise the data has no class, and rules that require one deny.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from policyguard.errors import EvidenceError
from policyguard.evidence.checkpoint import Producers, attested, others_may_write
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.model.facts import Assurance, Fact
from policyguard.model.request import Request
from policyguard.scan.files import Options, scan_paths
from policyguard.scan.findings import CheckpointScan, Verdict
from policyguard.values import Instant, Value


class DatasetCollector:
    """Supplies the facts about the dataset of a request: one folder or one file.

    `inputs.files`, or else `inputs.checkpoints`, name it. `class` and `producer` are attested, by the manifest beside
    it (`policyguard manifest sign --class`); the rest is measured. All are bound.
    """

    name = "dataset"
    measures_contributors = False
    declares = tuple(
        f"resource.{name}"
        for name in ("class", "producer", "digest", "verdict", "reasons", "others_may_write", "manifest_matches")
    )

    def __init__(self, options: Options | None = None, producers: Producers | None = None) -> None:
        self._options, self._producers = options or Options(), producers or {}

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Hash the dataset, and read the class that its producer signed.

        Raises:
            EvidenceError: not exactly one folder or file is named, or there is nothing in it.
        """
        names = inputs.files or inputs.checkpoints
        if len(names) != 1:
            raise EvidenceError(f"{len(names)} paths are named, expected the one folder or file that holds the data")
        path = Path(inputs.directory, names[0])
        scans = scan_paths([path], self._options)
        if not scans:
            raise EvidenceError("the folder holds no files, expected data")
        entries = {f"resource.{name}": self._fact(value, Assurance.MEASURED, now) for name, value in _measured(scans)}
        manifest = attested(path, scans, self._producers)
        entries["resource.manifest_matches"] = self._fact(manifest is not None, Assurance.MEASURED, now)
        if manifest is not None:
            entries["resource.producer"] = self._fact(manifest.producer, Assurance.ATTESTED, now)
            entries["resource.digest"] = self._fact(manifest.root_digest, Assurance.MEASURED, now)
            # INVARIANT I1: data has the class that its producer signed over these very files, or none.
            if manifest.data_class:
                entries["resource.class"] = self._fact(manifest.data_class, Assurance.ATTESTED, now)
        return Collected(entries=entries)

    def _fact(self, value: Value, assurance: Assurance, now: Instant) -> Fact:
        return Fact(value, assurance, self.name, now, bound=True)


def _measured(scans: Sequence[CheckpointScan]) -> list[tuple[str, Value]]:
    worst = max((scan.verdict for scan in scans), key=list(Verdict).index)
    return [
        ("verdict", worst.value),
        ("reasons", tuple(sorted({reason.code for scan in scans for reason in scan.reasons}))),
        ("others_may_write", any(others_may_write(scan) for scan in scans)),
    ]
