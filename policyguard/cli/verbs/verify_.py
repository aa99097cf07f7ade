"""`policyguard verify SIGNED`: verify a decision as a worker does, steps V1 to V12."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from policyguard.attest.note import NoteKey
from policyguard.attest.statement import parse_statement
from policyguard.attest.trust import Trust, TrustedKey
from policyguard.audit.receipt import MAX_SIGNED_BYTES, SignedDecision
from policyguard.audit.stores.used import UsedDecisions
from policyguard.cli.files import read_input, read_request
from policyguard.cli.jobs import measure_job
from policyguard.cli.options import (
    audience_option,
    json_option,
    parse_account,
    start_options,
    take_start,
    trust_option,
)
from policyguard.cli.output import say, say_json
from policyguard.cli.settings import needed, operator_settings, settings
from policyguard.config.file import Config
from policyguard.config.job_file import current_folder
from policyguard.config.trust_file import read_trust
from policyguard.errors import ConfigurationError, VerificationError
from policyguard.hooks.launcher.confined import OBLIGATIONS
from policyguard.keyfiles import read_passphrase, read_private_key
from policyguard.model.request import Request
from policyguard.revocation_file import read_revocations
from policyguard.values import EMPTY_MAP, Value
from policyguard.verify import VerifiedDecision, verify


@click.command("verify", context_settings={"ignore_unknown_options": True})
@click.argument("signed", type=click.Path(path_type=Path))
@trust_option
@audience_option
@click.option("--request", "request_file", help="The request this worker is about to run, `-` for standard input.")
@click.option("--job", type=click.Path(path_type=Path), help="The job file this worker is about to run, with CMD.")
@click.option(
    "--subject", callback=parse_account, metavar="TYPE:ID", help="With --job: who asked, if `run` was given --subject."
)
@click.option(
    "--replay-store", type=click.Path(path_type=Path), help="Remember used decisions in this file; refuse a second use."
)
@start_options
@json_option
@click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD...]")
def command(
    signed: Path,
    request_file: str | None,
    job: Path | None,
    subject: str | None,
    argv: tuple[str, ...],
    replay_store: Path | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Check that the SignedDecision in the file SIGNED allows exactly this request, here and now.

    With --job and CMD the job is measured again, as the launcher did. Exits with 77 and names the step, V1 to V12,
    where it does not hold.
    """
    start = take_start(chosen, argv)
    _check_usage(signed, request_file, job, argv, subject=subject, **start)
    config = settings(**chosen) if job is None else operator_settings(current_folder(), **chosen)
    trust = read_trust(needed(config, "trust"))
    if config.audience is None:
        raise ConfigurationError("--audience is missing, expected this worker's own name")
    data = read_input(signed, MAX_SIGNED_BYTES + 2).removesuffix(b"\n")
    request, bound = _about_to_run(config, request_file, job, argv, subject=subject, **start | _obliged(data))
    store = UsedDecisions.open(replay_store, state_dir=config.state_dir) if replay_store is not None else None
    verified = verify(
        data,
        trust,
        request,
        audience=config.audience,
        now=time.time_ns(),
        bound=bound,
        used=store,
        revocations=read_revocations(trust),
        memory=store,
    )
    if as_json:
        say_json(verified_data(verified))
    else:
        _say_verified(verified)


def _obliged(data: bytes) -> dict[str, bool]:
    """Read from a decision, before it is verified, how the launcher had to start the job; the digest covers it."""
    try:
        obligations = parse_statement(SignedDecision.from_json(data).envelope.payload).predicate.obligations
    except VerificationError:
        # V1 and V5 report what cannot be read.
        return {}
    return {name: True for name, obligation in OBLIGATIONS.items() if obligation in obligations}


def _say_verified(verified: VerifiedDecision) -> None:
    predicate = verified.predicate
    say(f"verified  {predicate.requester}  {predicate.action}  {predicate.resource}")
    say(f"decision  {predicate.decision_id} for {predicate.audience}, until {predicate.expires}")
    say(f"policy    {predicate.policy.digest[:16]} epoch {predicate.policy.epoch}")
    say(f"log       {verified.checkpoint.origin}, entry {verified.index} of {verified.checkpoint.size}")


def _check_usage(
    signed: Path, request_file: str | None, job: Path | None, argv: Sequence[str], **of_job: object
) -> None:
    if signed.name.startswith("--"):
        raise click.UsageError(f"no such option: {signed}")
    if (request_file is None) == (job is None):
        raise click.UsageError("give either --request FILE, or --job FILE and the command")
    if job is not None and not argv:
        raise click.UsageError("--job needs the command it is for, after `--`")
    for name, value in of_job.items():
        if job is None and value:
            option = name.removesuffix("s").replace("_", "-")
            raise click.UsageError(f"--{option} goes with --job; --request is about a request alone")


def _about_to_run(
    config: Config, request_file: str | None, job: Path | None, argv: Sequence[str], **of_job: Any
) -> tuple[Request, Mapping[str, Value]]:
    if request_file is not None:
        return read_request(request_file), EMPTY_MAP
    facts = measure_job(config.measurement, Path(str(job)), argv, os.environ, **of_job)
    return facts.request, facts.bound


def trust_or_own_key(config: Config, origin: str) -> Trust | None:
    """Return the keys whose decisions and checkpoints count: those of the trust file, else our own.

    Args:
        config: names the trust file and the key; None is returned if it names neither.
        origin: the log's name.

    Raises:
        ConfigurationError: the file it names cannot be used.
    """
    if config.trust is not None:
        return read_trust(config.trust)
    if config.key is None:
        return None
    public = read_private_key(config.key, passphrase=read_passphrase()).public
    return Trust(
        keys=(TrustedKey(key=public),),
        logs=(NoteKey(origin, public),),
        audiences=frozenset({"repo audit"}),
        min_epoch=0,
    )


def verified_data(verified: VerifiedDecision) -> dict[str, Any]:
    """Convert a verified decision to data for JSON."""
    predicate = verified.predicate
    return {
        "verified": True,
        "decision_id": predicate.decision_id,
        "requester": predicate.requester,
        "action": predicate.action,
        "resource": predicate.resource,
        "audience": predicate.audience,
        "expires": predicate.expires,
        "obligations": predicate.obligations,
        "policy": {"digest": predicate.policy.digest, "epoch": predicate.policy.epoch},
        "log": {"origin": verified.checkpoint.origin, "index": verified.index, "size": verified.checkpoint.size},
    }
