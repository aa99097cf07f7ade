"""The log entry of a job's end: when, how, and after what time.

The job of an allow without one still runs, was never started, or lost its launcher.
"""

from __future__ import annotations

import msgspec

from policyguard.attest.keys import PrivateKey
from policyguard.audit.entries import JOB_END_ENTRY
from policyguard.errors import AuditError
from policyguard.values import parse_instant


class JobEnded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the job of a decision ended.

    `status` is the exit status of the launcher, `signal` the name of the one that ended the job's first process, `pid`;
    `outlived` counts processes that outlived that one and were ended.
    """

    decision_id: str
    event: str
    subject: str
    resource: str
    started: str
    at: str
    duration_ms: int
    status: int
    pid: int
    signal: str = ""
    outlived: int = 0


JOB_ENDED = "job.ended"

_DECODER = msgspec.json.Decoder(JobEnded)
_encode = msgspec.json.Encoder(order="sorted").encode


def job_end_leaf(end: JobEnded, key: PrivateKey) -> bytes:
    """Build the log entry, signed by the log's key."""
    return JOB_END_ENTRY.leaf(_encode(end), (key,))


def job_end(leaf: bytes, entry: int) -> JobEnded:
    """Parse the end of a job in a log entry.

    Raises:
        AuditError: it holds none.
    """
    try:
        end = _DECODER.decode(JOB_END_ENTRY.payload(leaf, entry))
        if end.event != JOB_ENDED:
            raise ValueError(f"found `{end.event}`, expected `{JOB_ENDED}`")
        parse_instant(end.started)
        parse_instant(end.at)
    except ValueError as problem:
        raise AuditError(f"entry {entry}: end of a job: {problem}", entry=entry) from problem
    return end
