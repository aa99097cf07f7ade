"""Maps public keys to persons, and determines when a key may sign.

Two sources, both pinned by the operator: `keys:` of `Persons` (`ssh-ed25519 BASE64` or `ed25519:BASE64`), and a file of
allowed signers as OpenSSH reads it. A file with a mistake in it is refused as a whole. Opens nothing.

    line     = principals SP [ options SP ] key-type SP base64 [ SP comment ]
    options  = option *( "," option )
    option   = namespaces="PATTERNS" / valid-after="TIME" / valid-before="TIME"
    TIME     = YYYYMMDD[Z] / YYYYMMDDHHMM[SS][Z]

OpenSSH reads a time without `Z` in the local zone; here it is read in the zone that makes the period shortest.
`cert-authority` is refused: certificates are not supported. Revoked keys are a list of public key lines or `SHA256:`
fingerprints.

Source: ssh-keygen(1), sections ALLOWED SIGNERS and, for patterns, ssh_config(5) PATTERNS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from policyguard.attest.keys import PublicKey
from policyguard.attest.sshsig import SshKey, SshSignatureError, fingerprint_of_line, parse_key
from policyguard.errors import ConfigurationError
from policyguard.model.policy import Person
from policyguard.text import quoted
from policyguard.values import NANOSECONDS_PER_S, Instant

MAX_SIGNERS_BYTES = 1 << 20
MAX_LINES = 10_000
MAX_PATTERN = 256

_T = TypeVar("_T")
_HOUR = 3600 * NANOSECONDS_PER_S
_EAST, _WEST = 14 * _HOUR, 12 * _HOUR
_TIME = re.compile(r"(\d{8})(?:(\d{4})(\d{2})?)?(Z?)", re.ASCII)
_WORD = re.compile(r'(?:"[^"]*"|[^\s"])+')
_OPTION = re.compile(r'([a-zA-Z-]+)(?:="([^"]*)")?(?:,|\Z)')
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)


class SignerLine(msgspec.Struct, frozen=True):
    """One line of an allowed-signers file: a key, its accounts, namespaces and validity period."""

    line: int
    principals: tuple[str, ...]
    key: SshKey
    namespaces: tuple[str, ...] | None = None
    valid_after: Instant | None = None
    valid_before: Instant | None = None

    def is_valid(self, instant: Instant) -> bool:
        return (self.valid_after is None or self.valid_after <= instant) and (
            self.valid_before is None or instant < self.valid_before
        )

    def speaks_for(self, principal: str) -> bool:
        return matches(principal, self.principals)


class UnknownSigner(Exception):
    """The key does not identify exactly one person; `code` is the second half of the reason code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Signers:
    """The keys of the known persons. Immutable: rebuilt when policies or files change."""

    def __init__(
        self,
        persons: Sequence[Person],
        lines: Sequence[SignerLine] = (),
        revoked: Collection[str] = frozenset(),
        *,
        revoked_accounts: Collection[str] = frozenset(),
        revoked_approvals: Collection[str] = frozenset(),
    ) -> None:
        self._persons = tuple(persons)
        self._lines = tuple(lines)
        self._revoked = frozenset(revoked)
        self.revoked_accounts = frozenset(revoked_accounts)
        """Accounts whose approvals no longer count."""
        self.revoked_approvals = frozenset(revoked_approvals)
        """Digests of approvals that no longer count."""
        self._own: dict[SshKey, set[str]] = {}
        self.by_account: Mapping[str, Person] = {a: person for person in persons for a in person.accounts}
        self.by_email: Mapping[str, Person] = {m.casefold(): person for person in persons for m in person.emails}
        self._by_id = {person.id: person for person in persons}
        self.by_keyid: dict[str, PublicKey] = {}
        """Every plain key by key id, revoked keys included; a key in this map is not therefore trusted."""
        for person in persons:
            for text in person.keys:
                key = person_key(text)
                if key is not None:
                    self._own.setdefault(key, set()).add(person.id)
        for key in (*self._own, *(line.key for line in lines)):
            if key.application is None:
                public = PublicKey(key.raw)
                self.by_keyid[public.keyid] = public

    def person_of(self, key: SshKey, namespace: str, instants: Iterable[Instant]) -> Person:
        """Find the one person who owns this key in this namespace at all of these instants.

        Args:
            key: the key of a valid signature.
            namespace: the namespace of the signature.
            instants: the times at which the key must count.

        Raises:
            UnknownSigner: revoked, unknown, outside its window or namespaces, nobody's, or of more than one person.
        """
        # INVARIANT I10: a revoked key speaks for nobody, whatever else lists it.
        if key.fingerprint in self._revoked:
            raise UnknownSigner("revoked_key", f"key {key.fingerprint} is revoked")
        listed = [line for line in self._lines if line.key == key]
        if not listed and key not in self._own:
            raise UnknownSigner("unknown_signer", f"key {key.fingerprint} is in neither `Persons` nor allowed signers")
        person_ids = set(self._own.get(key, ()))
        if listed:
            # INVARIANT I10: where a file of allowed signers names a key, its window and namespaces hold.
            person_ids |= self._spoken_for(_current(listed, key, namespace, tuple(instants)))
        if not person_ids:
            raise UnknownSigner("unknown_person", f"key {key.fingerprint} speaks for nobody that `Persons` knows")
        # INVARIANT I8: a key that could belong to two persons belongs to none, so one human fills one place.
        if len(person_ids) > 1:
            raise UnknownSigner(
                "ambiguous_key",
                f"key {key.fingerprint} speaks for {', '.join(sorted(person_ids)[:5])}, expected one person",
            )
        return self._by_id[person_ids.pop()]

    def _spoken_for(self, lines: Sequence[SignerLine]) -> set[str]:
        return {
            person.id
            for person in self._persons
            for line in lines
            if any(line.speaks_for(name) for name in (*person.accounts, *person.emails))
        }


def person_key(text: str) -> SshKey | None:
    """Parse an entry of `Persons.keys`; None for a kind of key that this module does not verify.

    Raises:
        ConfigurationError: it is a key for which anybody can sign.
    """
    try:
        return SshKey(PublicKey.from_text(text).raw) if text.startswith("ed25519:") else parse_key(text)
    except (ConfigurationError, SshSignatureError) as problem:
        if "small order" in str(problem):
            raise ConfigurationError(f"`Persons`: the key {quoted(text)}: {problem}") from None
        return None


def parse_allowed_signers(text: bytes) -> tuple[SignerLine, ...]:
    """Parse an allowed-signers file; lines with a kind of key that cannot be verified are skipped.

    Keys of other kinds are passed over: a signature by one is refused where it is met.

    Raises:
        ConfigurationError: naming the line that cannot be read, or asks for what is not done here.
    """
    return tuple(_each_line(text, "allowed signers", _signer))


def parse_revoked(text: bytes) -> frozenset[str]:
    """Parse a list of revoked keys into fingerprints."""
    return frozenset(_each_line(text, "revoked keys", _revoked))


def matches(text: str, patterns: Sequence[str]) -> bool:
    """Match a text against a list of patterns.

    At least one positive pattern must match, and no `!` pattern. Case-sensitive.

    At least one positive pattern must match, and no `!` pattern. Case-sensitive.
    """
    negated = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    positive = [pattern for pattern in patterns if not pattern.startswith("!")]
    return not any(_wild(text, pattern) for pattern in negated) and any(_wild(text, pattern) for pattern in positive)


def _wild(text: str, pattern: str) -> bool:
    """Match a pattern with `*` (any text) and `?` (one character) in time proportional to pattern times text."""
    at, star, mark = 0, -1, 0
    position = 0
    while at < len(text):
        if position < len(pattern) and pattern[position] == "*":
            star, mark, position = position, at, position + 1
        elif position < len(pattern) and pattern[position] in ("?", text[at]):
            at, position = at + 1, position + 1
        elif star >= 0:
            mark += 1
            at, position = mark, star + 1
        else:
            return False
    return all(character == "*" for character in pattern[position:])


def _current(
    lines: Sequence[SignerLine], key: SshKey, namespace: str, instants: Sequence[Instant]
) -> Sequence[SignerLine]:
    named = [line for line in lines if line.namespaces is None or matches(namespace, line.namespaces)]
    if not named:
        raise UnknownSigner("wrong_namespace", f"key {key.fingerprint} is not allowed to sign for `{namespace}`")
    current = [line for line in named if all(line.is_valid(instant) for instant in instants)]
    if not current:
        raise UnknownSigner("key_window", f"key {key.fingerprint} is outside the time in which it is allowed to sign")
    return current


def _each_line(text: bytes, what: str, read: Callable[[int, str], _T | None]) -> Iterable[_T]:
    if len(text) > MAX_SIGNERS_BYTES:
        raise ConfigurationError(f"{what}: found {len(text)} bytes, expected at most {MAX_SIGNERS_BYTES}")
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError as problem:
        raise ConfigurationError(f"{what}: found a byte that is not UTF-8 at offset {problem.start}") from None
    if len(lines) > MAX_LINES:
        raise ConfigurationError(f"{what}: found {len(lines)} lines, expected at most {MAX_LINES}")
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            values = read(number, stripped)
        except (ValueError, ConfigurationError) as problem:
            raise ConfigurationError(f"{what}: line {number}: {problem}") from None
        if values is not None:
            yield values


def _signer(number: int, line: str) -> SignerLine | None:
    fields = _WORD.findall(line)
    # INVARIANT I10: a quote that nothing closes refuses the file; ssh-keygen does not believe such a line either.
    if '"' in _WORD.sub("", line):
        raise ValueError("found a quote that is not closed, expected them in pairs")
    if len(fields) < 3:
        raise ValueError("expected principals, a key type and a key")
    options: dict[str, str] = {}
    at = 1
    if not _is_key_type(fields[1]):
        options, at = _options(fields[1]), 2
    try:
        key = parse_key(" ".join(fields[at : at + 2]))
    except SshSignatureError as problem:
        if problem.code == "key_type":
            return None
        raise
    principals = _patterns(fields[0].strip('"'), "principals")
    after, before = options.get("valid-after"), options.get("valid-before")
    spaces = options.get("namespaces")
    return SignerLine(
        number,
        principals,
        key,
        None if spaces is None else _patterns(spaces, "namespaces"),
        None if after is None else _instant(after, _WEST),
        None if before is None else _instant(before, -_EAST),
    )


def _is_key_type(word: str) -> bool:
    return word.startswith(("ssh-", "sk-ssh-", "ecdsa-", "sk-ecdsa-")) and "=" not in word


def _options(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _OPTION.match(text, at)
        if match is None:
            raise ValueError(f'found the options {quoted(text)}, expected `name="value"` and commas')
        name, value, at = match[1].lower(), match[2], match.end()
        if name == "cert-authority":
            raise ValueError("`cert-authority` is not supported, expected the keys themselves")
        if name not in ("namespaces", "valid-after", "valid-before") or value is None or name in values:
            raise ValueError(f"found the option {quoted(name)}, expected namespaces, valid-after or valid-before, once")
        values[name] = value
    return values


def _patterns(text: str, what: str) -> tuple[str, ...]:
    patterns = tuple(part.strip() for part in text.split(","))
    if not all(patterns) or any(len(pattern) > MAX_PATTERN for pattern in patterns):
        raise ValueError(f"found {what} {quoted(text)}, expected patterns separated by commas")
    return patterns


def _instant(text: str, zoneless: int) -> Instant:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"found the time {quoted(text)}, expected YYYYMMDD[HHMM[SS]] and best a `Z`")
    digits = match[1] + (match[2] or "0000") + (match[3] or "00")
    moment = datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    instant = int(moment.timestamp()) * NANOSECONDS_PER_S
    return instant if match[4] else instant + zoneless


def _revoked(number: int, line: str) -> str:  # noqa: ARG001
    # INVARIANT I10: nothing written is ignored: a line that revokes no key refuses the file.
    first, *rest = line.split()
    if any(word.startswith(("SHA256:", "ed25519:", "ssh-", "sk-ssh-", "ecdsa-")) for word in rest):
        raise ValueError("found a second key after the first word, expected one key on a line, the key type first")
    if _FINGERPRINT.fullmatch(first):
        return first
    if first.startswith("ed25519:"):
        return SshKey(PublicKey.from_text(first).raw).fingerprint
    try:
        return fingerprint_of_line(line)
    except SshSignatureError as problem:
        raise ValueError(
            f"{problem}; expected `SHA256:FINGERPRINT`, `ed25519:BASE64` or a public key line, "
            "without principals and options"
        ) from None
