"""Whose account an e-mail address, a signer's name or a key stands for, as `Persons` say.

An address that nobody registered is kept as `email:ADDRESS`, which no person owns: a quorum then counts no approver at
all, since any of them might have written the commit. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policyguard.model.policy import Person


class People:
    """Looks up accounts; of a person's several accounts the asking one is preferred, else the first is taken."""

    def __init__(self, people: Sequence[Person], asking: str = "") -> None:
        self._asking = asking
        self._by_name: dict[str, Person] = {}
        for person in people:
            for name in (*person.accounts, *person.keys, *(email.lower() for email in person.emails)):
                self._by_name[name] = person

    def account(self, name: str) -> str | None:
        """Return the account that an address, account or key belongs to, None if nobody registered it."""
        person = self._by_name.get(name) or self._by_name.get(name.lower())
        if person is None or not person.accounts:
            return None
        return self._asking if self._asking in person.accounts else person.accounts[0]

    def contributors(self, emails: Iterable[str], signers: Iterable[str]) -> tuple[str, ...]:
        """Return the accounts behind commit addresses and signers, sorted; unknown ones as `email:ADDRESS`.

        The address in a commit is whatever its writer typed. It can only add a contributor, never take one away: the
        pusher and the signers are in the set whatever the commits say.
        """
        # INVARIANT I141: an identity that nobody registered stays in the set, where it conflicts with every approver.
        found = {self.account(email) or f"email:{email}" for email in emails}
        return tuple(sorted(found | {self.account(signer) or f"key:{signer}" for signer in signers}))
