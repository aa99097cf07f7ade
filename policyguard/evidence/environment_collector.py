"""The installed environment as facts: whether it has a signed baseline, and how it differs from that.

"No baseline is configured" is a fact, not a failed measurement. So a rule can let small jobs run without a baseline,
and still deny if there is one that could not be compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from policyguard.attest.keys import PublicKey
from policyguard.confinement.profile import SYSTEM_PREFIXES
from policyguard.environment.cache import FileCache
from policyguard.environment.outside import user_sites
from policyguard.environment.report import MAX_BASELINE_BYTES, EnvironmentReport, read_baseline, verify_environment
from policyguard.errors import EvidenceError
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.evidence.job import program_of
from policyguard.fs.safe_open import read_small
from policyguard.model.facts import Assurance, Fact
from policyguard.model.request import Request
from policyguard.text import printable_name
from policyguard.values import FrozenMap, Instant

ENVIRONMENT = "resource.environment"
BASELINE = "resource.environment_baseline"
ENVIRONMENT_DIGEST = "resource.environment_digest"
MAX_LISTED = 1_000


class EnvironmentCollector:
    """Supplies how the environment of the job's program differs from the baseline, and a digest of its files.

    The environment is the folder above the `bin` of what runs the program in the end (`Program.interpreter`), links not
    resolved, so that a virtual environment's interpreter leads to it and not to the interpreter it borrows.
    """

    name = "environment"
    measures_contributors = False
    declares = (ENVIRONMENT, BASELINE, ENVIRONMENT_DIGEST)

    def __init__(
        self,
        baseline: str,
        keys: Sequence[PublicKey],
        *,
        cache: str | None = None,
        threshold: int = 1,
        seal: bytes | None = None,
        interpreter: str | None = None,
        tell: Callable[[str], object] | None = None,
    ) -> None:
        """Prepare a comparison with this signed baseline.

        Args:
            cache: a file of ours that remembers digests; sealed, and believed only if sealed, where there is a `seal`.
            interpreter: see `verify_environment`.
            tell: called with the reason why the cache is not believed.
        """
        self._baseline, self._keys, self._threshold = baseline, tuple(keys), threshold
        self._cache, self._seal, self._interpreter, self._tell = cache, seal, interpreter, tell

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Measure the differences.

        `changed_files` lists changed, added and missing files, byte code that differs, and what is not measured.

        Raises:
            EvidenceError: the program of the job is in no environment of its own.
        """
        executable = program_of(inputs).interpreter
        prefix = os.path.dirname(os.path.dirname(executable))
        if os.path.basename(os.path.dirname(executable)) != "bin" or prefix in ("/", *SYSTEM_PREFIXES):
            raise EvidenceError(
                f"`{printable_name(executable)}`: is in no environment of its own, expected ENVIRONMENT/bin/...",
                help="name that program; a script of a shell is followed if it has one command, of plain words",
            )
        baseline = read_baseline(read_small(self._baseline, MAX_BASELINE_BYTES), self._keys, self._threshold)
        cache = FileCache(self._cache, self._seal) if self._cache is not None else None
        users = user_sites(inputs.environment)
        report = verify_environment(prefix, baseline, cache=cache, interpreter=self._interpreter, users=users)
        if report.doubt and self._tell is not None:
            self._tell(report.doubt)
        unlike = {finding.name for finding in report.bytecode}
        # INVARIANT I17: what could not be measured counts as changed, whatever the baseline has.
        unmeasured = {item.partition(": ")[0] for item in report.unmeasured}
        # INVARIANT I17: byte code unlike its source is a changed file, for policies that know of no byte code, too.
        record = FrozenMap(
            changed_files=_bounded({*report.changed, *report.added, *report.removed, *unlike, *unmeasured}),
            unlike_bytecode=_bounded(unlike),
            unowned_autorun=_bounded(_came(report)),
        )
        # INVARIANT I2: that there is a baseline is said only together with what differs from it.
        entries = {
            path: Fact(value, Assurance.MEASURED, self.name, now, bound=True)
            for path, value in ((ENVIRONMENT, record), (BASELINE, True), (ENVIRONMENT_DIGEST, report.digest))
        }
        return Collected(entries=entries)


def _came(report: EnvironmentReport) -> tuple[str, ...]:
    """List added files that run by themselves; an edited file of the build counts as changed."""
    edited = {*report.changed}
    return tuple(path for path in report.autorun if path not in edited and path.partition(": ")[0] not in edited)


def _bounded(names: set[str] | tuple[str, ...]) -> tuple[str, ...]:
    if len(names) > MAX_LISTED:
        raise EvidenceError(f"found {len(names)} differences to the baseline; this is another environment")
    return tuple(sorted(names))


class MissingBaselineCollector:
    """Supplies `resource.environment_baseline` as false, because none is configured.

    It takes the place of `EnvironmentCollector`, which supplies true if and only if it compared.
    """

    name = "environment"
    measures_contributors = False
    declares = (BASELINE,)

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Supply that one fact; nothing is measured."""
        return Collected(entries={BASELINE: Fact(False, Assurance.MEASURED, self.name, now, bound=True)})
