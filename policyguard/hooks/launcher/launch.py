"""Start a job only under a signed allow, and only if it is still what the decision was about.

    L1  decide: collect, decide, sign, log (design section 6, steps 2 to 6); a deny ends here
    L2  measure again: the same collectors, just before the start
    L3  verify: steps V1 to V12 on the very bytes the job will carry, with the facts of L2
    L4  start the program that was measured, by its path, with the decision in its environment
    L5  pass signals down and the exit status up; with `watch_s`, measure while it runs (`hooks/watch/watch.py`)

Nothing is started before L4. Between L3 and the moment when the kernel reads the program, its owner could change it;
docs/hooks/launcher.md says how to prevent that.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

from policyguard.assembly.jobs import job_facts
from policyguard.attest.trust import Trust
from policyguard.audit.receipt import SignedDecision
from policyguard.errors import AccessDenied, EvidenceError, PolicyGuardError
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.identity import ACCOUNT
from policyguard.evidence.job import EXECUTABLE, FILES, resolve_executable
from policyguard.evidence.processes import is_supported
from policyguard.exit_codes import DENIED
from policyguard.guard import Guard
from policyguard.hooks.launcher.job_environment import VARIABLE, child_environment
from policyguard.hooks.launcher.refusals import refusals_logged
from policyguard.hooks.launcher.supervise import supervise
from policyguard.hooks.watch.policies import Accepts, PolicyRecheck, trust_accepts
from policyguard.hooks.watch.processes import JobProcesses
from policyguard.hooks.watch.watch import Watch
from policyguard.model.facts import Facts
from policyguard.model.request import Request
from policyguard.revocation_file import read_revocations
from policyguard.text import printable_name
from policyguard.values import FrozenMap, Instant, Value
from policyguard.verify import UsedStore, VerifiedDecision, verify


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
    watch_s: float | None = None,
    on_alert: Callable[[SignedDecision], None] | None = None,
    on_problem: Callable[[PolicyGuardError], None] | None = None,
    accepts: Accepts | None = None,
    libraries: Sequence[str] = (),
    clock: Callable[[], Instant] = time.time_ns,
) -> int:
    """Decide about the job, run it if it is allowed, and return its exit status (128 + n for a signal).

    A job that was ended because of drift returns 77.

    Args:
        guard: must measure commands (`JobCollector`), else a decision would not be bound to the command.
        request: to start the job.
        inputs: the command, its folder and its environment.
        trust: the keys, logs and policies that this launcher accepts as a verifier.
        audience: the name of this launcher in decisions.
        used: a store of used decisions; with it, a decision starts one job only.
        private_bytecode: give Python a byte-code cache of its own, so that no stray `.pyc` in a shared folder runs.
        on_decision, on_start: called with the signed decision, allow or deny, and with the verified one; for printing.
        watch_s: seconds between two checks while the job runs; None for no watch.
        on_alert, on_problem: called with each logged alert, and with what could not be measured or logged.
        accepts: tells whether policies that are replaced while the job runs are accepted; by `trust` if None.
        libraries: more folders, beside the job's own and the system's, that its code may be loaded from.
        clock: supplies the current time.

    Raises:
        AccessDenied: the decision is deny; it is signed and logged, nothing was started.
        VerificationError: the job differs from the one that was decided on; logged, nothing was started.
        EvidenceError: there is no such program, or it cannot be started; logged.
        SigningError, AuditError: the decision could not be signed or logged; nothing was started.
    """
    signed = decided(guard, request, inputs, on_decision)  # L1
    with refusals_logged(guard, signed, clock), guard.reservation_held(signed) as note_start:
        _check_files_seen(signed.decision.facts, inputs)
        bound = guard.gather(request, inputs).bound  # L2
        verified = verify(
            signed.to_json(),
            trust,
            request,
            audience=audience,
            now=clock(),
            bound=bound,
            used=used,
            revocations=read_revocations(trust),
        )  # L3
        executable = _measured_program(inputs, bound)
        note_start()
        if on_start is not None:
            on_start(verified)
        with tempfile.TemporaryDirectory(prefix="policyguard-job-") as private:
            environment = child_environment(inputs.environment, signed, private)
            if private_bytecode:
                environment["PYTHONPYCACHEPREFIX"] = os.path.join(private, "bytecode")
            if watch_s is None:
                return supervise(inputs.argv, executable, inputs.directory, environment)  # L4, L5
            processes = JobProcesses(inputs, environment[VARIABLE], libraries)
            recheck = PolicyRecheck(guard, signed.decision, accepts or trust_accepts(trust))
            if not is_supported() and on_problem is not None:
                on_problem(EvidenceError("processes are not inspected, expected a system that has /proc"))
            watch = Watch(
                guard,
                request,
                inputs,
                verified,
                bound,
                period_s=watch_s,
                on_alert=on_alert,
                on_problem=on_problem,
                clock=clock,
                checks=(recheck.check, *((processes.check,) if is_supported() else ())),
            )
            status = supervise(
                inputs.argv,
                executable,
                inputs.directory,
                environment,
                alongside=watch.running_alongside,
                on_start=processes.started,
                on_kill=watch.killed,
            )  # L4, L5
            return DENIED if watch.ended_job else status


def decided(
    guard: Guard, request: Request, inputs: JobInputs, on_decision: Callable[[SignedDecision], None] | None
) -> SignedDecision:
    """Decide about this job and call `on_decision`, whether it is allowed or denied.

    Args:
        guard: decides, signs and logs.
        request: what is asked.
        inputs: what is about to run.
        on_decision: is called with the signed decision.

    Raises:
        AccessDenied: the decision is deny.
    """
    facts = job_facts(guard.gather(request, inputs), inputs)
    signed = guard.issue(facts, recording=(ACCOUNT,))
    if on_decision is not None:
        on_decision(signed)
    unseen = facts.missing.get(FILES) if inputs.files else None
    if not signed.decision.allowed:
        explanation = signed.decision.explain()
        raise AccessDenied(f"{explanation}\n{FILES}: {unseen}" if unseen else explanation, signed=signed)
    return signed


def _check_files_seen(facts: Facts, inputs: JobInputs) -> None:
    # INVARIANT I2: a job that names files which cannot be measured does not start, whatever the policies read.
    if inputs.files and FILES in facts.missing:
        raise EvidenceError(f"{FILES}: {facts.missing[FILES]}")


def _measured_program(inputs: JobInputs, bound: Mapping[str, Value]) -> str:
    """Find the path to start: the one whose digest was just verified."""
    executable = resolve_executable(inputs.argv, inputs.directory, inputs.environment)
    record = bound.get(EXECUTABLE)
    # INVARIANT I15: the program started is the one that was measured, not what its name resolves to now.
    if not isinstance(record, FrozenMap) or record["path"] != printable_name(executable):
        raise EvidenceError(
            f"`{printable_name(executable)}`: was not measured, expected the program that the decision is about"
        )
    return executable
