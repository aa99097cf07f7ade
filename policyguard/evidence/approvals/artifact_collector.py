"""Approvals of an artifact by digest: weights, data or policies, for any requester.

The digest is measured here, at the time of the decision; an approval must name it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from policyguard.attest.approval import ApprovalTarget
from policyguard.attest.manifest_statement import root_digest
from policyguard.errors import EvidenceError, PolicyGuardError
from policyguard.evidence.approvals.collectors import UNCONFIGURED, ReviewFiles, load_signers, runner_account
from policyguard.evidence.approvals.verify import examine
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.model.policy import Person
from policyguard.model.request import Request
from policyguard.scan.files import Options, scan_paths
from policyguard.scan.manifest import measured
from policyguard.values import Instant

Digest = Callable[[], str]


class ArtifactReviewCollector:
    """Supplies the approvals of the artifact with this digest, whatever name the request uses.

    `subject` is what approvals call it, `checkpoint` or `policy`; `digest` measures it. Contributors are the requester
    and the account that runs this process; rules can read the author of an artifact from its manifest.
    """

    name = "artifact-review"
    declares: tuple[str, ...] = ()

    def __init__(
        self, persons: Sequence[Person], files: ReviewFiles, subject: str, digest: Digest, *, uid: int | None = None
    ) -> None:
        self._persons, self._files, self._subject, self._digest = tuple(persons), files, subject, digest
        self._uid = os.getuid() if uid is None else uid

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Collect the approvals of this digest for the request's action, resource and properties."""
        try:
            signers = load_signers(self._persons, self._files)
            digest = self._digest()
        except PolicyGuardError as problem:
            # INVARIANT I2: an artifact that cannot be measured is approved by nobody.
            return Collected(unusable=(f"approval.unreadable: {problem}",), contributors_unknown=True)
        target = ApprovalTarget(
            request=request, measured_digests={self._subject: digest}, required_subjects=(self._subject,)
        )
        examined = examine(self._files.submitted(), signers, target, now)
        contributors = (request.subject.ref, *runner_account(self._uid, signers))
        lines = examined.lines if self._files.keeps_approvals else (UNCONFIGURED,)
        return Collected(approvals=examined.approvals, contributors=contributors, unusable=lines)


def artifact_digest(path: Path, options: Options) -> str:
    """Compute the SHA-256 of a file; of a folder, over its files' digests by name, as its manifest does.

    Raises:
        EvidenceError: a file cannot be read to its end, or there is none.
    """
    resources = measured(path, scan_paths([path], options))
    if not resources:
        raise EvidenceError(f"`{path}`: found no files, expected at least one")
    if set(resources) == {"."}:
        return resources["."]
    return root_digest(resources[name] for name in sorted(resources))
