"""A call that loads weights enters only if the files and the call's own arguments allow it (scenarios 15 to 19)."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.errors import AccessDenied, ConfigurationError
from policyguard.evidence.checkpoint import CheckpointCollector
from policyguard.guard import Guard
from policyguard.hooks.in_process.loading import loading
from policyguard.keyfiles import write_private_key
from policyguard.model.request import Request

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FETCH = Request.of("user:alice", "checkpoint:fetch", "checkpoint:team/vision/hub/net")
LOAD = Request.of("user:alice", "checkpoint:load", "checkpoint:team/vision/hub/net")
POLICIES = Path(__file__).parents[2] / "policies"


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    with opened(tmp_path, advisory=True) as guard:
        yield guard


def opened(folder: Path, *, advisory: bool) -> Guard:
    key, log = folder / "guard.key", folder / "audit.db"
    write_private_key(key, PrivateKey.generate(b"\7" * 32))
    return Guard.open(POLICIES, key=key, log=log, advisory=advisory, collectors=(CheckpointCollector(),))


def model(folder: Path, *, commit: str = COMMIT, **config: object) -> Path:
    """Return a model as the hub's cache keeps it."""
    snapshot = folder / "models--lab--net" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (snapshot / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    (snapshot / "config.json").write_text(json.dumps(config))
    return snapshot


OWN, FOREIGN = {"AutoModel": "modeling.Net"}, {"AutoModel": "other/net--modeling.Net"}


def test_pinned_weights_without_code_are_loaded(guard: Guard, tmp_path: Path) -> None:
    """The twin of all below."""
    with loading(guard, FETCH, model(tmp_path), revision=COMMIT) as signed:
        assert signed.decision.reason_codes == ("hub.pinned",)
    with loading(guard, LOAD, tmp_path / "models--lab--net") as signed:
        assert signed.decision.reason_codes == ("ckpt.data_only",)


def test_code_of_the_repository_at_a_commit_is_loaded(guard: Guard, tmp_path: Path) -> None:
    """`revision` pins the repository's own code."""
    with loading(guard, FETCH, model(tmp_path, auto_map=OWN), trust_remote_code=True, revision=COMMIT):
        pass


def test_remote_code_at_a_branch_is_refused(guard: Guard, tmp_path: Path) -> None:
    """Scenario 18: `main` moves; the folder's own commit is not what the call would fetch."""
    with (
        pytest.raises(AccessDenied) as denied,
        loading(guard, FETCH, model(tmp_path, auto_map=OWN), trust_remote_code=True, revision="main"),
    ):
        pytest.fail("the block was entered")
    assert denied.value.signed is not None
    assert "hub.unpinned_remote_code" in denied.value.signed.decision.reason_codes


@pytest.mark.parametrize("code_revision", [None, "main", COMMIT[:12]])
def test_code_of_another_repository_is_refused(guard: Guard, tmp_path: Path, code_revision: str | None) -> None:
    """Scenario 19: `revision` does not pin what `auto_map` names elsewhere."""
    folder = model(tmp_path, auto_map=FOREIGN)
    with (
        pytest.raises(AccessDenied, match=r"hub\.code_revision_unpinned"),
        loading(guard, FETCH, folder, trust_remote_code=True, revision=COMMIT, code_revision=code_revision),
    ):
        pytest.fail("the block was entered")


def test_code_of_another_repository_at_its_commit_is_loaded(guard: Guard, tmp_path: Path) -> None:
    """The twin of scenario 19."""
    folder = model(tmp_path, auto_map=FOREIGN)
    with loading(guard, FETCH, folder, trust_remote_code=True, revision=COMMIT, code_revision=COMMIT[::-1]):
        pass


def test_kernels_are_refused_whatever_is_pinned(guard: Guard, tmp_path: Path) -> None:
    """INVARIANT I15: a kernel is fetched without any trust in remote code, and no argument pins it."""
    folder = model(tmp_path, attn_implementation="kernels-community/flash-attn")
    with (
        pytest.raises(AccessDenied, match=r"hub\.code_revision_unpinned"),
        loading(guard, FETCH, folder, revision=COMMIT, code_revision=COMMIT),
    ):
        pytest.fail("the block was entered")


class _Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1",)


@pytest.mark.parametrize(
    ("name", "reason"), [("model.bin", "ckpt.pickle_untrusted"), ("model.safetensors", "ckpt.format_spoof")]
)
def test_a_pickle_is_refused_under_any_name(guard: Guard, tmp_path: Path, name: str, reason: str) -> None:
    """Scenarios 15 and 16: what counts is the content."""
    (tmp_path / name).write_bytes(pickle.dumps(_Runs()))
    with pytest.raises(AccessDenied) as denied, loading(guard, LOAD, tmp_path / name):
        pytest.fail("the block was entered")
    assert denied.value.signed is not None
    assert reason in denied.value.signed.decision.reason_codes


def test_what_is_not_there_is_not_loaded(guard: Guard, tmp_path: Path) -> None:
    """A missing file is a signed denial, no error of its own."""
    with pytest.raises(AccessDenied), loading(guard, LOAD, tmp_path / "nothing.safetensors"):
        pytest.fail("the block was entered")


def test_an_enforcing_guard_is_refused_in_process(tmp_path: Path) -> None:
    """A line that the user can take out must not claim to enforce."""
    with (
        opened(tmp_path, advisory=False) as guard,
        pytest.raises(ConfigurationError, match="expected advisory ones"),
        loading(guard, LOAD, model(tmp_path)),
    ):
        pytest.fail("the block was entered")
