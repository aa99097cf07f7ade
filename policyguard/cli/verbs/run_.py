"""`policyguard run --job JOB.yaml -- CMD...`: decide about a job, and start it only if it is allowed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from policyguard.attest.trust import Trust, TrustedKey
from policyguard.audit.receipt import SignedDecision
from policyguard.audit.stores.used import UsedDecisions
from policyguard.cli.files import check_replaceable, replace_file
from policyguard.cli.jobs import configured_collectors
from policyguard.cli.options import guard_options, parse_account, start_options, take_start, trust_option
from policyguard.cli.output import say, say_explanation
from policyguard.cli.settings import open_guard, operator_settings
from policyguard.config.file import FILE_NAME, SYSTEM_FILE, Config
from policyguard.config.job_file import current_folder, read_job_file, with_start
from policyguard.config.operator import check_declared_paths
from policyguard.config.paths import job_folders
from policyguard.config.trust_file import read_trust
from policyguard.errors import AccessDenied, ConfigurationError, PolicyGuardError
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.identity import Caller, calling_account
from policyguard.exit_codes import code_of_decision
from policyguard.fs.ownership import is_below
from policyguard.guard import Guard
from policyguard.hooks.launcher.launch import WatchOptions, launch
from policyguard.hooks.launcher.refusals import log_undecided
from policyguard.hooks.watch.policies import Accepts, trust_accepts
from policyguard.keyfiles import read_passphrase
from policyguard.model.decision import DEFAULT_AUDIENCE
from policyguard.model.request import Request
from policyguard.text import quoted


@click.command("run", context_settings={"allow_interspersed_args": False})
@guard_options
@trust_option
@click.option("--job", type=click.Path(path_type=Path), required=True, help="The job file.")
@click.option(
    "--subject",
    callback=parse_account,
    metavar="TYPE:ID",
    help="Who asks; for accounts that the configuration lists in `speakFor:`.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the SignedDecision to this file.")
@click.option(
    "--replay-store", type=click.Path(path_type=Path), help="Remember used decisions in this file; each starts one job."
)
@click.option(
    "--watch",
    type=click.FloatRange(min=0.05),
    metavar="SECONDS",
    help="Measure again in this period while CMD runs; log what changed.",
)
@start_options
@click.option("-q", "--quiet", is_flag=True, help="Print nothing for an allowed job.")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
def command(
    argv: tuple[str, ...],
    job: Path,
    subject: str | None,
    out: Path | None,
    replay_store: Path | None,
    watch: float | None,
    quiet: bool,
    **chosen: Any,
) -> int:
    """Measure the job, decide, sign and log; measure again just before the start; run CMD only if nothing changed.

    The subject is the account that runs this, never what a variable or the job file says. The configuration is that of
    --config, or of the machine; the current folder has none.

    Exits with the job's own status, and with 77 when denied or ended by --watch because it changed. The job's processes
    find the signed decision in POLICYGUARD_DECISION.
    """
    start = take_start(chosen, argv)
    config = operator_settings(current_folder(), **chosen)
    caller = calling_account(config.measurement.accounts, config.measurement.speak_for)
    request, inputs = _read(job, argv, caller.name if subject is None else subject, start, config)
    if out is not None:
        _check_out(out)

    def tell(signed: SignedDecision) -> None:
        if out is not None:
            replace_file(out, signed.to_json() + b"\n")
        if not quiet or not signed.decision.allowed:
            say_explanation(signed.decision.explain(), err=True)

    with ExitStack() as opened:
        guard, trust, store = _opened(opened, config, request, (caller, subject), replay_store)
        denied = guard.refuse_caller(request, caller, subject)
        if denied is not None:
            tell(denied)
            return code_of_decision(denied.decision)
        options = _launch_options(config, watch, used=store, on_decision=tell)
        return _start(guard, request, inputs, trust, options)


def _read(
    job: Path, argv: Sequence[str], account: str, start: Mapping[str, Any], config: Config
) -> tuple[Request, JobInputs]:
    request, inputs = read_job_file(job, argv, None, os.environ, account=account)
    inputs = with_start(inputs, **start)
    outputs, data = (
        [os.path.join(inputs.directory, path) for path in named.values()] for named in (inputs.outputs, inputs.data)
    )
    check_declared_paths(config, outputs, data)
    return request, inputs


def _check_out(out: Path) -> None:
    """Refuse a file that cannot be written, or that would change the work tree that was just measured."""
    check_replaceable(out)
    _, *repository = job_folders(current_folder())
    if any(is_below(os.path.realpath(out), top) for top in repository):
        raise click.UsageError(f"--out: found {quoted(str(out))} in the job's repository, expected a path outside it")


def _check_configured(config: Config) -> None:
    for name in ("policies", "key", "log") if config.source is None else ():
        if getattr(config, name) is None:
            raise ConfigurationError(
                f"--{name} is missing, expected a path",
                help=f"give --config FILE: `run` reads that or {SYSTEM_FILE} only, and no {FILE_NAME} of the current "
                "folder, because the account that submits a job chooses the folder",
            )


def _opened(
    opened: ExitStack, config: Config, request: Request, asking: tuple[Caller, str | None], replay_store: Path | None
) -> tuple[Guard, Trust, UsedDecisions | None]:
    """Open what a launch needs; if one of these cannot be used, the refusal is logged."""
    try:
        _check_configured(config)
        guard = opened.enter_context(open_guard(config, collectors=configured_collectors(config)))
        trust = own_trust(guard, config) if config.trust is None else read_trust(config.trust)
        return (
            guard,
            trust,
            UsedDecisions.open(replay_store, state_dir=config.state_dir) if replay_store is not None else None,
        )
    except PolicyGuardError as problem:
        opened.close()
        _log_undecided(config, request, problem, asking)
        raise


def _start(guard: Guard, request: Request, inputs: JobInputs, trust: Trust, options: dict[str, Any]) -> int:
    try:
        return launch(guard, request, inputs, trust, **options)
    except AccessDenied as denial:
        for line in denial.message.removeprefix(denial.signed.decision.explain()).splitlines()[1:]:
            say(f"missing  {line}", err=True)
        return code_of_decision(denial.signed.decision)


def _launch_options(config: Config, period_s: float | None, **options: Any) -> dict[str, Any]:
    watch = WatchOptions(
        period_s=period_s,
        on_alert=_alarm,
        on_problem=_print_error,
        accepts=_accepts(config),
        libraries=[str(folder) for folder in config.measurement.libraries],
    )
    return {"audience": config.audience or DEFAULT_AUDIENCE, "watch": watch, **options}


def _log_undecided(
    config: Config, request: Request, problem: PolicyGuardError, asking: tuple[Caller, str | None]
) -> None:
    if config.key is not None and config.log is not None:
        log_undecided(
            request,
            problem,
            key=config.key,
            log=config.log,
            state_dir=config.state_dir,
            audience=config.audience or DEFAULT_AUDIENCE,
            passphrase=read_passphrase(),
            caller=asking[0],
            requested=asking[1],
        )


def _alarm(signed: SignedDecision) -> None:
    say_explanation(f"ALERT    log entry {signed.receipt.index}\n{signed.decision.explain()}", err=True)


def _print_error(problem: PolicyGuardError) -> None:
    say(f"policyguard: while the job runs: {problem}", err=True, fg="red")


def _accepts(config: Config) -> Accepts:
    """Return the test for policies that are replaced while the job runs.

    The trust file is read at each check, because it is rewritten when policies are published. Without one, the
    policies in the launcher's own folder are accepted.
    """

    def accepts(digest: str, epoch: int) -> bool:
        return config.trust is None or trust_accepts(read_trust(config.trust))(digest, epoch)

    return accepts


def own_trust(guard: Guard, config: Config) -> Trust:
    """Build the trust for a launcher without a trust file: its own key, and policies no older than its own."""
    return Trust(
        keys=(TrustedKey(key=guard.public_key),),
        logs=(guard.log_key,),
        audiences=frozenset({config.audience or DEFAULT_AUDIENCE}),
        min_epoch=guard.snapshot.epoch,
        self_issued=True,
    )
