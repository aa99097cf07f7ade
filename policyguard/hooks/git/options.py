"""The options of a git hook, and the pusher as the transport names it. Opens no file.

policyguard hook git KIND --repo PATH --resource repo:ID --policies PATH --key FILE --log FILE
    [--state-dir FOLDER] --pusher VARIABLE[=TEMPLATE]... [--allowed-signers FILE] [--revoked-keys FILE]
    [--gpg-keyring FILE] [--approvals FOLDER] [--approval-log FILE] [--audience NAME] [--owner UID]... [--vsa FOLDER]
    [--resource-uri URI] [--level NAME]... [--certificate-age SECONDS] [--signed-commits required]
    [--policy-signer PERSON=KEY... --policy-threshold N]
    [--revocations FILE --revocation-key KEY... --revocation-age SECONDS [--revocation-sequence N]]
    [-- ARGUMENTS OF THE HOOK]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from policyguard.attest.keys import PublicKey
from policyguard.attest.trust import PolicySigners, RevocationTrust
from policyguard.errors import ConfigurationError, EvidenceError
from policyguard.evidence.push.nonce import DEFAULT_AGE_S, MAX_AGE_S
from policyguard.model.decision import DEFAULT_AUDIENCE, DEFAULT_LIFETIME_S
from policyguard.text import printable_name, quoted_list

KINDS = ("pre-receive", "update", "reference-transaction", "post-receive")


OS_ACCOUNT = "os"
"""Instead of a variable: the account that runs the hook, for servers where each person has an account."""

REQUIRED = "required"
_DEFAULT_TEMPLATE = "user:{}"
_SINGLE = (
    "repo",
    "resource",
    "policies",
    "key",
    "log",
    "state_dir",
    "audience",
    "allowed_signers",
    "revoked_keys",
    "gpg_keyring",
    "approvals",
    "approval_log",
    "vsa",
    "resource_uri",
    "certificate_age",
    "signed_commits",
    "policy_threshold",
    "revocations",
    "revocation_age",
    "revocation_sequence",
)
_MANY = ("pusher", "owner", "level", "revocation_key", "policy_signer")
_DEFAULTS = {
    "audience": DEFAULT_AUDIENCE,
    "certificate_age": DEFAULT_AGE_S,
    "revocation_age": 0,
    "revocation_sequence": 1,
    "policy_threshold": 0,
}
_MAX_DIGITS = 16
_NEEDED = ("repo", "resource", "policies", "key", "log")


class GitOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one hook, as its script passes them; paths are absolute."""

    kind: str
    repo: str
    resource: str
    policies: str
    key: str
    log: str
    state_dir: str | None = None
    pusher: tuple[str, ...]
    audience: str = DEFAULT_AUDIENCE
    lifetime_s: int = DEFAULT_LIFETIME_S
    allowed_signers: str | None = None
    revoked_keys: str | None = None
    gpg_keyring: str | None = None
    approvals: str | None = None
    approval_log: str | None = None
    owner: tuple[int, ...] = ()
    vsa: str | None = None
    resource_uri: str | None = None
    level: tuple[str, ...] = ()
    certificate_age: int = DEFAULT_AGE_S
    """Seconds for which a push certificate is accepted after git issued its nonce."""

    signed_commits: str | None = None
    """`required` if a commit that nobody known has signed is the work of somebody unknown."""

    policy_signer: tuple[str, ...] = ()
    """Who signs policies, `PERSON=ed25519:BASE64`; `policy_threshold` persons must have signed the snapshot."""

    policy_threshold: int = 0
    revocations: str | None = None
    revocation_key: tuple[str, ...] = ()
    revocation_age: int = 0
    revocation_sequence: int = 1
    arguments: tuple[str, ...] = ()

    @property
    def policy_signers(self) -> PolicySigners | None:
        """The persons who sign policies, as the trust file said when the hook was installed; None if nobody must.

        Raises:
            ConfigurationError: they are named in part, or are too few.
        """
        if not self.policy_signer and not self.policy_threshold:
            return None
        return PolicySigners.of_texts(self.policy_signer, self.policy_threshold)

    @property
    def revocation(self) -> RevocationTrust | None:
        """The revocation list that the trust file named when the hook was installed; None if there was none.

        Raises:
            ConfigurationError: it is named in part.
        """
        if self.revocations is None and not self.revocation_key:
            return None
        if self.revocations is None:
            raise ConfigurationError("--revocations is missing, expected the list that --revocation-key signs")
        return RevocationTrust(
            source=self.revocations,
            keys=tuple(map(PublicKey.from_text, self.revocation_key)),
            max_age_s=self.revocation_age,
            min_sequence=self.revocation_sequence,
        )

    def to_argv(self) -> list[str]:
        """Convert these options to arguments; `read_git_options(options.to_argv()) == options`."""
        argv = [self.kind]
        for name in _SINGLE:
            value = getattr(self, name)
            if value is not None and value != _DEFAULTS.get(name):
                argv += [f"--{name.replace('_', '-')}", str(value)]
        for name in _MANY:
            for value in getattr(self, name):
                argv += [f"--{name.replace('_', '-')}", str(value)]
        return argv if not self.arguments else [*argv, "--", *self.arguments]


def read_git_options(argv: Sequence[str]) -> GitOptions:
    """Parse the arguments of a hook.

    Raises:
        ConfigurationError: an unknown kind or option, one without a value, or one that is needed and missing.
    """
    rest = list(argv)
    kind = rest.pop(0) if rest else ""
    if kind not in KINDS:
        raise ConfigurationError(f"found the hook `{kind}`, expected one of {quoted_list(KINDS)}")
    options: dict[str, Any] = {}
    arguments: list[str] = []
    while rest:
        word = rest.pop(0)
        if word == "--":
            arguments, rest = rest, []
            break
        name = word.removeprefix("--").replace("-", "_")
        if not word.startswith("--") or name not in (*_SINGLE, *_MANY):
            raise ConfigurationError(f"unknown option `{word}` of a git hook")
        if not rest:
            raise ConfigurationError(f"`{word}` has no value, expected `{word} VALUE`")
        value = rest.pop(0)
        if not value:
            raise ConfigurationError(f"`{word}`: found empty text, expected a value")
        options[name] = (*options.get(name, ()), value) if name in _MANY else value
    for name in (*_NEEDED, "pusher"):
        if not options.get(name):
            raise ConfigurationError(f"--{name} is missing", help="install the hook again with `policyguard repo`")
    if "certificate_age" in options:
        options["certificate_age"] = _age(options["certificate_age"])
    if options.get("signed_commits", REQUIRED) != REQUIRED:
        raise ConfigurationError(f"--signed-commits: found `{options['signed_commits'][:20]}`, expected `{REQUIRED}`")
    for name in ("revocation_age", "revocation_sequence", "policy_threshold"):
        if name in options:
            options[name] = _number(f"--{name.replace('_', '-')}", options[name])
    return GitOptions(kind=kind, arguments=tuple(arguments), **{**options, "owner": _uids(options.get("owner", ()))})


def _age(word: str) -> int:
    if not (word.isascii() and word.isdigit() and 0 < int(word[:9]) <= MAX_AGE_S and len(word) < 9):
        raise ConfigurationError(f"--certificate-age: found `{word[:20]}`, expected 1 to {MAX_AGE_S} seconds")
    return int(word)


def _number(option: str, word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= _MAX_DIGITS):
        raise ConfigurationError(f"{option}: found `{word[:20]}`, expected a number")
    return int(word)


def _uids(values: Sequence[str]) -> tuple[int, ...]:
    for word in values:
        if not word.isdigit():
            raise ConfigurationError(f"--owner: found `{word}`, expected a uid")
    return tuple(int(word) for word in values)


def pusher_of(sources: Sequence[str], environment: Mapping[str, str], account: str | None) -> tuple[str, str]:
    """Return the pusher as `type:id`, with its source: the first configured variable that is set.

    The sources are the operator's choice: `REMOTE_USER` of an HTTP server, `GL_ID` of GitLab's shell, a variable that
    a forced command sets, or `os`. Git itself does not know who pushes, and a commit's author is anybody's claim.

    Args:
        sources: templates such as `REMOTE_USER=user:{}`, tried in order.
        environment: the environment of the hook.
        account: the account that runs the hook.

    Raises:
        EvidenceError: no source is set; a push by an unknown pusher is refused.
    """
    for source in sources:
        name, _, template = source.partition("=")
        # INVARIANT I1: the pusher's name comes from the sources the operator named, and from nothing in the push.
        value = (account or "") if name == OS_ACCOUNT else environment.get(name, "")
        if value:
            return _filled(template or _DEFAULT_TEMPLATE, value, name), name
    named = quoted_list(source.partition("=")[0] for source in sources)
    raise EvidenceError(
        f"the pusher is unknown: {named} are not set",
        help="the transport in front of git must set the variable that the hook was installed with",
    )


def _filled(template: str, value: str, name: str) -> str:
    """Replace `{}` in a template by the value; only the template `{}` alone takes a value with its own type."""
    if template != "{}" and ":" in value:
        raise EvidenceError(f"`{name}` says `{printable_name(value[:80])}`, expected a login name without `:`")
    return template.replace("{}", value)
