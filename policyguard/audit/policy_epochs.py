"""The highest epoch of each policy set that a log has seen, so that no process uses older policies.

The log's own statements are the record, so it cannot be removed unnoticed. The head file has a copy, so that a process
only reads the entries added since. A policy set is identified by `metadata.name` of its `Schema`. Statements of version
0.1.0 have no name; their epochs apply to every set that the log does not know by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from policyguard.audit.head import Head, PolicyHead
from policyguard.audit.stores import Row
from policyguard.errors import AuditError, ConfigurationError
from policyguard.text import quoted

if TYPE_CHECKING:
    from policyguard.audit.stores.interface import Store

UNNAMED = ""
_PAGE = 512


class PolicyUse(msgspec.Struct, frozen=True, kw_only=True):
    """The policies behind the decisions that are about to be logged."""

    name: str
    epoch: int
    digest: str
    is_signed: bool
    """True for a signed snapshot, where one epoch must always have the same digest; a folder may be edited."""
    edited: bool = False
    """True if the statements record that the log has seen other policies of this epoch."""


class PoliciesMovedOn(AuditError):
    """The log has seen other policies of this epoch since the statements were encoded: encode them again."""


class SeenEntries:
    """The policies and revocation lists in the first `size` entries of a log."""

    def __init__(self) -> None:
        self.policies: Mapping[str, PolicyHead] = {}
        self.revocations: Mapping[str, int] = {}
        """The highest sequence of the revocation lists, by key id."""
        self.size = 0

    def read(self, store: Store, size: int) -> None:
        """Read the entries up to this number that were not read before."""
        while self.size < size:
            # The head file spares most processes of one decision this import.
            from policyguard.audit.revocation_lists import with_lists

            stop = min(self.size + _PAGE, size)
            rows = list(store.read(self.size, stop))
            self.policies = with_rows(rows, self.policies)
            self.revocations = with_lists(rows, self.revocations)
            self.size = stop

    def add_head(self, head: Head, size: int) -> None:
        """Add what a head file records about this many entries, unless more were read."""
        if size >= self.size:
            self.policies, self.size = with_heads(head.policies, self.policies), size
            self.revocations = with_sequences(head.revocations, self.revocations)

    def add_policies(self, uses: Iterable[PolicyUse], size: int) -> None:
        """Add the policies of new entries, after which the log has this size."""
        for use in uses:
            self.policies = with_use(use, self.policies)
        self.size = size


def is_edited(use: PolicyUse, known: Mapping[str, PolicyHead]) -> bool:
    """Return True if the log has seen a different digest for this policy name and epoch.

    Raises:
        ConfigurationError: the log has seen a newer epoch, or a signed snapshot has another digest than its epoch had.
    """
    lowest = _lowest(use.name, known)
    # INVARIANT I4: policies never go back, in any process that uses this log.
    if use.epoch < lowest:
        raise ConfigurationError(
            f"{_named(use)} are of epoch {use.epoch}, expected at least {lowest}, which this log has seen",
            help="use the newer policies, or give these a higher `epoch:` in the metadata of the `Schema`",
        )
    seen = known.get(use.name)
    edited = seen is not None and use.epoch == seen.epoch and use.digest != seen.digest
    if seen is not None and edited and use.is_signed:
        raise ConfigurationError(
            f"{_named(use)} of epoch {use.epoch} have the digest `{use.digest[:16]}`, expected `{seen.digest[:16]}`, "
            "which this log has seen of that epoch",
            help="raise `epoch:` in the metadata of the `Schema` and compile again",
        )
    return edited


def check_use(use: PolicyUse, known: Mapping[str, PolicyHead]) -> None:
    """Raise unless the policies are new enough for this log and `use.edited` is still correct.

    Raises:
        ConfigurationError: see `is_edited`.
        PoliciesMovedOn: the statements say `edited` and should not, or should and do not.
    """
    if is_edited(use, known) != use.edited:
        raise PoliciesMovedOn("the log has seen other policies since, expected statements that say so")


def with_use(use: PolicyUse, known: Mapping[str, PolicyHead]) -> Mapping[str, PolicyHead]:
    """Return the known policies with this use added; the same object if nothing changes."""
    seen = known.get(use.name)
    if seen is not None and seen.epoch >= use.epoch:
        return known
    return {**known, use.name: PolicyHead(use.epoch, use.digest)}


def with_heads(heads: Mapping[str, PolicyHead], known: Mapping[str, PolicyHead]) -> Mapping[str, PolicyHead]:
    """Add what a head file knows of policies to what is known; of two epochs of a set the higher one stays."""
    # INVARIANT I4: a head that is older than the log, or of another log, takes no epoch back.
    return {
        **known,
        **{name: head for name, head in heads.items() if name not in known or head.epoch > known[name].epoch},
    }


def with_sequences(sequences: Mapping[str, int], known: Mapping[str, int]) -> Mapping[str, int]:
    """Add what a head file knows of revocation lists; of two sequences of a key the higher one stays."""
    return {**known, **{key: max(sequence, known.get(key, 0)) for key, sequence in sequences.items()}}


def with_rows(rows: Iterable[Row], known: Mapping[str, PolicyHead]) -> Mapping[str, PolicyHead]:
    """Return the known policies with those of the decisions in these rows added."""
    # The head file spares most processes of one decision this import.
    from policyguard.audit.policy_epoch_scan import policies_of

    for row in rows:
        policy = policies_of(row.leaf)
        if policy is not None:
            use = PolicyUse(name=policy.name, epoch=policy.epoch, digest=policy.digest, is_signed=False)
            known = with_use(use, known)
    return known


def _named(use: PolicyUse) -> str:
    return f"policies {quoted(use.name)}" if use.name else "policies without a name"


def _lowest(name: str, known: Mapping[str, PolicyHead]) -> int:
    if not name:
        # Who hides the name of old policies gains nothing: they are compared with every set.
        return max([head.epoch for head in known.values()], default=0)
    seen = known.get(name) or known.get(UNNAMED)
    return seen.epoch if seen is not None else 0
