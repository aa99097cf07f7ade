"""Loads a snapshot that several persons must have signed. Only an operator who demands that pays for the import."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from policyguard.attest.keys import PublicKey
from policyguard.attest.signers import person_key
from policyguard.attest.trust import PolicySigners
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import ConfigurationError
from policyguard.fs.safe_open import read_bounded
from policyguard.model.policy import Person
from policyguard.policy.bundle import MAX_BUNDLE_BYTES, open_sealed, signers_of
from policyguard.text import quoted_list

_HELP = "each person runs `policyguard compile FOLDER -o FILE --key KEY`, all but the first one with `--cosign`"


def load_signed(path: str | Path, signers: PolicySigners) -> Snapshot:
    """Load a compiled snapshot that enough persons have signed.

    Raises:
        ConfigurationError: a folder, a file that is no snapshot, or one that too few persons signed.
    """
    if os.path.isdir(path):
        raise ConfigurationError(
            f"{path}: found a folder, expected a compiled snapshot that {signers.threshold} persons have signed",
            help=_HELP,
        )
    data = read_bounded(path, MAX_BUNDLE_BYTES)
    keys = signers_of(data, signers.keys)
    snapshot = Snapshot.from_compiled(*open_sealed(data, signers.keys))
    humans = _humans(keys, signers, snapshot.people)
    # INVARIANT I8: two keys of one person are one signature, by the pinned list or by `Persons` of the policies.
    if len(humans) < signers.threshold:
        named = signers.signed_by([key.keyid for key in keys])
        raise ConfigurationError(
            f"{path}: found the signatures of {quoted_list(named)}, which is {len(humans)} of the persons that must "
            f"sign, expected {signers.threshold} of {quoted_list(signers.persons)}",
            help=_HELP,
        )
    snapshot.signed_by = tuple(sorted(key.keyid for key in keys))
    return snapshot


def _humans(keys: Sequence[PublicKey], signers: PolicySigners, people: Sequence[Person]) -> list[set[tuple[str, str]]]:
    """Group the keys that are one human's, by the names that the pinned list and `Persons` give them."""
    owners: dict[bytes, set[tuple[str, str]]] = {key.raw: set() for key in keys}
    for name, listed in signers.persons.items():
        for key in listed:
            owners.get(key.raw, set()).add(("signer", name))
    for person in people:
        for text in person.keys:
            known = person_key(text)
            if known is not None:
                owners.get(known.raw, set()).add(("person", person.id))
    groups: list[set[tuple[str, str]]] = []
    for names in owners.values():
        joined = [group for group in groups if not group.isdisjoint(names)]
        groups = [group for group in groups if group.isdisjoint(names)]
        groups.append(names.union(*joined))
    return groups
