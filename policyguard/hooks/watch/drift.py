"""One thing about a running job that is not as it was decided on, and which of them may end it. Pure."""

from __future__ import annotations

import msgspec

REVERTED, UNMEASURED, KILLED = "drift.reverted", "drift.unmeasured", "drift.killed"
POLICY, POLICIES_UNUSABLE = "drift.policy", "drift.policies_unusable"
PROCESS, PROCESS_UNSEEN = "drift.process", "drift.process_unseen"

TOLD_ONLY = frozenset({UNMEASURED, KILLED, POLICIES_UNUSABLE, PROCESS_UNSEEN})
"""These say that something could not be seen or used; nothing was found that differs."""


class Drift(msgspec.Struct, frozen=True):
    """What it is about, a reason code, the difference in words, and what tells this state from another."""

    path: str
    reason: str
    words: str
    state: str = ""
