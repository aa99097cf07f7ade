"""The trust file: whose signatures count, when, for which audiences and under which policies.

A verifier is *given* its trust; nothing in an envelope adds to it. `parse_trust` takes decoded data (the YAML or JSON
is read at the edge) and names the JSON path of the first problem.

    apiVersion: policyguard/v1
    kind: Trust
    keys: [{key: "ed25519:BASE64", name: TEXT?, notBefore: TIME?, expires: TIME?, heldBy: (service|self)?}]
    selfIssued: accept?                 ; step V10: without it, a key held by `self` allows nothing
    threshold: 1?                       ; default 1
    logs: ["name+hash+base64"]          ; C2SP verifier keys
    audiences: [TEXT]
    policies: {digests: [HEX]?, minEpoch: N?, signers: SIGNERS?}     ; at least one of the first two
    SIGNERS = {threshold: N, persons: {PERSON: ["ed25519:BASE64"]}}  ; how many persons sign a snapshot of policies
    revocation: {source: PATH, keys: ["ed25519:BASE64"], maxAge: DURATION, minSequence: N?}?      ; step V12
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar

from policyguard.attest.keys import PublicKey
from policyguard.attest.note import NoteKey
from policyguard.errors import ConfigurationError
from policyguard.model.decision import MAX_LIFETIME_S
from policyguard.text import quoted, quoted_list
from policyguard.values import MAX_INTEGER, SHA256_HEX, Instant, name_of, parse_duration_s, parse_instant

MAX_KEYS = 64
_T = TypeVar("_T")

HeldBy = Literal["service", "self"]
"""Who can read a private key: a service alone, or also accounts that ask the guard for decisions."""
_HOLDERS: tuple[HeldBy, ...] = ("service", "self")
_Word = TypeVar("_Word", bound=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKey:
    """A key with its validity period: from `not_before` until just before `expires`."""

    key: PublicKey
    name: str = ""
    not_before: Instant | None = None
    expires: Instant | None = None
    held_by: HeldBy | None = None

    def is_valid(self, instant: Instant) -> bool:
        return (self.not_before is None or self.not_before <= instant) and (
            self.expires is None or instant < self.expires
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationTrust:
    """Where the revocation list is, which key must have signed it, and its maximum age; step V12."""

    source: str
    keys: tuple[PublicKey, ...]
    max_age_s: int
    min_sequence: int = 1

    def __post_init__(self) -> None:
        if not self.keys or len(set(self.keys)) != len(self.keys):
            raise ConfigurationError("$.revocation.keys: expected at least one key, each listed once")
        if not 0 < self.max_age_s <= MAX_LIFETIME_S:
            raise ConfigurationError(f"$.revocation.maxAge: found {self.max_age_s} s, expected 1 s to 366 days")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySigners:
    """Who signs policies: the keys of each person, and how many persons must have signed a snapshot."""

    persons: Mapping[str, tuple[PublicKey, ...]]
    threshold: int

    def __post_init__(self) -> None:
        keys = [key for keys in self.persons.values() for key in keys]
        # INVARIANT I10: one key is one person's, and a threshold that nobody reaches cannot be made.
        if len(set(keys)) != len(keys):
            raise ConfigurationError("$.policies.signers.persons: a key is listed twice, expected each key once")
        if not 1 <= self.threshold <= len(self.persons):
            raise ConfigurationError(
                f"$.policies.signers.threshold: found {self.threshold}, expected 1 to {len(self.persons)}, "
                "the number of persons"
            )

    @classmethod
    def of_texts(cls, texts: Sequence[str], threshold: int) -> PolicySigners:
        """Read texts such as `sam=ed25519:BASE64`, one for each key, as hooks take them.

        Raises:
            ConfigurationError: a text is malformed, or the threshold cannot be reached.
        """
        persons: dict[str, tuple[PublicKey, ...]] = {}
        for text in texts:
            name, separator, key = text.partition("=")
            if not name or not separator:
                raise ConfigurationError(f"found the signer {quoted(text)}, expected `PERSON=ed25519:BASE64`")
            persons[name] = (*persons.get(name, ()), PublicKey.from_text(key))
        return cls(persons=persons, threshold=threshold)

    @property
    def texts(self) -> tuple[str, ...]:
        """The persons and keys as texts, for the options of a hook."""
        return tuple(f"{name}={key.text}" for name, keys in self.persons.items() for key in keys)

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        """Every key of every person."""
        return tuple(key for keys in self.persons.values() for key in keys)

    def signed_by(self, keyids: Collection[str]) -> list[str]:
        """List the persons who own one of these keys."""
        return [name for name, keys in self.persons.items() if any(key.keyid in keyids for key in keys)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What a verifier trusts.

    No list is empty, the threshold can be reached, and policies are pinned by digest or epoch.
    """

    keys: tuple[TrustedKey, ...]
    logs: tuple[NoteKey, ...]
    audiences: frozenset[str]
    threshold: int = 1
    policy_digests: frozenset[str] = frozenset()
    min_epoch: int | None = None
    policy_signers: PolicySigners | None = None
    revocation: RevocationTrust | None = None
    self_issued: bool = False

    @property
    def names_holders(self) -> bool:
        """Return True if the document says how keys are held; documents of 0.1.0 do not."""
        return self.self_issued or any(trusted.held_by is not None for trusted in self.keys)

    def accepts_form(self, trusted: TrustedKey) -> bool:
        """Return True if an allow signed by this key counts: a service holds it, or trust accepts any holder."""
        return trusted.held_by == "service" or self.self_issued or not self.names_holders

    def __post_init__(self) -> None:
        # INVARIANT I10: trust that holds nothing, or less than its threshold, cannot be made.
        for name in ("keys", "logs", "audiences"):
            if not getattr(self, name):
                raise ConfigurationError(f"$.{name}: found none, expected at least one")
        if "" in self.audiences:
            raise ConfigurationError("$.audiences: found empty text, expected the names of workers")
        distinct = len({trusted.key for trusted in self.keys})
        if distinct != len(self.keys):
            raise ConfigurationError("$.keys: the same key is listed twice")
        if len({(log.name, log.key_hash) for log in self.logs}) != len(self.logs):
            raise ConfigurationError("$.logs: two log keys share their name and hash")
        if not 1 <= self.threshold <= distinct:
            raise ConfigurationError(
                f"$.threshold: found {self.threshold}, expected 1 to {distinct}, the number of keys"
            )
        if not self.policy_digests and self.min_epoch is None:
            raise ConfigurationError("$.policies: found neither `digests` nor `minEpoch`, expected at least one")
        # INVARIANT I10: who signs decisions or the log cannot also say that nothing is revoked.
        signing = {trusted.key for trusted in self.keys} | {log.public for log in self.logs}
        if self.revocation is not None and signing & set(self.revocation.keys):
            raise ConfigurationError(
                "$.revocation.keys: found a key that signs decisions or the log, expected keys for revoking alone"
            )


def parse_trust(data: object) -> Trust:
    """Build trust from a decoded `Trust` document.

    Raises:
        ConfigurationError: a member is missing or wrong; the message names its path.
    """
    top = _object(
        data,
        "$",
        ("apiVersion", "kind", "keys", "logs", "audiences", "policies"),
        ("threshold", "revocation", "selfIssued"),
    )
    if (top["apiVersion"], top["kind"]) != ("policyguard/v1", "Trust"):
        raise ConfigurationError("$: expected `apiVersion: policyguard/v1` and `kind: Trust`")
    policies = _object(top["policies"], "$.policies", (), ("digests", "minEpoch", "signers"))
    digests = _list(policies["digests"], "$.policies.digests", _digest) if "digests" in policies else ()
    return Trust(
        keys=_list(top["keys"], "$.keys", _key),
        logs=_list(top["logs"], "$.logs", _log),
        audiences=frozenset(_list(top["audiences"], "$.audiences", _text)),
        threshold=_integer(top.get("threshold", 1), "$.threshold", 1),
        policy_digests=frozenset(digests),
        min_epoch=_integer(policies["minEpoch"], "$.policies.minEpoch", 0) if "minEpoch" in policies else None,
        policy_signers=_signers(policies["signers"], "$.policies.signers") if "signers" in policies else None,
        revocation=_revocation(top["revocation"], "$.revocation") if "revocation" in top else None,
        self_issued="selfIssued" in top and _one_of(top["selfIssued"], "$.selfIssued", ("accept",)) == "accept",
    )


def _key(data: object, path: str) -> TrustedKey:
    members = _object(data, path, ("key",), ("name", "notBefore", "expires", "heldBy"))
    not_before = _instant(members["notBefore"], f"{path}.notBefore") if "notBefore" in members else None
    expires = _instant(members["expires"], f"{path}.expires") if "expires" in members else None
    if not_before is not None and expires is not None and expires <= not_before:
        _refuse(f"{path}.expires", f"found `{members['expires']}`, expected a time after `{members['notBefore']}`")
    return TrustedKey(
        key=_converted(PublicKey.from_text, members["key"], f"{path}.key"),
        name=_text(members["name"], f"{path}.name") if "name" in members else "",
        not_before=not_before,
        expires=expires,
        held_by=_one_of(members["heldBy"], f"{path}.heldBy", _HOLDERS) if "heldBy" in members else None,
    )


def _revocation(data: object, path: str) -> RevocationTrust:
    members = _object(data, path, ("source", "keys", "maxAge"), ("minSequence",))
    return RevocationTrust(
        source=_text(members["source"], f"{path}.source"),
        keys=_list(members["keys"], f"{path}.keys", _public_key),
        max_age_s=_converted(parse_duration_s, members["maxAge"], f"{path}.maxAge"),
        min_sequence=_integer(members.get("minSequence", 1), f"{path}.minSequence", 1),
    )


def _signers(data: object, path: str) -> PolicySigners:
    members = _object(data, path, ("threshold", "persons"), ())
    persons = members["persons"]
    if not isinstance(persons, Mapping) or not persons:
        _refuse(f"{path}.persons", f"found {name_of(persons)}, expected a map of persons to their keys")
    return PolicySigners(
        persons={str(name): _list(keys, f"{path}.persons.{name}", _public_key) for name, keys in persons.items()},
        threshold=_integer(members["threshold"], f"{path}.threshold", 1),
    )


def _public_key(data: object, path: str) -> PublicKey:
    return _converted(PublicKey.from_text, data, path)


def _log(data: object, path: str) -> NoteKey:
    return _converted(NoteKey.from_text, data, path)


def _instant(data: object, path: str) -> Instant:
    return _converted(parse_instant, data, path)


def _converted(convert: Callable[[str], _T], data: object, path: str) -> _T:
    try:
        return convert(_text(data, path))
    except ConfigurationError as problem:
        if problem.message.startswith("$"):
            raise
        _refuse(path, problem.message)
    except ValueError as problem:
        _refuse(path, str(problem))


def _text(data: object, path: str) -> str:
    if type(data) is not str or not data:
        _refuse(path, f"found {name_of(data) if data != '' else 'empty text'}, expected text")
    return data


def _one_of(data: object, path: str, expected: tuple[_Word, ...]) -> _Word:
    word = next((word for word in expected if type(data) is str and data == word), None)
    if word is None:
        _refuse(path, f"found {quoted(data) if type(data) is str else name_of(data)}, expected {quoted_list(expected)}")
    return word


def _digest(data: object, path: str) -> str:
    text = _text(data, path)
    if not SHA256_HEX.fullmatch(text):
        _refuse(path, f"found {quoted(text)}, expected 64 lower-case hex digits")
    return text


def _integer(data: object, path: str, minimum: int) -> int:
    if type(data) is not int or not minimum <= data <= MAX_INTEGER:
        _refuse(
            path, f"found {data if type(data) is int else name_of(data)}, expected an integer of at least {minimum}"
        )
    return data


def _list(data: object, path: str, item: Callable[[object, str], _T]) -> tuple[_T, ...]:
    if not isinstance(data, list | tuple):
        _refuse(path, f"found {name_of(data)}, expected a list")
    if not 1 <= len(data) <= MAX_KEYS:
        _refuse(path, f"found {len(data) or 'none'}, expected 1 to {MAX_KEYS}")
    return tuple([item(element, f"{path}[{i}]") for i, element in enumerate(data)])


def _object(data: object, path: str, required: tuple[str, ...], optional: tuple[str, ...]) -> Mapping[str, Any]:
    names = quoted_list((*required, *optional))
    if not isinstance(data, Mapping):
        _refuse(path, f"found {name_of(data)}, expected a map with {names}")
    for name in required:
        if name not in data:
            _refuse(path, f"`{name}` is missing, expected {names}")
    for name in data:
        if name not in required and name not in optional:
            _refuse(path, f"unknown field {quoted(str(name))}, expected {names}")
    return data


def _refuse(path: str, message: str) -> NoReturn:
    raise ConfigurationError(f"{path}: {message}")
