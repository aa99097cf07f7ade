"""Decides again, under the policies that are published now, whether a running job would still be allowed.

The watch handles changed facts (`drift.code` and others); here only the policies are new. Facts, approvals and time are
those of the decision, so an approval that has expired since, or a quota that this job itself uses, does not cause a
denial.
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
"""Returns True if policies of this digest and epoch are accepted (step V9)."""


class PolicyRecheck:
    """Decides again when policies were replaced; call `check` once per period."""

    def __init__(self, guard: Guard, decision: Decision, accepts: Accepts) -> None:
        self._guard, self._decision, self._accepts = guard, decision, accepts
        self._seen = guard.policies_stamp()
        # Nothing is checked yet: the policies may have been replaced since the decision.
        self._checked: object = None
        self._epoch = decision.epoch
        self._pending_snapshot: Snapshot | None = None
        """Policies that load but are not accepted yet."""
        self._drift: Drift | None = None

    def check(self) -> tuple[Drift, ...]:
        """Decide about the job under the policies that are published now; return the drift, if any.

        Policies are read only after they were changed. A folder that is being written is ignored until it is the same
        in two checks.
        """
        stamp, before = self._guard.policies_stamp(), self._seen
        self._seen = stamp
        if stamp != self._checked and stamp == before:
            self._checked, self._pending_snapshot = stamp, None
            self._drift = self._decide_again(self._guard.policies_on_disk)
        elif (pending := self._pending_snapshot) is not None:
            # Policies are often published before the trust that accepts them.
            self._drift = self._decide_again(lambda: pending)
        return (self._drift,) if self._drift is not None else ()

    def _decide_again(self, load: Callable[[], Snapshot]) -> Drift | None:
        try:
            snapshot = self._pending_snapshot = load()
            self._check(snapshot)
        except PolicyGuardError as problem:
            text = f"the current policies are not used: {problem}"
            return Drift("resource.policies", POLICIES_UNUSABLE, text, text)
        self._epoch, self._pending_snapshot = snapshot.epoch, None
        return self._decided(snapshot) if snapshot.policy_digest != self._decision.policy_digest else None

    def _check(self, snapshot: Snapshot) -> None:
        # INVARIANT I4: only policies that a worker would accept, and never older ones, count against a running job.
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
        text = f"is denied under policies {snapshot.policy_digest[:16]} epoch {snapshot.epoch}: {reasons}"
        return Drift("resource.policy", POLICY, text, text)


def trust_accepts(trust: Trust) -> Accepts:
    """Return the test of step V9: which policies a worker with this trust accepts."""

    def accepts(digest: str, epoch: int) -> bool:
        if trust.policy_digests and digest not in trust.policy_digests:
            return False
        return trust.min_epoch is None or epoch >= trust.min_epoch

    return accepts
