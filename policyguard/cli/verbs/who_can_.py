"""`policyguard who-can ACTION RESOURCE`: who may do it, and under which conditions."""

from __future__ import annotations

import time
from typing import Any

import click

from policyguard.analysis.questions import ANYONE_ELSE, who_can
from policyguard.cli.answers import NOT_GIVEN, answer_data, group_by_answer, read_question, say_answer
from policyguard.cli.options import json_option, key_option, policies_option
from policyguard.cli.output import say, say_json
from policyguard.cli.settings import author_settings
from policyguard.cli.supposing import snapshot_with_roles, supposing, take_supposition
from policyguard.exit_codes import OK
from policyguard.text import counted
from policyguard.values import format_instant

MAX_NAMES = 20


@click.command("who-can")
@policies_option
@key_option
@supposing("fact", "facts", "approved-by", "contributor", "at")
@click.option("--all", "list_all", is_flag=True, help="Also who cannot, and every name of a long list.")
@json_option
@click.argument("action")
@click.argument("resource")
@click.argument("properties", nargs=-1, metavar="[NAME=VALUE]...")
def command(
    action: str, resource: str, properties: tuple[str, ...], list_all: bool, as_json: bool, **chosen: Any
) -> int:
    """Say who can do ACTION on RESOURCE by the rules, and what the rules still ask for.

    Facts that are not given stay open: `if` lists the conditions that remain of each rule.

    \b
    policyguard who-can job:submit job:team/vision/run-1 gpus=8 --fact resource.code.dirty=false
    """
    supposed, at = take_supposition(chosen)
    now = time.time_ns() if at is None else at
    snapshot = snapshot_with_roles(author_settings(**chosen), "", ())
    arguments = (action, resource, *properties)
    if any(text.startswith("subject.") for text in (*supposed.facts, *properties)):
        raise click.UsageError("facts about the subject are different for everybody: ask `can-i` about one subject")
    stranger = f"{next(iter(snapshot.schema.subjects))}:nobody"
    groups = group_by_answer(who_can(snapshot, read_question(snapshot, stranger, arguments, supposed, now)))
    if as_json:
        listed = [{**answer_data(answer), "subjects": subjects} for answer, subjects in groups]
        say_json({"action": action, "resource": resource, "at": format_instant(now), "answers": listed})
        return OK
    say(f"who can {action} {resource} at {format_instant(now)}")
    for answer, subjects in groups:
        if answer.verdict != "no" or list_all:
            say(f"{answer.verdict:4} {_names(subjects, None if list_all else MAX_NAMES)}")
            say_answer(answer)
    others = sum(len(subjects) for answer, subjects in groups if answer.verdict == "no")
    if not list_all:
        say(f"no   {counted(others, 'subject')}; --all lists them")
    if any(answer.verdict == "if" for answer, _ in groups):
        say(NOT_GIVEN)
    return OK


def _names(subjects: list[str], max_names: int | None) -> str:
    strangers = [subject for subject in subjects if subject.endswith(f":{ANYONE_ELSE}")]
    listed = [subject for subject in subjects if subject not in strangers]
    more = 0 if max_names is None else max(0, len(listed) - max_names)
    texts = listed[: len(listed) - more] + ([f"and {more} more"] if more else [])
    texts += [f"any other {subject.partition(':')[0]}" for subject in strangers]
    return ", ".join(texts)
