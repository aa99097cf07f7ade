"""`policyguard approve`: sign an approval with your own key, or list approvals and whether they count."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from policyguard.assembly.jobs import review_files
from policyguard.attest.approval import (
    APPROVAL_PAYLOAD_TYPE,
    MAX_LIFETIME_S,
    NAMESPACE,
    ApprovalRejected,
    ApprovalStatement,
    approval_statement,
)
from policyguard.attest.dsse import sign
from policyguard.attest.signers import Signers
from policyguard.cli.files import write_new
from policyguard.cli.options import check_command, json_option, key_option, parse_account, policies_option
from policyguard.cli.output import say, say_json
from policyguard.cli.settings import needed, settings
from policyguard.cli.verbs.approve_.destinations import (
    as_note,
    check_outside_job,
    in_folder,
    in_log,
    read_approval,
    ssh_sign,
)
from policyguard.cli.verbs.approve_.listing import list_approvals
from policyguard.cli.verbs.approve_.subjects import (
    Approved,
    approval_target,
    approved_by,
    check_for_target,
    check_values,
    limits_of,
    own_account,
)
from policyguard.config.file import Config
from policyguard.config.trust_file import read_trust
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import RequestError
from policyguard.evidence.approvals.collectors import load_signers
from policyguard.evidence.approvals.verify import SubmittedApproval, authenticate
from policyguard.exit_codes import OK
from policyguard.keyfiles import read_passphrase, read_private_key
from policyguard.policy_store.load import load_snapshot
from policyguard.values import NANOSECONDS_PER_S, Instant, parse_duration_s


@click.command("approve", context_settings={"ignore_unknown_options": True})
@policies_option
@key_option
@click.option("--job", type=click.Path(path_type=Path), help="Approve this job file with CMD, run from here.")
@click.option(
    "--subject",
    callback=parse_account,
    metavar="TYPE:ID",
    help="With --job: who will run it, if the job file does not say so.",
)
@click.option("--request", "request_file", help="Approve the AuthZEN request in this file, `-` for standard input.")
@click.option("--tree", help="Approve this git tree; with --action and --resource.")
@click.option("--checkpoint", help="Approve the checkpoint with this SHA-256; with --action and --resource.")
@click.option("--policy", help="Approve the policies with this digest; with --action and --resource.")
@click.option("--action", help="What is approved, as `job:submit`.")
@click.option("--resource", help="On what, as `job:team/vision/run-17`; an id, never a pattern.")
@click.option("--pattern", help="On every resource that matches, as `job:team/vision/**`; instead of --resource.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=VALUE",
    help="Approve any request up to this, not just the one given; repeat for every property.",
)
@click.option("--any-command", is_flag=True, help="Approve whatever command is run from the tree.")
@click.option("--target", nargs=3, metavar="REF FROM TO", help="The ref that moves, from which commit, to which tree.")
@click.option("--reason", help="Why; it is signed.")
@click.option("--expires", default="24h", show_default=True, help="How long it holds, at most 7d.")
@click.option("--as", "approver", help="Your account, as `user:carol`; that of this process if not given.")
@click.option("--ssh-key", type=click.Path(path_type=Path), help="Sign with ssh-keygen and this SSH key.")
@click.option("--payload", type=click.Path(path_type=Path), help="Write what is to be signed to this file, unsigned.")
@click.option("--note", is_flag=True, help="Keep it as a git note on the tree, instead of in a folder.")
@click.option("--log", type=click.Path(path_type=Path), help="Keep it as an entry of this log, which `key:` signs.")
@click.option("--add", type=click.Path(path_type=Path), help="Take this signed approval into the log.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where approvals are kept.")
@click.option("--list", "listing", is_flag=True, help="List approvals; with --job or --request, whether they count.")
@json_option
@click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD...]")
def command(listing: bool, as_json: bool, argv: tuple[str, ...], **chosen: Any) -> int:
    """Approve a job, a request, a tree, a checkpoint or policies with your own key.

    Needs --key, or --ssh-key, or --payload FILE to sign by hand with `ssh-keygen -Y sign`. Exits with 1 where --list
    finds an approval that does not count.
    """
    check_command(argv)
    check_values(chosen)
    if sum((chosen["note"], chosen["log"] is not None, chosen["folder"] is not None)) > 1:
        raise click.UsageError("give one of --note, --log FILE and --folder FOLDER")
    if chosen["subject"] is not None and chosen["job"] is None:
        raise click.UsageError("--subject goes with --job; a request says who asks")
    config = settings(policies=chosen.pop("policies"), approvals=chosen.pop("folder"), approval_log=chosen["log"])
    if listing:
        return _list(config, chosen, argv, as_json)
    if chosen["add"] is not None:
        return _add(config, chosen["add"], as_json)
    signers = None if config.policies is None else _signers(config)
    approved = approved_by(chosen, argv)
    statement = _statement(approved, chosen, time.time_ns())
    check_for_target(statement, approved)
    _check_account(statement.predicate.approver, signers)
    if chosen["job"] is not None:
        check_outside_job(chosen, config)
    payload_file: Path | None = chosen["payload"]
    if payload_file is not None:
        write_new(payload_file, statement.payload)
        made = {"payload": str(payload_file), "sign": f"ssh-keygen -Y sign -n {NAMESPACE} -f KEY {payload_file}"}
    else:
        signed = _signed(statement.payload, chosen["key"], chosen["ssh_key"])
        made = _put(statement, signed, chosen, config, signers)
    _tell(statement, made, as_json)
    return OK


def _add(config: Config, path: Path, as_json: bool) -> int:
    made = in_log(read_approval(path), config, _signers(config))
    if as_json:
        say_json(made)
    else:
        say(f"{path}: entry {made['entry']}")
    return OK


def _statement(approved: Approved, chosen: Mapping[str, Any], now: Instant) -> ApprovalStatement:
    approver = chosen["approver"] or own_account()
    if approver is None or not chosen["reason"]:
        raise click.UsageError("give --reason TEXT" if approver else "give --as user:NAME")
    ref, start, target = chosen["target"] or ("", "", "")
    lifetime_s = _lifetime_s(chosen["expires"])
    try:
        return approval_statement(
            subjects=approved.subjects,
            action=approved.action,
            resource=approved.resource,
            approver=approver,
            reason=chosen["reason"],
            # To the nanosecond: two approvals of one second are two.
            approved_at=now,
            expires=now + lifetime_s * NANOSECONDS_PER_S,
            limits=limits_of(chosen["limits"]),
            any_command=chosen["any_command"],
            resource_is_pattern=approved.is_pattern,
            target_ref=ref,
            from_id=start,
            target_id=target,
        )
    except (ApprovalRejected, ValueError) as problem:
        raise RequestError(f"would never count: {problem}", path="this approval") from None


def _lifetime_s(text: str) -> int:
    try:
        lifetime_s = parse_duration_s(text)
    except ValueError as problem:
        raise RequestError(str(problem), path="--expires") from None
    if not 0 < lifetime_s <= MAX_LIFETIME_S:
        message = f"would never count: --expires: found `{text}`, expected at most 7 days, and more than none"
        raise RequestError(message, path="this approval")
    return lifetime_s


def _signed(payload: bytes, key: Path | None, ssh_key: Path | None) -> SubmittedApproval:
    if (key is None) == (ssh_key is None):
        raise click.UsageError("give one of --key FILE, --ssh-key FILE and --payload FILE")
    if key is not None:
        signer = read_private_key(key, passphrase=read_passphrase())
        return SubmittedApproval("this", sign(payload, APPROVAL_PAYLOAD_TYPE, [signer]).to_bytes() + b"\n")
    return SubmittedApproval("this", payload, ssh_sign(payload, Path(str(ssh_key))))


def _put(
    statement: ApprovalStatement,
    signed: SubmittedApproval,
    chosen: Mapping[str, Any],
    config: Config,
    signers: Signers | None,
) -> dict[str, str]:
    """Store the approval in the place that the options name, then the configuration, then a folder here."""
    if chosen["note"]:
        _check_signer(signers, signed)
        return as_note(statement, signed)
    # If both are configured, reviewers write to the folder, and the keeper of the log adds approvals to it.
    if chosen["log"] is not None or (config.approvals is None and config.approval_log is not None):
        return in_log(signed, config, signers or _signers(config))
    _check_signer(signers, signed)
    return in_folder(statement, signed, config)


def _check_account(account: str, signers: Signers | None) -> None:
    if signers is not None and account not in signers.by_account:
        raise RequestError(
            f"`{account}` belongs to no person in the policies, expected an account in `Persons`", path="--as"
        )


def _check_signer(signers: Signers | None, submitted: SubmittedApproval) -> None:
    """Refuse a key that is known to belong to somebody else; nothing has been written yet."""
    if signers is None:
        return
    try:
        authenticate(submitted, signers, time.time_ns())
    except ApprovalRejected as problem:
        raise RequestError(
            f"would not count here: {problem.code}: {problem}",
            path="this approval",
            help="sign with the key of the person that --as names; keys are in `Persons` and the allowed signers",
        ) from None


def _signers(config: Config) -> Signers:
    """Load the keys whose approvals count here."""
    return load_signers(_snapshot(config).people, review_files(config))


def _snapshot(config: Config) -> Snapshot:
    """Load the policies; a compiled snapshot must be signed by a key in trust.yaml."""
    path = needed(config, "policies")
    keys = () if path.is_dir() else tuple(trusted.key for trusted in read_trust(needed(config, "trust")).keys)
    return load_snapshot(path, keys)


def _tell(statement: ApprovalStatement, made: Mapping[str, str], as_json: bool) -> None:
    predicate = statement.predicate
    if as_json:
        say_json(
            {
                **made,
                "action": predicate.action,
                "resource": predicate.resource,
                "approver": predicate.approver,
                "expires": predicate.expires,
                "subjects": statement.named,
                "limits": predicate.limits,
            }
        )
        return
    say(f"approves  {predicate.action}  {predicate.resource}  by {predicate.approver} until {predicate.expires}")
    for name, digest in statement.named.items():
        say(f"  {name:<10} {digest}")
    for name, value in predicate.limits.items():
        say(f"  {'limit':<10} {name} <= {value}" if type(value) is int else f"  {'limit':<10} {name} = {value}")
    for name, text in made.items():
        say(f"{name:<8}  {text}")


def _list(config: Config, chosen: Mapping[str, Any], argv: Sequence[str], as_json: bool) -> int:
    files = review_files(config)
    if not files.keeps_approvals:
        needed(config, "approvals", "--folder")
    target = approval_target(chosen, argv) if chosen["job"] is not None or chosen["request_file"] is not None else None
    snapshot = _snapshot(config)
    log = config.log if target is not None and target.request.action in snapshot.single_use_actions else None
    return list_approvals(files, load_signers(snapshot.people, files), target, log, as_json=as_json)
