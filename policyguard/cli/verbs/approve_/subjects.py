"""Reads what is to be approved from the options of `policyguard approve`: subject, action, resource, limits."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from policyguard.attest.approval import ApprovalRejected, ApprovalStatement, ApprovalTarget, check_covers
from policyguard.cli.files import read_request
from policyguard.config.job_file import check_subject, read_job_file
from policyguard.errors import ConfigurationError, RequestError
from policyguard.evidence.approvals.collectors import job_target
from policyguard.evidence.identity import account_name
from policyguard.evidence.repository import code_record
from policyguard.git.directory import find_gitdir
from policyguard.model.request import Request
from policyguard.text import quoted
from policyguard.values import FrozenMap, Value

MEASURE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """What is to be approved: named digests, action, resource, and the request if there is one.

    `resource` is a pattern if `is_pattern`.
    """

    subjects: Mapping[str, str]
    action: str
    resource: str
    target: ApprovalTarget | None = None
    is_pattern: bool = False


def approved_by(chosen: Mapping[str, Any], argv: Sequence[str]) -> Approved:
    """Build the subject of an approval from the options and the command after `--`.

    Raises:
        click.UsageError: the options do not name exactly one subject, or do not fit it.
    """
    artifacts = {name: str(chosen[name]) for name in ("tree", "checkpoint", "policy") if chosen[name]}
    if sum((chosen["job"] is not None, chosen["request_file"] is not None, bool(artifacts))) != 1:
        raise click.UsageError("give one of --job, --request, or --tree, --checkpoint and --policy")
    resource, is_pattern = _resource(chosen)
    if artifacts:
        if not chosen["action"] or not resource:
            raise click.UsageError("--tree, --checkpoint and --policy need --action, and --resource or --pattern")
        return Approved(subjects=artifacts, action=chosen["action"], resource=resource, is_pattern=is_pattern)
    target = approval_target(chosen, argv)
    subjects = dict(target.measured_digests)
    if not chosen["limits"]:
        subjects["request"] = target.request_digest
    elif not target.measured_digests:
        raise click.UsageError("--limit needs a tree, as --job finds one; a request without one is approved exactly")
    if chosen["any_command"]:
        subjects.pop("command", None)
    return Approved(
        subjects=subjects,
        action=chosen["action"] or target.request.action,
        resource=resource or target.request.resource.ref,
        target=target,
        is_pattern=is_pattern,
    )


def check_values(chosen: Mapping[str, Any]) -> None:
    """Refuse options with empty text: an empty `--as` is not this account, an empty `--pattern` not every resource.

    Raises:
        click.UsageError: the text of an option is empty.
    """
    names = {"approver": "as", "request_file": "request"}
    for name, value in chosen.items():
        if value == "" or (name == "target" and value is not None and "" in value):
            raise click.UsageError(f"--{names.get(name, name)}: found empty text, expected a value")


def check_for_target(statement: ApprovalStatement, approved: Approved) -> None:
    """Refuse to sign an approval that does not cover the job or request that it was made for.

    Raises:
        click.UsageError: it approves something else.
    """
    if approved.target is None:
        return
    try:
        # INVARIANT I9: nothing that is written is ignored, such as a pattern of another team beside a job.
        check_covers(statement, approved.target)
    except ApprovalRejected as problem:
        raise click.UsageError(
            f"the approval would not count for the job or request that was named: {problem}"
        ) from None


def _resource(chosen: Mapping[str, Any]) -> tuple[str | None, bool]:
    """Return the resource that the options name, if any, and True if it is a pattern."""
    resource, pattern = chosen["resource"], chosen["pattern"]
    if resource and pattern:
        raise click.UsageError("give one of --resource and --pattern")
    if resource and "*" in resource:
        raise click.UsageError(f"--resource: found {quoted(resource)}, expected an id; write a pattern as --pattern")
    return pattern or resource, bool(pattern)


def approval_target(chosen: Mapping[str, Any], argv: Sequence[str]) -> ApprovalTarget:
    """Build the request that the options name; for a job, measure it in the current folder.

    Raises:
        ConfigurationError: the folder has uncommitted changes.
        RequestError: neither the job file nor `--subject` names a requester, or they differ.
        click.UsageError: the command is missing.
    """
    if chosen["job"] is None:
        return ApprovalTarget(request=read_request(chosen["request_file"]))
    if not argv:
        raise click.UsageError("--job needs the command it is for, after `--`")
    request, inputs = read_job_file(chosen["job"], argv, None, os.environ, account=chosen["subject"])
    check_subject(request, chosen["subject"])
    if _own(request):
        raise RequestError(
            "names no requester but you, expected `subject:` in the job file, or --subject",
            path=str(chosen["job"]),
            help="give `--subject user:NAME`, the subject that will run the job; nobody approves their own",
        )
    owners = {os.geteuid(), 0}
    record = code_record(inputs.directory, owners, time.monotonic() + MEASURE_TIMEOUT_S)
    if record["dirty"]:
        raise ConfigurationError(
            f"{inputs.directory}: has changes that are not committed, expected exactly what is approved",
            help="approve the commit itself: `git stash`, or a fresh clone",
        )
    return job_target(request, inputs, record, find_gitdir(inputs.directory, owners).root)


def _own(request: Request) -> bool:
    return request.subject.ref == own_account()


def own_account() -> str | None:
    """Return the account of this process as `user:NAME`; None if it has no name."""
    name = account_name(os.getuid())
    return None if name is None else f"user:{name}"


def limits_of(texts: Sequence[str]) -> FrozenMap:
    """Parse `--limit NAME=VALUE` options into names and values.

    Raises:
        click.UsageError: not `NAME=VALUE`, or a name occurs twice.
    """
    limits: dict[str, Value] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or name in limits:
            raise click.UsageError(f"--limit: found `{text}`, expected NAME=VALUE, each name once")
        if _is_no_limit(value):
            raise click.UsageError(f"--limit: found `{text}`, expected a whole number such as `{name}=8`, or a text")
        booleans: dict[str, Value] = {"true": True, "false": False}
        limits[name] = int(value) if value.isascii() and value.isdigit() else booleans.get(value, value)
    return FrozenMap(limits)


def _is_no_limit(value: str) -> bool:
    """Return True for empty text, and for a number that is not written as a whole one, such as `1e9`."""
    if value.isascii() and value.isdigit():
        return False
    try:
        float(value)
    except ValueError:
        return not value.strip()
    return True
