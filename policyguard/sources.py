"""From a folder of policy files to a snapshot: the path that loads yaml, casbin and the CEL checker. Reads files."""

from __future__ import annotations

from pathlib import Path

from policyguard.decide.grants import Grants
from policyguard.decide.roles import build_grants
from policyguard.decide.snapshot import Snapshot
from policyguard.model.policy import PolicySet
from policyguard.policy.files import load_folder


def policy_set_of_folder(path: Path) -> PolicySet:
    """Return the policy set of a folder, bindings from casbin adapters included.

    Raises:
        PolicyErrors: every mistake. ConfigurationError: the folder cannot be read.
    """
    return load_folder(path)


def snapshot_of_folder(path: Path) -> Snapshot:
    """Return the snapshot of a folder of policies."""
    policy_set = policy_set_of_folder(path)
    return Snapshot.of(policy_set, grants_of(policy_set))


def grants_of(policy_set: PolicySet) -> Grants:
    """Return the closed roles of a policy set, separation of duty checked."""
    return build_grants(policy_set.roles, policy_set.bindings, policy_set.exclusions, policy_set.persons)
