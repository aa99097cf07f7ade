"""Key files: the only module that opens them. A private key is readable by its owner only, never overwritten.

Owner and mode are checked on the *opened* file, so that it cannot be exchanged between check and reading.
`attest/keys.py` defines the formats.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from policyguard.attest.keys import MAX_KEY_TEXT_BYTES, NONCE_BYTES, SALT_BYTES, PrivateKey, PublicKey, is_wrapped
from policyguard.errors import ConfigurationError, PolicyGuardError, SigningError
from policyguard.fs.safe_open import open_plain, reason_of

PASSPHRASE_VARIABLE = "POLICYGUARD_PASSPHRASE"


def read_passphrase(environment: Mapping[str, str] = os.environ) -> bytes | None:
    """Return the bytes of `POLICYGUARD_PASSPHRASE`, in any encoding; None if it is unset or empty."""
    text = environment.get(PASSPHRASE_VARIABLE)
    return os.fsencode(text) if text else None


def read_private_key(path: str | os.PathLike[str], *, passphrase: bytes | None = None) -> PrivateKey:
    """Read a private key from a file.

    Raises:
        SigningError: missing, a symbolic link or no regular file, owned by another user, readable by others, not a key,
            wrapped and no passphrase given, or the passphrase is wrong.
    """
    data = _read(path, "private key", SigningError, is_private=True)
    try:
        if not is_wrapped(data):
            return PrivateKey.from_pem(data)
        if passphrase is None:
            raise SigningError("key is wrapped, expected a passphrase")
        return PrivateKey.unwrap(data, passphrase)
    except SigningError as problem:
        raise SigningError(f"private key `{path}`: {problem.message}", help=problem.help) from None


def read_public_key(path: str | os.PathLike[str]) -> PublicKey:
    """Read a public key, a `PUBLIC KEY` PEM block, from a file.

    Raises:
        ConfigurationError: the file cannot be read or holds no such key.
    """
    data = _read(path, "public key", ConfigurationError, is_private=False)
    try:
        return PublicKey.from_pem(data)
    except ConfigurationError as problem:
        raise ConfigurationError(f"public key `{path}`: {problem.message}") from None


def write_private_key(path: str | os.PathLike[str], key: PrivateKey, *, passphrase: bytes | None = None) -> None:
    """Write the key to a new file of mode 0600, encrypted if there is a passphrase.

    Args:
        path: the file.
        key: the private key that signs.
        passphrase: encrypts the key; None for no encryption.
    """
    if passphrase is None:
        data = key.to_pem()
    else:
        data = key.wrap(passphrase, salt=os.urandom(SALT_BYTES), nonce=os.urandom(NONCE_BYTES))
    _write(os.fspath(path), data, 0o600, "private key", SigningError)


def write_public_key(path: str | os.PathLike[str], key: PublicKey) -> None:
    """Write the key to a new file of mode 0644."""
    _write(os.fspath(path), key.to_pem(), 0o644, "public key", ConfigurationError)


def _read(path: str | os.PathLike[str], what: str, family: type[PolicyGuardError], *, is_private: bool) -> bytes:
    # INVARIANT I14: a private key is never read through a symbolic link, from a FIFO or a device.
    try:
        handle, status = open_plain(path, follow_links=not is_private)
        try:
            if is_private:
                _check_owner(path, status)
            data = os.read(handle, MAX_KEY_TEXT_BYTES + 1)
        finally:
            os.close(handle)
    except OSError as problem:
        raise family(f"{what} `{path}` cannot be read: {reason_of(problem)}") from None
    if len(data) > MAX_KEY_TEXT_BYTES:
        raise family(f"{what} `{path}` is larger than {MAX_KEY_TEXT_BYTES} bytes, expected a key")
    return data


def _check_owner(path: str | os.PathLike[str], status: os.stat_result) -> None:
    # INVARIANT I14: a private key that others may read, or that another user owns, signs nothing.
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise SigningError(
            f"private key `{path}` has mode {mode:04o}, expected 0600: others may read or change it",
            help=f"chmod 600 {path}, and replace the key if others could read it",
        )
    if status.st_uid != os.geteuid():
        raise SigningError(f"private key `{path}` belongs to uid {status.st_uid}, expected {os.geteuid()}")


def _write(path: str, data: bytes, mode: int, what: str, family: type[PolicyGuardError]) -> None:
    try:
        # Only a new key pays for this import.
        from policyguard.fs.write import create_file

        create_file(path, data, mode=mode)
    except FileExistsError:
        raise family(f"{what} `{path}` exists already, expected a new path") from None
    except OSError as problem:
        raise family(f"{what} `{path}` cannot be written: {reason_of(problem)}") from None
