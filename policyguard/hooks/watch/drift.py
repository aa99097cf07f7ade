"""Drift: a difference between a running job and the decision that started it. Pure."""

from __future__ import annotations

import msgspec

REVERTED, UNMEASURED, KILLED = "drift.reverted", "drift.unmeasured", "drift.killed"
POLICY, POLICIES_UNUSABLE = "drift.policy", "drift.policies_unusable"
PROCESS, PROCESS_UNSEEN = "drift.process", "drift.process_unseen"
START, OUTLIVED, UNGUARDED = "drift.start", "drift.outlived", "drift.unguarded"
GAP, SUSPENDED = "watch.gap", "watch.suspended"

UNCERTAIN = frozenset({UNMEASURED, KILLED, POLICIES_UNUSABLE, PROCESS_UNSEEN, OUTLIVED, UNGUARDED, GAP, SUSPENDED})
"""Reasons that report a failed measurement or an unusable file, and no difference."""


class Drift(msgspec.Struct, frozen=True):
    """One difference: path, reason code, description, and `state`, which is equal for equal states."""

    path: str
    reason: str
    description: str
    state: str = ""
