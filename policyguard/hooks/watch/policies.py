"""Whether what was decided would still be allowed: the decision's own facts, under the policies that are there now.

Facts that change are the business of the watch (`drift.code` and its company); here only the policies are new. So the
facts, the approvals and the time are those of the decision: an approval that has aged since, or a quota that this very
job fills by now, is no reason to call a running job denied.
"""

from __future__ import annotations

from collections.abc import Callable

from policyguard.attest.trust import Trust
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import ConfigurationError, PolicyGuardError
from policyguard.guard import Guard
from policyguard.hooks.watch.drift import POLICIES_UNUSABLE, POLICY, Drift
from policyguard.model.decision import Decision

Accepts = Callable[[str, int], bool]
"""Whether policies of this digest and epoch are accepted ones (step V9)."""


class Standing:
    """Decides again whenever the policies were exchanged; `look` is one look."""

    def __init__(self, guard: Guard, decision: Decision, accepts: Accepts) -> None:
        self._guard, self._decision, self._accepts = guard, decision, accepts
        self._seen = guard.policies_stamp()
        # Nothing is judged yet: they may have been exchanged since the decision was made.
        self._judged: object = None
        self._epoch = decision.epoch
        self._waiting: Snapshot | None = None
        """Policies that load and are not accepted, or not yet."""
        self._found: Drift | None = None

    def look(self) -> tuple[Drift, ...]:
        """Return what the policies of now say against the job, if anything.

        They are read only when somebody touched them. A folder that is being written is left alone until it has not
        changed from one look to the next.
        """
        stamp, before = self._guard.policies_stamp(), self._seen
        self._seen = stamp
        if stamp != self._judged and stamp == before:
            self._judged, self._waiting = stamp, None
            self._found = self._judge(self._guard.policies_on_disk)
        elif (waiting := self._waiting) is not None:
            # Policies are often published before the trust that accepts them.
            self._found = self._judge(lambda: waiting)
        return (self._found,) if self._found is not None else ()

    def _judge(self, load: Callable[[], Snapshot]) -> Drift | None:
        try:
            snapshot = self._waiting = load()
            self._check(snapshot)
        except PolicyGuardError as problem:
            words = f"the policies that are there now are not used: {problem}"
            return Drift("resource.policies", POLICIES_UNUSABLE, words, words)
        self._epoch, self._waiting = snapshot.epoch, None
        return self._decided(snapshot) if snapshot.policy_digest != self._decision.policy_digest else None

    def _check(self, snapshot: Snapshot) -> None:
        # INVARIANT I4: only policies that a worker would accept, and never older ones, speak against a running job.
        if snapshot.epoch < self._epoch:
            raise ConfigurationError(f"they are of epoch {snapshot.epoch}, expected at least {self._epoch}")
        is_known = snapshot.policy_digest == self._decision.policy_digest
        if not is_known and not self._accepts(snapshot.policy_digest, snapshot.epoch):
            raise ConfigurationError(f"{snapshot.policy_digest[:16]} is not accepted here (step V9)")

    def _decided(self, snapshot: Snapshot) -> Drift | None:
        decision = Engine(snapshot).decide(self._decision.facts, self._decision.now)
        if decision.allowed:
            return None
        reasons = ", ".join(decision.reason_codes)
        words = f"is denied under policies {snapshot.policy_digest[:16]} epoch {snapshot.epoch}: {reasons}"
        return Drift("resource.policy", POLICY, words, words)


def trust_accepts(trust: Trust) -> Accepts:
    """Return whether a worker with this trust accepts policies, as step V9 says."""

    def accepts(digest: str, epoch: int) -> bool:
        if trust.policy_digests and digest not in trust.policy_digests:
            return False
        return trust.min_epoch is None or epoch >= trust.min_epoch

    return accepts
