"""Guards a call that loads weights, including the arguments that may make it run code.

    with loading(guard, request, folder, trust_remote_code=True, revision=commit):
        model = AutoModel.from_pretrained(folder, trust_remote_code=True, revision=commit)

The files are measured, but only the call shows whether remote code may run, and of which commits. Like all code in the
user's own process, this is advisory (`hooks/in_process/context.py`).

Source: transformers 5 `dynamic_module_utils.py`: `revision` pins the repository that is named, `code_revision` the one
that `auto_map` names.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import structs

from policyguard.audit.receipt import SignedDecision
from policyguard.errors import AccessDenied
from policyguard.evidence.collector import JobInputs
from policyguard.guard import Guard
from policyguard.hooks.in_process.context import require_advisory
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.request import Request
from policyguard.scan.model_repository import inspect_repository
from policyguard.values import FrozenMap, Instant, Value


@contextmanager
def loading(
    guard: Guard,
    request: Request,
    path: str | os.PathLike[str],
    *,
    trust_remote_code: bool = False,
    revision: str | None = None,
    code_revision: str | None = None,
    clock: Callable[[], Instant] = time.time_ns,
) -> Iterator[SignedDecision]:
    """Enter the block only if these files may be loaded with these arguments; yield the signed decision.

    Args:
        guard: advisory, with a `CheckpointCollector`.
        request: about a `checkpoint`, to `load` or `fetch` it.
        path: the file or folder on the disk that the call will read.
        trust_remote_code, revision, code_revision: as passed to the call.
        clock: supplies the current time.

    Raises:
        AccessDenied: the block is not entered; the decision is signed and logged.
        ConfigurationError: the guard is not advisory.
    """
    full = Path(os.path.abspath(path))
    facts = guard.gather(request, JobInputs(directory=str(full.parent), checkpoints=(full.name,)))
    signed = guard.issue(_with_arguments(facts, full, trust_remote_code, revision, code_revision, clock()))
    if not signed.decision.allowed:
        raise AccessDenied(signed.decision.explain(), signed=signed)
    require_advisory(signed)
    yield signed


def _with_arguments(
    facts: Facts, path: Path, trusted: bool, revision: str | None, code_revision: str | None, now: Instant
) -> Facts:
    repository = inspect_repository(path) if path.is_dir() else None
    values: dict[str, Value] = {"remote_code": trusted}
    if repository is not None:
        # INVARIANT I15: kernels are fetched, and settings run what they name, whether remote code is trusted or not.
        always = bool(repository.kernels or repository.named_code)
        values["remote_code"] = always or (trusted and repository.remote_code)
        values["foreign_code"] = bool(repository.foreign_code or repository.kernels or repository.problems)
        # No argument pins a kernel, so `code_revision` does not pin everything that is fetched.
        code_revision = None if repository.kernels else code_revision
    values |= {
        "revision": _commit(repository.revision if repository else "", revision),
        "code_revision": code_revision or "",
    }
    entries = dict(facts.entries)
    for name, value in values.items():
        entries[f"resource.{name}"] = Fact(value, Assurance.MEASURED, "loading", now, bound=True)
    missing = {name: reason for name, reason in facts.missing.items() if name not in entries}
    return structs.replace(facts, entries=entries, missing=FrozenMap(missing))


def _commit(on_disk: str, requested: str | None) -> str:
    """Return the revision of the files; empty if the files and the call name different ones."""
    if on_disk and requested and on_disk != requested:
        return ""
    return on_disk or requested or ""
