"""Whether a job's commit is in the history that the operator accepts: in a repository that the operator keeps.

A repository of one's own is clean, and says nothing. So the operator names bare repositories, or mirrors of them, and
the references in them that count. Their objects are read as those of the job's repository are: git sees neither their
configuration nor their hooks. The job's remote is not asked; its owner wrote it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from policyguard.errors import ConfigurationError, EvidenceError
from policyguard.evidence.collector import Collected
from policyguard.fs.ownership import check_owned, check_owned_tree
from policyguard.git.directory import bare_gitdir
from policyguard.git.objects import open_objects
from policyguard.git.refs import References, history_overrides
from policyguard.model.facts import Assurance, Fact
from policyguard.model.request import Request
from policyguard.patterns.glob import glob
from policyguard.values import OBJECT_ID, FrozenMap, Instant

ACCEPTED_HISTORY = "resource.accepted_history"

MAX_TIPS = 1_000
"""The maximum number of references that count; accept a branch, not every branch."""


class AcceptedHistory(msgspec.Struct, frozen=True, kw_only=True):
    """A bare repository of the operator, the team's ids that it is for, and the references that count."""

    resource: str
    """The id of the repository, such as `team/vision/trainer`: it is for jobs below `team/vision/`."""

    path: Path
    refs: tuple[str, ...]

    def concerns(self, resource_id: str) -> bool:
        """Return True if jobs of this id may run code of the repository."""
        return resource_id.startswith(self.resource.rpartition("/")[0] + "/")


def accepted_fact(
    record: FrozenMap,
    request: Request,
    repositories: Sequence[AcceptedHistory],
    owners: Collection[int],
    deadline: float,
    now: Instant,
) -> Collected:
    """Supply `resource.accepted_history` for the measured commit; it is absent where no repository is configured.

    Args:
        record: the code record of the job.
        request: what is asked.
        repositories: those that the operator names.
        owners: the user ids that may own them.
        deadline: a time of `time.monotonic()` after which git is stopped.
        now: the current time.
    """
    ours = [repository for repository in repositories if repository.concerns(request.resource.id)]
    if not ours:
        reason = f"no repository is configured for `{request.resource.id}`, expected one under `repositories:`"
        return Collected(missing={ACCEPTED_HISTORY: reason})
    try:
        value = any(_contains(repository, str(record["commit"]), owners, deadline) for repository in ours)
    except (EvidenceError, ConfigurationError) as problem:
        return Collected(missing={ACCEPTED_HISTORY: str(problem)})
    # The commit is bound to the decision; a worker on another machine has no mirror.
    return Collected(entries={ACCEPTED_HISTORY: Fact(value, Assurance.MEASURED, "repository", now)})


def check_repository(path: str) -> None:
    """Check that only the operator can move the references of a repository, or add objects to it.

    Raises:
        ConfigurationError: another account could; a repository that a group may write to needs a mirror.
    """
    check_owned(path)
    for name in ("HEAD", "config", "packed-refs", "shallow"):
        check_owned(os.path.join(path, name))
    for folder in ("refs", "reftable"):
        check_owned_tree(os.path.join(path, folder))
    for folder in _object_folders(os.path.join(path, "objects")):
        check_owned(folder)


def _object_folders(objects: str) -> Iterator[str]:
    yield objects
    try:
        names = sorted(os.listdir(objects))
        packs = sorted(os.listdir(os.path.join(objects, "pack"))) if "pack" in names else []
    except OSError:
        return  # Its reader says that it is missing.
    yield from (os.path.join(objects, name) for name in names)
    yield from (os.path.join(objects, "pack", name) for name in packs)


def _contains(repository: AcceptedHistory, commit: str, owners: Collection[int], deadline: float) -> bool:
    """Return True if a reference that counts reaches the commit.

    Raises:
        EvidenceError: the repository cannot be read, or shows another history than its commits.
        ConfigurationError: another account could change it.
    """
    path = os.path.realpath(repository.path)
    check_repository(path)
    git = bare_gitdir(path, owners)
    references = References(git)
    overrides = history_overrides(git, references)
    if overrides:
        # INVARIANT I16: what can show another history accepts nothing.
        raise EvidenceError(f"`{path}`: can show another history than its commits contain ({', '.join(overrides)})")
    # A reference to a reference counts by its target, if that is one that counts.
    tips = {
        oid
        for ref, oid in references.all().items()
        if OBJECT_ID.fullmatch(oid) and any(glob(ref, pattern) for pattern in repository.refs)
    }
    if len(tips) > MAX_TIPS:
        raise EvidenceError(f"`{path}`: found {len(tips)} references that count, expected at most {MAX_TIPS}")
    with open_objects(git, commit, deadline) as reader:
        try:
            reader.read(commit, "commit")
        except EvidenceError:
            return False
        beyond = reader.lines("rev-list", "--max-count=1", commit, *(f"^{tip}" for tip in sorted(tips)))
        return bool(tips) and next(iter(beyond), None) is None
