"""Builds a snapshot from a folder of policy files; imports yaml and the CEL checker. Reads files.

casbin is imported only for `Bindings` documents that name an adapter as their `source:`.
"""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.role_grants import RoleAssignments
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import ConfigurationError
from policyguard.model.policy import Binding, BindingSource, PolicySet
from policyguard.policy.files import read_folder
from policyguard.policy.loader import load


def policy_set_of_folder(path: Path) -> PolicySet:
    """Load the policy set of a folder, with the bindings of its casbin adapters.

    Raises:
        PolicyErrors: every mistake. ConfigurationError: the folder or an adapter cannot be read.
    """
    return policy_set_of_sources(path, read_folder(path))


def policy_set_of_sources(path: Path, sources: dict[str, bytes]) -> PolicySet:
    """Load the policy set of a folder whose files were read already; see `policy_set_of_folder`."""
    policy_set = load(sources)
    from_adapters = [binding for source in policy_set.binding_sources for binding in _bindings(path, source)]
    return replace(policy_set, bindings=(*policy_set.bindings, *from_adapters), binding_sources=())


def snapshot_of_folder(path: Path) -> Snapshot:
    """Load a snapshot from a policy folder."""
    policy_set = policy_set_of_folder(path)
    return Snapshot.of(policy_set, grants_of(policy_set))


def snapshot_of_text(text: str) -> Snapshot:
    """Build a snapshot from policy documents in one text.

    Raises:
        PolicyErrors: every mistake.
        ConfigurationError: bindings come from a casbin adapter, which only a folder of policies can name.
    """
    policy_set = load({"policies.yaml": text.encode()})
    if policy_set.binding_sources:
        raise ConfigurationError("bindings have a `source:`, expected bindings in the text itself")
    return Snapshot.of(policy_set, grants_of(policy_set))


def grants_of(policy_set: PolicySet) -> RoleAssignments:
    """Build the role assignments of a policy set; checks separation of duty."""
    return assign_roles(policy_set.roles, policy_set.bindings, policy_set.exclusions, policy_set.persons)


def _bindings(folder: Path, source: BindingSource) -> tuple[Binding, ...]:
    """Read the bindings of one adapter; the path of a CSV file is relative to the policy folder."""
    # Importing casbin takes longer than loading a small folder; only policies that use it pay.
    from policyguard.casbin_compat.adapters import adapter_for, bindings_from_adapter

    location = str(folder / source.location) if source.adapter == "csv" else source.location
    return bindings_from_adapter(adapter_for(source.adapter, location), location)
