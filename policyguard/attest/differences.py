"""Names how what is about to run differs from what a decision records, for step V7. Pure: compares no digests of jobs.

Both values come from the submitter of a job, so they are escaped and short. Hidden values stay hidden: secrets are
compared by their keyed digests, and fields for `trace` and masked facts are not compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from policyguard.attest.long_values import summary
from policyguard.attest.statement import FactRecord, Predicate
from policyguard.model.facts import COMMANDS, Assurance, claims
from policyguard.model.request import Request
from policyguard.model.secret_arguments import hide_secrets, keyed_digests
from policyguard.text import printable, printable_json
from policyguard.values import FrozenMap, Value, canonical, freeze, sha256_digest

MAX_DIFFERENCES = 5
MAX_VALUE_CHARS = 160


def differences(predicate: Predicate, request: Request, bound: Mapping[str, Value], key: bytes) -> list[str]:
    """List what differs, each as `PATH: decided VALUE, this job VALUE`; empty if nothing that is recorded does.

    Args:
        predicate: of the decision.
        request, bound: what is about to run, as it was measured here.
        key: the digest key of the signed decision, empty if it hides nothing.
    """
    lines = [
        _line(name, recorded, here)
        for name, recorded, here in (
            ("subject", predicate.requester, request.subject.ref),
            ("action", predicate.action, request.action),
            ("resource", predicate.resource, request.resource.ref),
        )
        if recorded != here
    ]
    here = {path: fact.value for path, fact in claims(request, 0).items()}
    claimed = [
        path
        for path, record in predicate.facts.items()
        if path not in predicate.bound and (record.assurance, record.source) == (Assurance.CLAIMED.word, "request")
    ]
    for path in sorted({*claimed, *predicate.bound}):
        record, value = predicate.facts.get(path), (bound if path in predicate.bound else here).get(path)
        if record is not None:
            lines += _changes(path, record, value, key)
    more = len(lines) - MAX_DIFFERENCES
    return [*lines[:MAX_DIFFERENCES], f"and {more} more"] if more > 0 else lines


def uncompared(predicate: Predicate) -> list[str]:
    """List the bound facts whose values the decision does not record, or hides."""
    records = {path: predicate.facts.get(path) for path in predicate.bound}
    return [path for path, record in records.items() if record is None or record.masked or record.hidden is True]


def _changes(path: str, record: FactRecord, value: Value | None, key: bytes) -> Iterator[str]:
    if record.masked is True:
        return
    if value is not None and key and path in COMMANDS:
        value = hide_secrets(value, keyed_digests(key))
    if isinstance(record.value, msgspec.Raw):
        yield from _compared(path, _decoded(record.value), value, is_part=False)
    elif value is None or sha256_digest(canonical(value)) != record.digest:
        named = list(_in_part(path, record, value))
        yield from named
        # Fields for `trace` were removed before the digest was computed; here nobody knows which.
        if not named and (record.hidden is not True or path in COMMANDS):
            here = "nothing" if value is None else f"SHA-256 {sha256_digest(canonical(value))[:16]}"
            yield f"{path}: decided SHA-256 {str(record.digest)[:16]}, this job {here}"


def _in_part(path: str, record: FactRecord, value: Value | None) -> Iterator[str]:
    if not isinstance(record.part, msgspec.Raw) or value is None:
        return
    if isinstance(value, tuple | Mapping) and len(value) != record.count:
        yield f"{path}: decided {record.count} items, this job {len(value)}"
    yield from _compared(path, _decoded(record.part), value, is_part=True)


def _compared(path: str, recorded: Value, here: Value | None, *, is_part: bool) -> Iterator[str]:
    """Compare a recorded value with the one here; what is hidden, or left out of a part, counts as equal."""
    if recorded == here or _is_hidden(recorded, here):
        return
    if is_part and here is not None and _is_summary(recorded):
        if recorded != (described := summary(here)):
            yield _line(path, recorded, described)
        return
    if isinstance(recorded, Mapping) and isinstance(here, Mapping):
        for name in sorted(recorded if is_part else {*recorded, *here}):
            if name not in recorded:
                yield _line(f"{path}.{name}", None, here[name])
            else:
                yield from _compared(f"{path}.{name}", recorded[name], here.get(name), is_part=is_part)
    elif isinstance(recorded, tuple) and isinstance(here, tuple) and _are_records((*recorded, *here)):
        was, now = _by_name(recorded), _by_name(here)
        for name in sorted(was if is_part else {*was, *now}):
            member = f"{path}[{printable(name, MAX_VALUE_CHARS)}]"
            if name in was and name in now:
                yield from _compared(member, was[name], now[name], is_part=is_part)
            else:
                yield _line(member, was.get(name), now.get(name))
    elif isinstance(recorded, tuple) and isinstance(here, tuple) and _is_long(recorded, here):
        for index in range(len(recorded) if is_part else max(len(recorded), len(here))):
            was_at, now_at = (items[index] if index < len(items) else None for items in (recorded, here))
            if was_at is None:
                yield _line(f"{path}[{index}]", was_at, now_at)
            else:
                yield from _compared(f"{path}[{index}]", was_at, now_at, is_part=is_part)
    else:
        yield _line(path, recorded, here)


def _line(path: str, recorded: Value | None, here: Value | None) -> str:
    return f"{path}: decided {_rendered(recorded)}, this job {_rendered(here)}"


def _rendered(value: Value | None) -> str:
    return "nothing" if value is None else printable(printable_json(value), MAX_VALUE_CHARS)


def _is_hidden(recorded: Value, here: Value | None) -> bool:
    return isinstance(recorded, Mapping) and list(recorded) == ["hidden"] and here is not None


def _is_summary(recorded: Value) -> bool:
    return isinstance(recorded, Mapping) and {"digest"} <= recorded.keys() <= {"digest", "count"}


def _are_records(items: tuple[Value, ...]) -> bool:
    return bool(items) and all(isinstance(item, Mapping) and "path" in item for item in items)


def _by_name(records: tuple[Value, ...]) -> dict[str, FrozenMap]:
    return {str(record["path"]): record for record in records if isinstance(record, FrozenMap)}


def _is_long(recorded: tuple[Value, ...], here: tuple[Value, ...]) -> bool:
    return max(len(_rendered(recorded)), len(_rendered(here))) >= MAX_VALUE_CHARS


def _decoded(raw: msgspec.Raw) -> Value:
    return freeze(msgspec.json.decode(bytes(raw)))
