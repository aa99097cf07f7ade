"""Verifies GPG signatures with `gpgv` and one pinned keyring; uses no other key and no key server.

`Persons` lists the owner of a key: `keys: ["gpg:FINGERPRINT"]`, the 40 digits of the primary key. No trust database, no
key server and no configuration of the hook's account is used. Each signature starts a process of some milliseconds.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence

from policyguard.errors import EvidenceError
from policyguard.fs.safe_open import open_resolved
from policyguard.model.policy import Person
from policyguard.text import printable_name

PGP_BEGIN = b"-----BEGIN PGP SIGNATURE-----"
MAX_SIGNATURE_BYTES = 65_536
TIMEOUT_S = 10

_PREFIX = "gpg:"
_REFUSED = frozenset({b"BADSIG", b"ERRSIG", b"EXPSIG", b"EXPKEYSIG", b"REVKEYSIG", b"NODATA", b"UNEXPECTED"})


class Keyring:
    """A pinned keyring and the owners of its keys. Caches the result for each signature.

    `deadline` is an instant of `time.monotonic()`: later signatures are not verified and count as nobody's.
    """

    def __init__(self, path: str, people: Sequence[Person], *, deadline: float | None = None) -> None:
        self._deadline = deadline
        self._results: dict[bytes, Person | None] = {}
        descriptor, status, self._path = open_resolved(path)
        os.close(descriptor)
        if status.st_mode & 0o002:
            raise EvidenceError(f"`{printable_name(path)}`: everybody may write to it, expected the operator alone")
        self._program = shutil.which("gpgv")
        self._people = {
            key.removeprefix(_PREFIX).upper(): person
            for person in people
            for key in person.keys
            if key.startswith(_PREFIX)
        }

    def person_of(self, payload: bytes, signature: bytes) -> Person | None:
        """Return the person who made a good signature; None if it is bad, expired, revoked or by another key.

        Raises:
            EvidenceError: the time is up.
        """
        if self._program is None or not signature.startswith(PGP_BEGIN) or len(signature) > MAX_SIGNATURE_BYTES:
            return None
        digest = hashlib.sha256(b"%d %b%b" % (len(payload), payload, signature)).digest()
        if digest not in self._results:
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise EvidenceError(f"more GPG signatures than can be verified in time, {len(self._results)} so far")
            self._results[digest] = self._verified(payload, signature)
        return self._results[digest]

    def _verified(self, payload: bytes, signature: bytes) -> Person | None:
        with tempfile.TemporaryDirectory(prefix="policyguard-gpg-") as private:
            armour = os.path.join(private, "signature")
            with open(armour, "xb") as file:
                file.write(signature + b"\n")
            command = [str(self._program), "--homedir", private, "--keyring", self._path, "--weak-digest", "SHA1"]
            try:
                answer = subprocess.run(
                    [*command, "--status-fd", "1", armour, "-"],
                    input=payload,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    timeout=TIMEOUT_S,
                    check=False,
                    cwd=private,
                    env={"PATH": os.defpath, "HOME": private, "LC_ALL": "C"},
                )
            except (OSError, subprocess.TimeoutExpired):
                return None
        return self._good(answer.stdout) if answer.returncode == 0 else None

    def _good(self, status: bytes) -> Person | None:
        """Return the person of a file's only good signature; a file with several may contain a bad one."""
        lines = [line.split() for line in status.split(b"\n") if line.startswith(b"[GNUPG:] ")]
        keywords = [line[1] for line in lines]
        valid = [line for line in lines if line[1] == b"VALIDSIG" and len(line) > 11]
        # INVARIANT I10: a GPG signature counts only if it is the only one, good, and by a known person's pinned key.
        if (
            keywords.count(b"GOODSIG") != 1
            or keywords.count(b"NEWSIG") != 1
            or len(valid) != 1
            or _REFUSED & set(keywords)
        ):
            return None
        return self._people.get(valid[0][11].decode("ascii", "replace"))
