"""What ran, by one decision of the log: a flat record for programs, and lines for people. Pure.

Reads the facts that the statement records; what is missing there, as in decisions of 0.1.0, is missing here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from policyguard.text import counted, printable, printable_json

MAX_CHARS = 300
MAX_FILES = 8


def ran(predicate: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what a decision records about the job, by plain names; None for what it does not record.

    `gpus` is a number or None, `checkpoints` and `uncommitted` are lists of paths with digests. Of values that are too
    long for the log, lists have their first items, and `shortened` names the facts.
    """
    facts: Mapping[str, Any] = predicate["facts"]
    code, gpus = _value(facts, "resource.code", {}), _value(facts, "resource.gpus", None)
    is_number = type(gpus) is int
    return {
        "account": _value(facts, "subject.account", None),
        "commit": code.get("commit"),
        "tree": code.get("tree"),
        "dirty": code.get("dirty"),
        "uncommitted": _files(_value(facts, "resource.uncommitted", None)),
        "argv": _value(facts, "resource.argv", None),
        "program": _value(facts, "resource.program", None),
        "executable": _value(facts, "resource.executable", None),
        "directory": _value(facts, "resource.directory", None),
        "gpus": gpus if is_number else None,
        "gpus_assurance": facts["resource.gpus"]["assurance"] if is_number else None,
        "checkpoints": _files(_value(facts, "resource.checkpoints", None)),
        "environment": _value(facts, "resource.environment", None),
        "environment_digest": _value(facts, "resource.environment_digest", None),
        "environment_baseline": _value(facts, "resource.environment_baseline", None),
        "confined": "resource.confinement" in facts,
        "shortened": sorted(path for path, fact in facts.items() if "digest" in fact),
    }


def lines_about(predicate: Mapping[str, Any]) -> Iterator[str]:
    """Describe what ran, one line for each part, and then every other bound fact."""
    record = ran(predicate)
    if record["commit"]:
        changed = record["uncommitted"] or ()
        state = f"with {counted(len(changed), 'changed file')}" if record["dirty"] else "unchanged"
        yield _line("commit", f"{record['commit']}, tree {record['tree']}, {state}")
    if record["gpus"] is not None:
        yield _line("gpus", f"{record['gpus']} ({record['gpus_assurance']})")
    for name in ("argv", "program", "directory", "account"):
        if record[name] is not None:
            yield _line(name, _text(record[name]))
    for name in ("checkpoints", "uncommitted"):
        files = record[name] or []
        yield from (_line(name, f"{file['path']}  {file['digest']}") for file in files[:MAX_FILES])
        if len(files) > MAX_FILES:
            yield _line(name, f"and {len(files) - MAX_FILES} more")
    described = {f"resource.{name}" for name in ("code", "gpus", "argv", "program", "directory")}
    described |= {"resource.checkpoints", "resource.uncommitted", "subject.account"}
    for path in sorted({*predicate["bound"], *predicate["facts"]} - described):
        yield _line(path, _recorded(predicate["facts"].get(path)))


def _line(name: str, text: str) -> str:
    return f"        {name:<12} {printable(text, MAX_CHARS)}"


def _recorded(fact: Mapping[str, Any] | None) -> str:
    if fact is None:
        return "bound, and not recorded: a decision of 0.1.0"
    if "masked" in fact:
        return "hidden, because it is sensitive"
    note = f" ({fact['assurance']})"
    if "value" in fact:
        return _text(fact["value"]) + note
    count = f"{counted(fact['count'], 'item')}, " if "count" in fact else ""
    part = f", among them {_text(fact['part'])}" if fact.get("part") else ""
    return f"{count}SHA-256 {fact['digest']}{note}{part}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else printable_json(value)


def _value(facts: Mapping[str, Any], path: str, default: Any) -> Any:
    """Return the recorded value of a fact, or the part of a longer one."""
    fact = facts.get(path, {})
    value = fact.get("value", fact.get("part", default))
    return value if default is None or isinstance(value, type(default)) else default


def _files(records: object) -> list[dict[str, Any]] | None:
    if not isinstance(records, list):
        return None
    return [
        {"path": record.get("path", ""), "digest": record.get("digest", "")}
        for record in records
        if isinstance(record, dict)
    ]
