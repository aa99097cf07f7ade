"""The contributors of a commit: everyone who may have worked on it since the last accepted state.

The union of authors, committers, co-authors (trailers) and signers of every commit in the range, as accounts in
`Persons`. A contributor who is unknown or cannot be read is reported as `unknown:...`, which no `Persons` entry has, so
that no approver counts (invariant I8). Names in commits are only claims: they can add contributors, and never make one
independent. A name that nobody knows is no conflict where a known person has signed the commit and so vouches for it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

import msgspec

from policyguard.attest.signers import Signers, UnknownSigner
from policyguard.attest.sshsig import SshSignatureError, parse_signature
from policyguard.errors import EvidenceError
from policyguard.git.gpg import PGP_BEGIN, Keyring
from policyguard.git.objects import ObjectReader
from policyguard.text import printable_name
from policyguard.values import NANOSECONDS_PER_S, OBJECT_ID, Instant

GIT_NAMESPACE = "git"
MAX_COMMITS = 50_000
"""The maximum number of commits examined; for more, pin a later accepted commit."""

MAX_TRAILERS = 1_000

MAX_CONFLICTS = 5
"""The maximum number of unknown identities that a denial names."""

UNKNOWN = "approval.unknown_contributor"
_WAYS_OUT = "let a known person sign the commit, or add the address or the key to `Persons`"

_IDENTITY = re.compile(rb"[^<>\n\0]*<([^<>\n\0]*)> -?(\d{1,12}) [+-]\d{4}")
_TRAILER = re.compile(rb"^[ \t]*co-(?:authored|developed)-by[ \t]*:([^\n]*)$", re.IGNORECASE | re.MULTILINE)
_TRAILER_MAIL = re.compile(rb"[^<>]*<([^<>]+)>[^<>]*")


class Commit:
    """A parsed commit: `headers` in order, `message`, and `signed`, the bytes that its signature covers."""

    __slots__ = ("headers", "message", "oid", "signed")

    def __init__(self, oid: str, content: bytes) -> None:
        self.oid = oid
        head, _, self.message = content.partition(b"\n\n")
        self.headers: list[tuple[bytes, bytes]] = []
        signed_lines: list[bytes] = []
        keep = True
        for line in head.split(b"\n"):
            if line.startswith(b" ") and self.headers:
                name, value = self.headers[-1]
                self.headers[-1] = (name, value + b"\n" + line[1:])
            else:
                name, _, value = line.partition(b" ")
                self.headers.append((name, value))
                keep = name not in (b"gpgsig", b"gpgsig-sha256")
            if keep:
                signed_lines.append(line)
        self.signed = b"\n".join(signed_lines) + b"\n\n" + self.message

    def values(self, *names: bytes) -> list[bytes]:
        return [value for name, value in self.headers if name in names]

    @property
    def parents(self) -> list[str]:
        return [_oid(self, value) for value in self.values(b"parent")]

    @property
    def tree(self) -> str:
        return _oid(self, next(iter(self.values(b"tree")), b""))


class Contributions(msgspec.Struct, frozen=True, kw_only=True):
    """Who contributed to some commits: accounts, signers, the commits that nobody known signed, and conflicts.

    A conflict is one line: the commit, the identity that cannot be known, and what resolves it.
    """

    accounts: tuple[str, ...] = ()
    signers: tuple[str, ...] = ()
    unsigned: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


def contributions_since(
    reader: ObjectReader,
    head: str,
    signers: Signers,
    accepted: Collection[str] = (),
    *,
    signed_only: bool = False,
    keyring: Keyring | None = None,
) -> Contributions:
    """Collect who contributed to the commits since the accepted ones.

    Args:
        reader: reads the objects.
        head: the commit that is about to run, or to be merged.
        signers: the keys that count, and their persons.
        accepted: ids of commits or trees that were reviewed before; their content is not examined again.
        signed_only: a commit without a good signature has an unknown contributor, as its author is only a claim.
        keyring: the pinned GPG keys; without it a GPG signature is of somebody unknown.

    Raises:
        EvidenceError: a commit is missing (shallow history), damaged, or there are too many, or too many to verify.
    """
    commits = commits_since(reader, head, frozenset(accepted))
    return merge_contributions(
        contributions_of(commit, signers, signed_only=signed_only, keyring=keyring) for commit in commits
    )


def merge_contributions(parts: Iterable[Contributions]) -> Contributions:
    """Merge what single commits say; of many conflicts, the first few."""
    accounts: set[str] = set()
    signers: set[str] = set()
    unsigned: set[str] = set()
    conflicts: list[str] = []
    count = 0
    for part in parts:
        accounts.update(part.accounts)
        signers.update(part.signers)
        unsigned.update(part.unsigned)
        count += len(part.conflicts)
        conflicts.extend(part.conflicts[: MAX_CONFLICTS - len(conflicts)])
    if count > len(conflicts):
        conflicts.append(f"{UNKNOWN}: {count - len(conflicts)} more identities that are not known")
    return Contributions(
        accounts=tuple(sorted(accounts)),
        signers=tuple(sorted(signers)),
        unsigned=tuple(sorted(unsigned)),
        conflicts=tuple(conflicts),
    )


def commits_since(reader: ObjectReader, head: str, accepted: frozenset[str]) -> Iterator[Commit]:
    """Yield the commits that `head` reaches and no accepted commit does (`git rev-list HEAD --not ACCEPTED`).

    An accepted tree ends the range where a commit holds it; commits that lead around it are counted.

    Args:
        reader: reads the objects.
        head: the newest commit.
        accepted: commits whose history is not walked.
    """
    inside, boundary, reached_root = _walk(reader, head, accepted)
    if boundary and reached_root:
        # A branch from before the accepted commit leads around it: remove what that commit contains.
        # A commit that only has an accepted tree vouches for its content, and not for the history below it.
        for tip in boundary & accepted:
            for oid in _walk(reader, tip, frozenset())[0]:
                inside.pop(oid, None)
    yield from inside.values()


def contributions_of(
    commit: Commit, signers: Signers, *, signed_only: bool = False, keyring: Keyring | None = None
) -> Contributions:
    """Collect who contributed to one commit: its author, committer, co-authors and signer.

    Args:
        commit: the commit.
        signers: the keys that count, and their persons.
        signed_only: a commit that nobody known has signed is the work of somebody unknown.
        keyring: the pinned GPG keys, if any.
    """
    signatures = commit.values(b"gpgsig", b"gpgsig-sha256")
    named = [signature_account(commit, signature, signers, keyring) for signature in signatures]
    known = {account for account in named if account is not None}
    unknown: dict[str, str] = {}
    if None in named:
        unknown[f"unknown:signature-{commit.oid[:12]}"] = "a signature by a key that is nobody's"
    elif signed_only and not signatures:
        unknown[f"unknown:unsigned-{commit.oid[:12]}"] = f"no signature, only the claim {_claim(commit)}"
    # INVARIANT I8: a person who signs vouches for the names in the commit; a machine that rebases or merges does not.
    is_vouched = not unknown and any(_is_human(signers, account) for account in known)
    accounts, unreadable, strangers = _claimed(commit, signers)
    unknown |= unreadable if is_vouched else {**unreadable, **strangers}
    return Contributions(
        accounts=(*accounts, *known, *unknown),
        signers=tuple(known),
        # Two signatures of one commit, or one that nobody knows, are no signature of a known person.
        unsigned=() if len(signatures) == 1 and known else (commit.oid,),
        conflicts=tuple(_conflict(commit, text) for text in unknown.values()),
    )


def _claimed(commit: Commit, signers: Signers) -> tuple[set[str], dict[str, str], dict[str, str]]:
    """Return the known accounts that a commit names, what is unreadable in it, and names that nobody has.

    INVARIANT I8: an unreadable or unknown author stays a contributor, as an account that nobody has.
    """
    identities = [(name, value) for name, value in commit.headers if name in (b"author", b"committer")]
    trailers = _TRAILER.findall(commit.message)
    claims = [(name.decode(), _mail(value)) for name, value in identities]
    broken = f"unknown:commit-{commit.oid[:12]}"
    unreadable: dict[str, str] = {}
    if any(mail is None for _, mail in claims):
        unreadable[broken] = "an author or committer that cannot be read"
    if len(identities) < 2:
        unreadable[broken] = "no author or no committer"
    if len(trailers) > MAX_TRAILERS:
        unreadable[broken] = f"more than {MAX_TRAILERS} co-authors"
    strangers: dict[str, str] = {}
    for trailer in trailers[:MAX_TRAILERS]:
        match = _TRAILER_MAIL.fullmatch(trailer.strip())
        claims.append(("co-author", match[1] if match else None))
        if match is None:
            strangers[broken] = "a co-author without an address"
    accounts = set()
    for name, mail in claims:
        address = "" if mail is None else printable_name(mail.strip())
        person = signers.by_email.get(address.casefold())
        if mail is not None and person is not None:
            accounts.add(person.accounts[0])
        elif mail is not None:
            strangers[f"unknown:{address}"] = f"the {name} `{address}`, which is in no entry of `Persons`"
    return accounts, unreadable, strangers


def _is_human(signers: Signers, account: str) -> bool:
    person = signers.by_account.get(account)
    return person is not None and any(name.startswith("user:") for name in person.accounts)


def _claim(commit: Commit) -> str:
    mail = _mail(next(iter(commit.values(b"author")), b""))
    return f"of `{printable_name(mail)}`" if mail is not None else "of an author that cannot be read"


def _conflict(commit: Commit, text: str) -> str:
    return f"{UNKNOWN}: commit {commit.oid[:12]} has {text}; {_WAYS_OUT}"


def committed_at(commit: Commit) -> Instant:
    """Return the commit time, which is only a claim; 0 if it is unreadable."""
    match = _IDENTITY.fullmatch(next(iter(commit.values(b"committer")), b""))
    return int(match[2]) * NANOSECONDS_PER_S if match else 0


def commit_signer(commit: Commit, signature: bytes, signers: Signers) -> str:
    """Verify a commit's SSH signature as of its commit time, and return the signer's account.

    Args:
        commit: the commit.
        signature: its detached signature.
        signers: the keys that count, and their persons.

    Raises:
        UnknownSigner, SshSignatureError: no good signature by the key of a person we know.
    """
    parsed = parse_signature(signature)
    if not parsed.covers(commit.signed, GIT_NAMESPACE):
        raise SshSignatureError("forged", "signature does not fit the commit")
    return signers.person_of(parsed.key, GIT_NAMESPACE, (committed_at(commit),)).accounts[0]


def signature_account(commit: Commit, signature: bytes, signers: Signers, keyring: Keyring | None) -> str | None:
    """Return the account that signed the commit with SSH or GPG; None without a known person's signature.

    Args:
        commit: the commit.
        signature: its detached signature.
        signers: the keys that count, and their persons.
        keyring: the pinned GPG keys, if any.
    """
    if signature.startswith(PGP_BEGIN):
        # INVARIANT I8: a GPG signature is a known person's by the pinned keyring, or work of somebody unknown.
        person = None if keyring is None else keyring.person_of(commit.signed, signature)
        return person.accounts[0] if person is not None else None
    try:
        return commit_signer(commit, signature, signers)
    except (UnknownSigner, SshSignatureError):
        return None


def _mail(identity: bytes) -> bytes | None:
    match = _IDENTITY.fullmatch(identity)
    return match[1] if match else None


def _walk(reader: ObjectReader, head: str, stops: frozenset[str]) -> tuple[dict[str, Commit], set[str], bool]:
    """Walk back to the accepted commits; return the commits passed, the accepted ones reached, and True at a root."""
    inside: dict[str, Commit] = {}
    boundary: set[str] = set()
    reached_root = False
    waiting = [head]
    while waiting:
        oid = waiting.pop()
        if oid in inside or oid in boundary:
            continue
        commit = Commit(oid, reader.read(oid, "commit"))
        if oid in stops or commit.tree in stops:
            boundary.add(oid)
            continue
        inside[oid] = commit
        reached_root = reached_root or not commit.parents
        waiting.extend(commit.parents)
        if len(inside) > MAX_COMMITS:
            raise EvidenceError(f"commit `{head}`: more than {MAX_COMMITS} commits since an accepted one")
    return inside, boundary, reached_root


def _oid(commit: Commit, text: bytes) -> str:
    if not OBJECT_ID.fullmatch(text.decode("latin-1")):
        raise EvidenceError(f"object `{commit.oid}`: found `{printable_name(text[:80])}`, expected an object id")
    return text.decode()
