"""A baseline: the saved state of a repository, for audits that start before the first decision.

It contains only data that is readable in the repository, and the log's checkpoint of that moment. Store it where
attackers of the repository and of the log cannot write: neither in the repository nor with the log.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec

from policyguard.attest.dsse import reason
from policyguard.audit.proofs import latest_note
from policyguard.audit.stores.interface import Store
from policyguard.errors import ConfigurationError, EvidenceError
from policyguard.fs.safe_open import read_small
from policyguard.git.directory import GitDir, config_text
from policyguard.git.refs import References
from policyguard.hooks.git.ref_history import Finding
from policyguard.text import printable_name
from policyguard.values import sha256_digest

FORMAT = "policyguard repo baseline v1"
MAX_BASELINE_BYTES = 256 << 20
MAX_HOOK_BYTES = 1 << 20


class Baseline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The values of all references, HEAD, and digests of configuration and hooks, when the log had `size` entries."""

    format: str
    resource: str
    head: str
    refs: dict[str, str]
    config_digest: str
    hooks: dict[str, str]
    size: int
    checkpoint: str

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=1) + b"\n"


def baseline_of(git: GitDir, resource: str, store: Store | None) -> Baseline:
    """Read the current state of a repository; `store` is None if there is no log yet.

    Args:
        git: the repository.
        resource: the resource of the policies, `repo:...`.
        store: the decision log, if there is one.
    """
    last = None if store is None else store.last()
    note = b"" if store is None or last is None else latest_note(store)
    return Baseline(
        format=FORMAT,
        resource=resource,
        head=printable_name(References(git).head_content()),
        refs=References(git).all(),
        config_digest=sha256_digest(config_text(git)),
        hooks=dict(_hooks(git)),
        size=0 if last is None else last.entry + 1,
        checkpoint=note.decode(),
    )


def parse_baseline(data: bytes, where: str) -> Baseline:
    """Parse a baseline; `where` names it in errors.

    Raises:
        ConfigurationError: the data is not a baseline.
    """
    try:
        baseline = msgspec.json.decode(data, type=Baseline)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise ConfigurationError(f"{where}: {reason(problem)}, expected what `repo baseline` writes") from None
    if baseline.format != FORMAT or baseline.size < 0 or bool(baseline.size) != bool(baseline.checkpoint):
        raise ConfigurationError(
            f"{where}: found the format `{printable_name(baseline.format[:80])}`, expected `{FORMAT}`"
        )
    return baseline


def differences(git: GitDir, since: Baseline | None) -> Iterator[Finding]:
    """Yield every difference from the baseline in HEAD, configuration and hooks.

    Without a baseline, only a HEAD that is on no branch.
    """
    current = printable_name(References(git).head_content())
    # INVARIANT I19: HEAD, configuration and hooks are the baseline's, or that is a finding.
    if since is None:
        if not current.startswith("ref: refs/heads/"):
            yield Finding(code="head", ref="HEAD", text=f"is `{current}`, expected a branch")
        return
    if current != since.head:
        yield Finding(code="head", ref="HEAD", text=f"is `{current}`, the baseline says `{since.head}`")
    if sha256_digest(config_text(git)) != since.config_digest:
        yield Finding(code="config", ref="config", text="was changed since the baseline")
    hooks = dict(_hooks(git))
    for name in sorted(hooks.keys() | since.hooks.keys()):
        if hooks.get(name) != since.hooks.get(name):
            what = "is gone" if name not in hooks else "is new" if name not in since.hooks else "was changed"
            yield Finding(code="hook", ref=f"hooks/{name}", text=f"{what} since the baseline")


def _hooks(git: GitDir) -> Iterator[tuple[str, str]]:
    folder = os.path.join(git.shared, "hooks")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name)
        if name.endswith(".sample"):
            continue
        try:
            mark = "" if os.access(path, os.X_OK) else "not executable "
            yield printable_name(name), mark + sha256_digest(read_small(path, MAX_HOOK_BYTES))
        except EvidenceError as problem:
            yield printable_name(name), str(problem)
