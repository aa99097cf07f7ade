"""`policyguard list SUBJECT`: what a subject may do, and under which conditions."""

from __future__ import annotations

import time
from typing import Any

import click

from policyguard.analysis.questions import OTHER_DOMAIN, actions_of
from policyguard.cli.answers import NOT_GIVEN, answer_data, say_answer
from policyguard.cli.files import read_request
from policyguard.cli.options import json_option, key_option, policies_option
from policyguard.cli.output import say, say_json
from policyguard.cli.settings import author_settings
from policyguard.cli.supposing import snapshot_with_roles, supposing, take_supposition
from policyguard.errors import RequestError
from policyguard.exit_codes import OK
from policyguard.text import quoted_list
from policyguard.values import format_instant


@click.command("list")
@policies_option
@key_option
@supposing("role", "at")
@click.option("--on", "type_", metavar="TYPE", help="Only actions on resources of this type.")
@json_option
@click.argument("subject")
def command(subject: str, type_: str | None, as_json: bool, **chosen: Any) -> int:
    """List what SUBJECT, such as user:alice, may do in each domain, with the conditions that the rules set.

    \b
    policyguard list user:alice --on job
    """
    supposed, at = take_supposition(chosen)
    now = time.time_ns() if at is None else at
    snapshot = snapshot_with_roles(author_settings(**chosen), subject, supposed.roles)
    subjects, resources = snapshot.schema.subjects, snapshot.schema.resources
    # The id is checked as that of a request, for which any action and resource will do.
    known = read_request(subject, "any:thing", "any:thing").subject.type in subjects
    if not known:
        raise RequestError(f"found `{subject}`, expected a type of subject: {quoted_list(subjects)}")
    if type_ is not None and type_ not in resources:
        raise RequestError(f"unknown resource type `{type_}`, expected one of {quoted_list(resources)}", path="--on")
    rows = [row for row in actions_of(snapshot, subject, now) if type_ in (None, row[0].resource.type)]
    if as_json:
        data = [
            {"action": question.action, "type": question.resource.type, "domain": domain, **answer_data(answer)}
            for question, domain, answer in rows
        ]
        say_json({"subject": subject, "at": format_instant(now), "actions": data})
        return OK
    say(f"what {subject} can do at {format_instant(now)}")
    for question, domain, answer in rows:
        where = "" if domain is None else " in any other domain" if domain == OTHER_DOMAIN else f" in {domain}"
        say(f"{answer.verdict:4} {question.action} on {question.resource.type}{where}")
        say_answer(answer)
    say(NOT_GIVEN if rows else "nothing: no rule allows anything")
    return OK
