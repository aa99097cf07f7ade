"""Starts a job only under a signed allow, and only if it still is what the decision was about.

    L1  decide: export the commit if the job starts from it, collect, decide, sign, log; a deny ends here
    L2  measure again: the same collectors, just before the start
    L3  verify: steps V1 to V12 on the very bytes the job will carry, with the facts of L2
    L4  start the program that was measured, by its path, with the decision in its environment; confined if it was
        decided so, or if the decision obliges to (`run.confined`, `run.from_commit`)
        then compare what was started with what was measured (`start_check.py`)
    L5  pass signals down and the exit status up; with `watch`, measure while it runs (`hooks/watch/watch.py`)

Nothing is started before L4. Between L3 and the moment when the kernel reads the program, its owner could change it;
docs/hooks/launcher.md says how to prevent that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from msgspec import structs

from policyguard.assembly.jobs import job_facts
from policyguard.attest.trust import Trust
from policyguard.audit.receipt import SignedDecision
from policyguard.config.job_file import check_declared, check_starting
from policyguard.errors import AccessDenied, EvidenceError, PolicyGuardError, RequestError
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.confinement import CONFINEMENT
from policyguard.evidence.from_commit import FROM_COMMIT, export_job
from policyguard.evidence.identity import ACCOUNT
from policyguard.evidence.job import EXECUTABLE, FILES, resolve_executable
from policyguard.evidence.processes import is_supported
from policyguard.evidence.scale import GPUS
from policyguard.exit_codes import DENIED
from policyguard.fs.job_folder import JobFolder, job_folder
from policyguard.guard import Guard
from policyguard.hooks.launcher.confined import OBLIGATIONS, check_confinement, starter
from policyguard.hooks.launcher.job_environment import VARIABLE, child_environment
from policyguard.hooks.launcher.refusals import refusals_logged, unstarted_logged
from policyguard.hooks.launcher.running_job import RunningJob
from policyguard.hooks.launcher.start_check import StartCheck
from policyguard.hooks.launcher.supervise import ended_by_signals, supervise
from policyguard.hooks.watch.alerts import Alerts
from policyguard.hooks.watch.growth import JobGrowth
from policyguard.hooks.watch.policies import Accepts, PolicyRecheck, trust_accepts
from policyguard.hooks.watch.processes import JobProcesses, measured_libraries
from policyguard.hooks.watch.watch import Watch
from policyguard.model.facts import Facts
from policyguard.model.request import Request
from policyguard.revocation_file import read_revocations
from policyguard.text import printable_name
from policyguard.values import FrozenMap, Instant, Value
from policyguard.verify import UsedStore, VerifiedDecision, verify


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """How a job is measured while it runs, and the callbacks for what the watch finds."""

    period_s: float | None = None
    """Time between two checks; None: only the start and the end are checked."""
    on_alert: Callable[[SignedDecision], None] | None = None
    """Called with each logged alert."""
    on_problem: Callable[[PolicyGuardError], None] | None = None
    """Called with what could not be measured or logged."""
    accepts: Accepts | None = None
    """Returns True if policies that are replaced while the job runs are accepted; None uses the launcher's trust."""
    libraries: Sequence[str] = ()
    """Additional folders from which the job's code may be loaded."""


def launch(
    guard: Guard,
    request: Request,
    inputs: JobInputs,
    trust: Trust,
    *,
    audience: str,
    used: UsedStore | None = None,
    private_bytecode: bool = True,
    on_decision: Callable[[SignedDecision], None] | None = None,
    on_start: Callable[[VerifiedDecision], None] | None = None,
    watch: WatchOptions | None = None,
    clock: Callable[[], Instant] = time.time_ns,
) -> int:
    """Decide about the job, run it if allowed, and return its exit status (128 + n for signal n).

    Args:
        guard: must measure commands (`JobCollector`), else a decision would not be bound to the command.
        request, inputs: to start the job; its command, folder and environment.
        trust, audience: the keys, logs and policies that this launcher accepts as a verifier, and its own name.
        used, clock: a store of used decisions, with which a decision starts one job only; supplies the current time.
        private_bytecode: give Python a byte-code cache of its own, so that no stray `.pyc` in a shared folder runs.
        on_decision, on_start: called with the signed decision, allow or deny, and with the verified one.
        watch: check the job while it runs; one that is ended because of drift returns 77.

    Raises:
        RequestError, AccessDenied: there is no such program; or the decision is deny, signed and logged.
        VerificationError, EvidenceError: the job differs from the one decided on, or cannot be started; logged.
        SigningError, AuditError: the decision could not be signed or logged; nothing was started.
    """
    _check_program(inputs)
    with _prepared(guard, request, inputs, clock, private_bytecode) as (inputs, facts, folder):
        signed = decided(guard, facts, inputs, on_decision)  # L1
        job = _AllowedJob(guard, request, inputs, trust, signed, folder, clock)
        with refusals_logged(guard, signed, clock), guard.reservation_held(signed) as note_start, job:
            job.measure_again()  # L2
            verified, executable = job.verify(audience, used)  # L3
            note_start()
            (on_start or _ignore)(verified)
            return job.run(executable, verified, watch)  # L4, L5


def _ignore(_: VerifiedDecision) -> None:
    """Take the place of a callback that the caller did not give."""


@contextmanager
def _prepared(
    guard: Guard, request: Request, inputs: JobInputs, clock: Callable[[], Instant], private_bytecode: bool
) -> Iterator[tuple[JobInputs, Facts, JobFolder]]:
    """Yield the job as it will be started, what was measured of it, and its folders, which end with the block."""
    with ended_by_signals(), ExitStack() as ending:
        with unstarted_logged(guard, request, clock):
            check_starting(request)
            folder = ending.enter_context(job_folder())
            inputs = structs.replace(inputs, private_bytecode=private_bytecode)
            inputs, facts = collect(guard, request, inputs, folder)
        yield inputs, facts, folder


def collect(guard: Guard, request: Request, inputs: JobInputs, folder: JobFolder) -> tuple[JobInputs, Facts]:
    """Measure a job as it will be started: from its commit and confined if it asks for that, or if it is obliged to.

    Args:
        guard: measures, and previews the decision.
        request: what is asked.
        inputs: the job as it was submitted.
        folder: where its commit is exported to.

    Raises:
        EvidenceError: it cannot be started so, although the policies allow it.
        RequestError: outputs or data are named, which only a job started so has.
    """
    # How it is started is part of what is decided, so it is measured before the one decision is made and logged.
    while True:
        if inputs.from_commit and inputs.export is None:
            inputs = export_job(inputs, folder.tree)
        facts = guard.gather(request, inputs)
        if inputs.confine and inputs.from_commit:
            break
        obliged = guard.consider(facts).obligations
        more = {name: True for name, word in OBLIGATIONS.items() if word in obliged and not getattr(inputs, name)}
        if not more:
            break
        inputs = structs.replace(inputs, **more)
    check_declared(inputs)
    problem = _start_problem(inputs, facts, folder)
    if problem is not None and guard.consider(job_facts(facts, inputs)).allowed:
        raise problem
    return inputs, facts


def _start_problem(inputs: JobInputs, facts: Facts, folder: JobFolder) -> EvidenceError | None:
    """Return why a job cannot be started as it was measured; None if nothing is known against it."""
    needed = {CONFINEMENT: inputs.confine, FROM_COMMIT: inputs.from_commit, FILES: bool(inputs.files)}
    for path, is_needed in needed.items():
        # INVARIANT I15: a job that is to be confined and cannot be does not start; there is no silent downgrade.
        # INVARIANT I2: a job that names files which cannot be measured does not start, whatever the policies read.
        if is_needed and (path in facts.missing or path not in facts.entries):
            reason = str(facts.missing.get(path, "this guard does not measure it"))
            # A reason begins with the name of the collector, often the last part of the path.
            return EvidenceError(f"{path}: {reason.removeprefix(path.rpartition('.')[2] + ': ')}")
    try:
        if inputs.confine:
            check_confinement(inputs, facts.bound, folder)
    except EvidenceError as problem:
        return problem
    return None


def decided(
    guard: Guard, facts: Facts, inputs: JobInputs, on_decision: Callable[[SignedDecision], None] | None
) -> SignedDecision:
    """Decide about this job, and call `on_decision` with the result.

    Args:
        guard: decides, signs and logs.
        facts: what was measured of the job.
        inputs: what is about to run.
        on_decision: is called with the signed decision.

    Raises:
        AccessDenied: the decision is deny.
    """
    facts = job_facts(facts, inputs)
    signed = guard.issue(facts, recording=(ACCOUNT,))
    if on_decision is not None:
        on_decision(signed)
    unseen = facts.missing.get(FILES) if inputs.files else None
    if not signed.decision.allowed:
        explanation = signed.decision.explain()
        raise AccessDenied(f"{explanation}\n{FILES}: {unseen}" if unseen else explanation, signed=signed)
    return signed


class _AllowedJob:
    """A job between its allow and its end: steps L2 to L5."""

    def __init__(
        self,
        guard: Guard,
        request: Request,
        inputs: JobInputs,
        trust: Trust,
        signed: SignedDecision,
        folder: JobFolder,
        clock: Callable[[], Instant],
    ) -> None:
        self._guard, self._request, self._inputs, self._trust = guard, request, inputs, trust
        self._signed, self._folder, self._clock = signed, folder, clock
        self.bound: Mapping[str, Value] = {}

    def __enter__(self) -> _AllowedJob:
        self._check = StartCheck(self._inputs)
        return self

    def __exit__(self, *_: object) -> None:
        self._check.close()

    def measure_again(self) -> None:
        problem = _start_problem(self._inputs, self._signed.decision.facts, self._folder)
        if problem is not None:
            raise problem
        self.bound = self._guard.gather(self._request, self._inputs).bound

    def verify(self, audience: str, used: UsedStore | None) -> tuple[VerifiedDecision, str]:
        """Verify the decision; return it with the path of the program that was measured."""
        verified = verify(
            self._signed.to_json(),
            self._trust,
            self._request,
            audience=audience,
            now=self._clock(),
            bound=self.bound,
            used=used,
            revocations=read_revocations(self._trust),
            memory=self._guard,
        )
        return verified, _measured_program(self._inputs, self.bound)

    def run(self, executable: str, verified: VerifiedDecision, watch: WatchOptions | None) -> int:
        inputs, private = self._inputs, self._folder.private
        environment = child_environment(inputs.environment, self._signed, private)
        if inputs.private_bytecode:
            environment["PYTHONPYCACHEPREFIX"] = os.path.join(private, "bytecode")
        start = starter(inputs, self.bound, self._folder, environment)
        options = watch or WatchOptions()
        alerts = Alerts(self._guard, self._request, verified, options.on_alert, options.on_problem, self._clock)
        log_end = self._guard.record_job_end
        running = RunningJob(alerts, log_end, verified.predicate, self._check, environment)
        if options.period_s is not None:
            running.watch = self._watch(verified, environment, options, options.period_s, running)
        status = supervise(
            inputs.argv,
            executable,
            self._check.directory,
            environment,
            start=start,
            alongside=running.watch.running_alongside if running.watch is not None else None,
            on_start=running.started,
            on_end=running.ended,
        )
        return DENIED if running.is_refused else status

    def _watch(
        self,
        verified: VerifiedDecision,
        environment: Mapping[str, str],
        options: WatchOptions,
        period_s: float,
        running: RunningJob,
    ) -> Watch:
        inputs = self._inputs
        libraries = (*options.libraries, *measured_libraries(inputs, self.bound))
        processes = JobProcesses(inputs, environment[VARIABLE], libraries)
        growth = JobGrowth(processes, self.bound.get(GPUS))
        running.on_start.append(lambda job: processes.started(job.pid, job.guardian_pid))
        recheck = PolicyRecheck(self._guard, self._signed.decision, options.accepts or trust_accepts(self._trust))
        if not is_supported():
            running.alerts.report_problem(
                EvidenceError("processes are not inspected, expected a system that has /proc")
            )
        return Watch(
            self._guard,
            self._request,
            inputs,
            verified,
            self.bound,
            period_s=period_s,
            alerts=running.alerts,
            checks=(recheck.check, *((processes.check, growth.check) if is_supported() else ())),
        )


def _check_program(inputs: JobInputs) -> None:
    """Refuse a command without an executable program, so that no allow is logged for it."""
    try:
        resolve_executable(inputs.argv, inputs.directory, inputs.environment)
    except EvidenceError as problem:
        raise RequestError(
            str(problem), path="the command", help="give a program on PATH, or its path; nothing was decided"
        ) from problem


def _measured_program(inputs: JobInputs, bound: Mapping[str, Value]) -> str:
    """Return the path to start: the one whose digest was just verified."""
    executable = resolve_executable(inputs.argv, inputs.directory, inputs.environment)
    record = bound.get(EXECUTABLE)
    # INVARIANT I15: the program started is the one that was measured, not what its name resolves to now.
    if not isinstance(record, FrozenMap) or record["path"] != printable_name(inputs.recorded(executable)):
        raise EvidenceError(
            f"`{printable_name(executable)}`: was not measured, expected the program that the decision is about"
        )
    return executable
