"""`policyguard can-i ACTION RESOURCE`: whether this account, or another subject, may do it."""

from __future__ import annotations

import os
import pwd
import time
from typing import Any

import click

from policyguard.analysis.questions import can
from policyguard.cli.answers import NOT_GIVEN, answer_data, read_question, say_answer
from policyguard.cli.options import json_option, key_option, policies_option
from policyguard.cli.output import say, say_json
from policyguard.cli.settings import author_settings
from policyguard.cli.supposing import snapshot_with_roles, supposing, take_supposition
from policyguard.exit_codes import DENIED, OK
from policyguard.values import format_instant


@click.command("can-i")
@policies_option
@key_option
@supposing("fact", "facts", "role", "approved-by", "contributor", "at")
@click.option("--subject", metavar="TYPE:ID", help="Who; by default the account of this process, `user:LOGIN`.")
@json_option
@click.argument("action")
@click.argument("resource")
@click.argument("properties", nargs=-1, metavar="[NAME=VALUE]...")
def command(
    action: str, resource: str, properties: tuple[str, ...], subject: str | None, as_json: bool, **chosen: Any
) -> int:
    """Say whether ACTION on RESOURCE is allowed by the rules, and what they still ask for. Exits with 77 if it is not.

    Facts that are not given stay open: `if` lists the conditions that remain of each rule.

    \b
    policyguard can-i job:submit job:team/vision/run-1 gpus=8 --subject user:alice
    """
    supposed, at = take_supposition(chosen)
    now = time.time_ns() if at is None else at
    subject = _account() if subject is None else subject
    snapshot = snapshot_with_roles(author_settings(**chosen), subject, supposed.roles)
    question = read_question(snapshot, subject, (action, resource, *properties), supposed, now)
    answer = can(snapshot, subject, question)
    if as_json:
        fields = {"subject": subject, "action": action, "resource": resource, "at": format_instant(now)}
        say_json({**fields, **answer_data(answer)})
    else:
        say(f"{answer.verdict:4} {subject} {action} {resource} at {format_instant(now)}")
        say_answer(answer)
        if answer.verdict == "if":
            say(NOT_GIVEN)
    return DENIED if answer.verdict == "no" else OK


def _account() -> str:
    try:
        return f"user:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        raise click.UsageError(f"uid {os.getuid()} has no account, expected --subject TYPE:ID") from None
