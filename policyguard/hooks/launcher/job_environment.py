"""The variable that passes a signed decision to the processes of a job: `POLICYGUARD_DECISION`.

It contains the decision itself if that fits, so that torchrun, srun and containers pass it on; otherwise `@` and the
path of a file that only the job's account can read. Neither has to be trusted, because `verify` checks signatures.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from policyguard.audit.receipt import MAX_SIGNED_BYTES, SignedDecision
from policyguard.errors import EvidenceError
from policyguard.evidence.collector import GUARD_VARIABLES
from policyguard.fs.safe_open import read_small
from policyguard.fs.write import create_file

VARIABLE = "POLICYGUARD_DECISION"

MAX_INLINE_BYTES = 65_536
"""Half of what Linux allows for one variable (MAX_ARG_STRLEN, 128 KiB), so that the rest of the environment fits."""


def child_environment(environment: Mapping[str, str], signed: SignedDecision, private: str) -> dict[str, str]:
    """Build the environment of a job: its own, with the signed decision instead of our variables.

    Args:
        environment: the environment of the launcher.
        signed: the signed decision.
        private: a folder of mode 0700 that exists as long as the job.
    """
    # INVARIANT I14: the launcher's own settings, a passphrase above all, never reach the job.
    inherited = {name: value for name, value in environment.items() if not name.startswith(GUARD_VARIABLES)}
    return {**inherited, VARIABLE: _encode_decision(signed.to_json(), private)}


def read_decision(environment: Mapping[str, str]) -> bytes:
    """Read the signed decision that this process was started with, not yet verified.

    Raises:
        EvidenceError: there is none, or its file cannot be read.
    """
    text = environment.get(VARIABLE, "")
    if not text:
        raise EvidenceError(
            f"`{VARIABLE}` is not set, expected a signed decision", help="start the job with `policyguard run`"
        )
    if text.startswith("@"):
        return read_small(text[1:], MAX_SIGNED_BYTES)
    return os.fsencode(text)


def _encode_decision(data: bytes, private: str) -> str:
    if len(data) <= MAX_INLINE_BYTES:
        return data.decode()
    path = os.path.join(private, "decision.json")
    create_file(path, data, mode=0o600)
    return f"@{path}"
