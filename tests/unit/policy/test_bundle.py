"""Compiled snapshots: the same decisions as their policies, the same digest, and only under a pinned key."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.decide.compiled_form import compile_policy, policy_digest
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import ConfigurationError
from policyguard.policy.bundle import open_sealed, seal
from policyguard.policy_store.folder import grants_of, policy_set_of_folder

POLICIES = Path(__file__).parents[3] / "policies"
KEY, OTHER = PrivateKey.generate(bytes(32)), PrivateKey.generate(bytes(31) + b"\1")


def sealed() -> bytes:
    policy_set = policy_set_of_folder(POLICIES)
    return seal(compile_policy(policy_set, grants_of(policy_set)), [KEY])


def test_the_same_policies_give_the_same_bytes_and_digest() -> None:
    """Compiling twice gives one file; the digest is that of the policies, wherever it is computed."""
    first = sealed()
    assert first == sealed()
    compiled, digest = open_sealed(first, [KEY.public])
    assert digest == policy_digest(compiled)
    policy_set = policy_set_of_folder(POLICIES)
    assert (
        Snapshot.from_compiled(compiled, digest).policy_digest
        == Snapshot.of(policy_set, grants_of(policy_set)).policy_digest
    )


def test_a_snapshot_signed_by_another_key_is_refused() -> None:
    """INVARIANT I4: only a pinned key's snapshot decides; its twin under that key does."""
    data = sealed()
    with pytest.raises(ConfigurationError, match="0 of the trusted keys signed this"):
        open_sealed(data, [OTHER.public])
    with pytest.raises(ConfigurationError):
        open_sealed(data, [])
    assert open_sealed(data, [OTHER.public, KEY.public])[0]["format"]


def test_one_changed_byte_is_refused() -> None:
    """A snapshot that was touched anywhere does not load."""
    data = sealed()
    for at in range(10, len(data) - 2, len(data) // 23):
        changed = bytearray(data)
        changed[at] = changed[at] + 1 if changed[at] != 0x7A else 0x61
        with pytest.raises(ConfigurationError):
            open_sealed(bytes(changed), [KEY.public])


@pytest.mark.parametrize("data", [b"", b"{}", b"not a snapshot", b"\xff" * 100], ids=repr)
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    """Anything else is one clear line."""
    with pytest.raises(ConfigurationError, match="compiled snapshot"):
        open_sealed(data, [KEY.public])


def test_a_comment_or_a_moved_line_does_not_change_the_digest(tmp_path: Path) -> None:
    """Places take no part in the policy digest; an effect does."""
    for path in POLICIES.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    before = policy_set_of_folder(tmp_path)
    jobs = tmp_path / "jobs.yaml"
    jobs.write_text("# one more line\n\n" + jobs.read_text())
    moved = policy_set_of_folder(tmp_path)

    def digest(policy_set: object) -> str:
        return policy_digest(compile_policy(policy_set, grants_of(policy_set)))  # type: ignore[arg-type]

    assert digest(moved) == digest(before)
    jobs.write_text(jobs.read_text().replace("resource.gpus <= 8", "resource.gpus <= 9"))
    assert digest(policy_set_of_folder(tmp_path)) != digest(before)
