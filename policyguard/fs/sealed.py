"""Cache files with a seal that only the holder of a key can create.

    file  = "policyguard" SP kind SP "2" SP seal LF payload
    seal  = 64HEXDIG / "unsealed"                            ; HMAC-SHA256 over kind, a zero byte and the payload

Without a key, a file is used if only this account can have written it; with a key, only if the seal is right. Everybody
who can read the key can make a seal: it protects against accounts that can write the file but not read the key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat

import msgspec

from policyguard.fs.safe_open import open_regular

SEAL_PURPOSE = "seal of remembered digests 2"
"""The purpose for which the seal's key is derived (`PrivateKey.derive`)."""

_UNSEALED = b"unsealed"
_VERSION = b"2"
_MAX_HEAD_BYTES = 200


class Opened(msgspec.Struct, frozen=True):
    """The `payload` of a cache file, or None if it cannot be trusted; `doubt` then says why."""

    payload: bytes | None = None
    doubt: str = ""
    is_sealed: bool = False


def sealed(kind: str, payload: bytes, key: bytes | None) -> bytes:
    """Encode a cache file of this kind, with a seal if there is a key.

    Args:
        kind: names the kind of cache.
        payload: the content.
        key: the sealing key, if any.
    """
    return b"policyguard %b %b %b\n%b" % (kind.encode(), _VERSION, _seal(kind, payload, key), payload)


def unsealed(kind: str, data: bytes, key: bytes | None) -> Opened:
    """Decode a cache file and verify its seal.

    Args:
        kind: names the kind of cache.
        data: the bytes of the file.
        key: the sealing key, if any.
    """
    head, line_feed, payload = data[:_MAX_HEAD_BYTES].partition(b"\n")
    fields = head.split(b" ")
    if not line_feed or len(fields) != 4 or fields[:3] != [b"policyguard", kind.encode(), _VERSION]:
        return Opened(doubt="it is of another version, or damaged")
    payload, seal = data[len(head) + 1 :], fields[3]
    is_sealed = seal != _UNSEALED
    # INVARIANT I16: who holds the key believes nothing that was written without it.
    if key is not None and not hmac.compare_digest(seal, _seal(kind, payload, key)):
        return Opened(doubt="its seal is not of this key" if is_sealed else "it has no seal", is_sealed=is_sealed)
    return Opened(payload=payload, is_sealed=is_sealed)


def read_own(path: str, limit_bytes: int) -> bytes | None:
    """Read a file that only this account can read or write; None if others can.

    A file that is replaced meanwhile is read as it was. One that is longer than the limit is cut off.

    Raises:
        EvidenceError: no regular file, or it cannot be opened.
    """
    descriptor, status = open_regular(path)
    with open(descriptor, "rb") as file:
        # A file without a name was replaced just now.
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077 or status.st_nlink > 1:
            return None
        return file.read(limit_bytes)


def _seal(kind: str, payload: bytes, key: bytes | None) -> bytes:
    if key is None:
        return _UNSEALED
    return hmac.new(key, kind.encode() + b"\0" + payload, hashlib.sha256).hexdigest().encode()
