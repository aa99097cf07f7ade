"""The highest sequence of the revocation lists that a log has seen, so that no older list is accepted again.

A list newer than all earlier ones is recorded as an entry of the log's own key. The head file has a copy, so that a
process only reads the entries added since. For each revocation key that trust pins, the highest sequence is remembered:
a list may continue that of another key, and a new set of keys starts a new list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from policyguard.attest.keys import PrivateKey
from policyguard.audit.entries import REVOCATIONS_ENTRY
from policyguard.audit.stores import Row
from policyguard.errors import AuditError
from policyguard.values import Instant, canonical, format_instant, parse_instant


class ListSeen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One log entry: a list of these keys, by key id, was used with this sequence."""

    at: str
    keys: tuple[str, ...]
    sequence: int


_EVENT = msgspec.json.Decoder(ListSeen)


def highest_sequence(keys: Sequence[str], known: Mapping[str, int]) -> int:
    """Return the highest known sequence of the lists of these keys; 0 if none is known."""
    return max((known.get(key, 0) for key in keys), default=0)


def is_known(keys: Sequence[str], sequence: int, known: Mapping[str, int]) -> bool:
    """Return True if every key has this sequence or a higher one, so that nothing has to be written.

    Args:
        keys: the key ids that trust pins for the list.
        sequence: of the list.
        known: the highest sequence of each key.
    """
    return all(known.get(key, 0) >= sequence for key in keys)


def with_list(keys: Sequence[str], sequence: int, known: Mapping[str, int]) -> Mapping[str, int]:
    """Add a list of these keys to those known; no sequence goes back.

    Args:
        keys: the key ids that trust pins for the list.
        sequence: of the list.
        known: the highest sequence of each key.
    """
    return {**known, **{key: max(known.get(key, 0), sequence) for key in keys}}


def with_lists(rows: Iterable[Row], known: Mapping[str, int]) -> Mapping[str, int]:
    """Add the lists that these rows say were used."""
    for row in rows:
        if REVOCATIONS_ENTRY.matches(row.leaf):
            seen = list_seen(row.leaf, row.entry)
            known = with_list(seen.keys, seen.sequence, known)
    return known


def list_leaf(keys: Sequence[str], sequence: int, now: Instant, key: PrivateKey) -> bytes:
    """Make the entry that says that a list of these keys was used, signed by the log's key.

    Args:
        keys: the key ids that trust pins for the list.
        sequence: of the list.
        now: the current time.
        key: the log's key.
    """
    event = ListSeen(at=format_instant(now), keys=tuple(keys), sequence=sequence)
    return REVOCATIONS_ENTRY.leaf(canonical(msgspec.to_builtins(event)), (key,))


def list_seen(leaf: bytes, entry: int) -> ListSeen:
    """Read what the leaf of this entry says of a list.

    Raises:
        AuditError: it says nothing of a list.
    """
    payload = REVOCATIONS_ENTRY.payload(leaf, entry)
    try:
        event = _EVENT.decode(payload)
        parse_instant(event.at)
    except ValueError as problem:
        raise AuditError(f"entry {entry}: revocation list: {problem}", entry=entry) from problem
    return event
