"""The contributors of a commit: everyone who may have worked on it since the last accepted state.

The union of authors, committers, co-authors (trailers) and signers of every commit in the range, as accounts in
`Persons`. A contributor who is unknown or cannot be read is reported as `unknown:...`, which no `Persons` entry has, so
that no approver counts (invariant I8). Names in commits are only claims, so they can only add contributors.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from policyguard.attest.signers import Signers, UnknownSigner
from policyguard.attest.sshsig import SshSignatureError, parse_signature
from policyguard.errors import EvidenceError
from policyguard.git.gpg import PGP_BEGIN, Keyring
from policyguard.git.objects import ObjectReader
from policyguard.text import printable_name
from policyguard.values import NANOSECONDS_PER_S, Instant

GIT_NAMESPACE = "git"
MAX_COMMITS = 50_000
"""The maximum number of commits examined; for more, pin a later accepted commit."""

MAX_TRAILERS = 1_000

_IDENTITY = re.compile(rb"[^<>\n\0]*<([^<>\n\0]*)> -?(\d{1,12}) [+-]\d{4}")
_OID = re.compile(rb"[0-9a-f]{40}|[0-9a-f]{64}")
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


def contributors_of(
    reader: ObjectReader,
    head: str,
    signers: Signers,
    accepted: Collection[str] = (),
    *,
    signed_only: bool = False,
    keyring: Keyring | None = None,
) -> tuple[str, ...]:
    """List the accounts of all contributors to the commits since the accepted ones, sorted.

    Args:
        head: the commit that is about to run, or to be merged.
        accepted: ids of commits or trees that were reviewed before; their content is not examined again.
        signed_only: a commit without a good signature has an unknown contributor, as its author is only a claim.
        keyring: the pinned GPG keys; without it a GPG signature is of somebody unknown.

    Raises:
        EvidenceError: a commit is missing (shallow history), damaged, or there are too many, or too many to verify.
    """
    accounts: set[str] = set()
    for commit in commits_since(reader, head, frozenset(accepted)):
        accounts |= commit_accounts(commit, signers, signed_only=signed_only, keyring=keyring)
    return tuple(sorted(accounts))


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


def commit_accounts(
    commit: Commit, signers: Signers, *, signed_only: bool = False, keyring: Keyring | None = None
) -> set[str]:
    """List the accounts of a commit's author, committer, co-authors and signer.

    Args:
        commit: the commit.
        signers: the keys that count, and their persons.
        signed_only: leaves out the names that the commit only claims.
        keyring: the pinned GPG keys, if any.
    """
    identities = commit.values(b"author", b"committer")
    mails = [_mail(identity) for identity in identities]
    accounts = {_account(signers, mail, commit) for mail in mails}
    trailers = _TRAILER.findall(commit.message)
    # INVARIANT I8: an unreadable or unknown author stays a contributor, as an account that nobody has.
    if len(identities) < 2 or len(trailers) > MAX_TRAILERS:
        accounts.add(f"unknown:commit-{commit.oid[:12]}")
    for trailer in trailers[:MAX_TRAILERS]:
        match = _TRAILER_MAIL.fullmatch(trailer.strip())
        accounts.add(_account(signers, match[1] if match else None, commit))
    signatures = commit.values(b"gpgsig", b"gpgsig-sha256")
    accounts |= {
        signature_account(commit, signature, signers, keyring) or f"unknown:signature-{commit.oid[:12]}"
        for signature in signatures
    }
    if signed_only and not signatures:
        accounts.add(f"unknown:unsigned-{commit.oid[:12]}")
    return accounts


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


def _account(signers: Signers, mail: bytes | None, commit: Commit) -> str:
    if mail is None:
        return f"unknown:commit-{commit.oid[:12]}"
    text = printable_name(mail.strip())
    person = signers.by_email.get(text.casefold())
    return person.accounts[0] if person is not None else f"unknown:{text}"


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
    if not _OID.fullmatch(text):
        raise EvidenceError(f"object `{commit.oid}`: found `{printable_name(text[:80])}`, expected an object id")
    return text.decode()
