"""Prints the answers of `who-can`, `can-i` and `list`: the clauses of rules, and the conditions that remain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from policyguard.analysis.questions import Answer, Clause, Question
from policyguard.cli.files import read_request
from policyguard.cli.output import say
from policyguard.conditions.rendering import render
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import RequestError
from policyguard.testing.suppose import Supposition, supposed_entries
from policyguard.values import Instant

NOT_GIVEN = "`if`: all that is not given is left open; whether it can hold together is not examined"


def read_question(
    snapshot: Snapshot, subject: str, arguments: Sequence[str], supposed: Supposition, now: Instant
) -> Question:
    """Read a question from ACTION RESOURCE [NAME=VALUE]... and what is supposed.

    Args:
        snapshot: its schema declares the facts.
        subject: who is asked about, `type:id`.
        arguments: the arguments of the command.
        supposed, now: what is supposed, and the time.

    Raises:
        RequestError, PolicyErrors: an id, a property or a fact is malformed, or not of the schema.
    """
    request = read_request(subject, *arguments)
    if request.resource.type not in snapshot.schema.resources:
        types = ", ".join(sorted(snapshot.schema.resources))
        raise RequestError(f"unknown resource type `{request.resource.type}`, expected one of {types}")
    entries, known = supposed_entries(request, snapshot.schema, supposed, now)
    return Question(
        action=request.action,
        resource=request.resource,
        now=now,
        entries=entries,
        known=known,
        approvals=supposed.signed(now),
        contributors=supposed.contributors or None,
    )


def say_answer(answer: Answer, *, indent: str = "     ") -> None:
    """Print what an answer rests on."""
    if answer.verdict == "no":
        settled = [clause for clause in answer.denies if clause.when is True]
        for clause in settled:
            say(f"{indent}{_rule('denied by', clause)}")
        if not settled:
            say(f"{indent}no rule allows it")
        return
    for word, clauses in (("allowed by", answer.allows), ("unless", answer.denies)):
        for clause in clauses:
            say(f"{indent}{_rule(word, clause)}{_when(clause)}")
    for clause in answer.requires:
        say(f"{indent}{_rule(f'with the approvals of `{clause.rule.quorum}`, by', clause)}{_when(clause)}")


def answer_data(answer: Answer) -> dict[str, Any]:
    """Return an answer for JSON."""
    return {
        "answer": answer.verdict,
        "allowedBy": [_data(clause) for clause in answer.allows],
        "deniedBy": [_data(clause) for clause in answer.denies],
        "requires": [{"quorum": clause.rule.quorum, **_data(clause)} for clause in answer.requires],
    }


def group_by_answer(pairs: Iterable[tuple[str, Answer]]) -> list[tuple[Answer, list[str]]]:
    """Group subjects by answer: `yes` first, then `if`, then `no`."""
    texts: dict[int, tuple[Answer, str]] = {}
    groups: dict[str, tuple[Answer, list[str]]] = {}
    for subject, answer in pairs:
        # Most subjects share the object of their answer, so that few answers are rendered.
        if id(answer) not in texts:
            texts[id(answer)] = answer, repr(answer_data(answer))
        groups.setdefault(texts[id(answer)][1], (answer, []))[1].append(subject)
    return sorted(groups.values(), key=lambda group: ("yes", "if", "no").index(group[0].verdict))


def _rule(word: str, clause: Clause) -> str:
    return f"{word} `{clause.rule.id}`  ({clause.rule.span})"


def _when(clause: Clause) -> str:
    if isinstance(clause.when, bool):
        return ""
    return f"\n         when {render(clause.when)}"


def _data(clause: Clause) -> dict[str, Any]:
    when = None if isinstance(clause.when, bool) else render(clause.when)
    return {"rule": clause.rule.id, "when": when}
