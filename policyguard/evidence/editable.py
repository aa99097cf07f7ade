"""Refuses environments that import code from a work tree: by editable installs, path files or links."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import unquote, urlsplit

from policyguard.confinement.profile import SYSTEM_PREFIXES
from policyguard.environment.outside import outside_of, user_sites
from policyguard.errors import EvidenceError
from policyguard.fs.ownership import is_below
from policyguard.fs.safe_open import read_small
from policyguard.text import printable_name

MAX_FILE_BYTES = 1 << 20


def check_environments(environments: Sequence[str], root: str, variables: Mapping[str, str]) -> None:
    """Refuse environments that import code from a work tree.

    Args:
        environments: their folders.
        root: the top folder of the work tree.
        variables: of the job; they say where the account's own packages are.

    Raises:
        EvidenceError: one does, or it cannot be determined; the message names the environment or the file.
    """
    prefixes = tuple(map(os.path.realpath, environments or SYSTEM_PREFIXES))
    for prefix in prefixes:
        outside = outside_of(prefix, user_sites(variables), (os.geteuid(),))
        for label, reason in outside.unmeasured.items():
            raise EvidenceError(f"`{label}` of `{printable_name(prefix)}`: {reason}, expected paths that can be read")
        sites = [path for path in outside.paths if path.endswith("-packages")]
        leads = [(prefix, path) for path in outside.paths] + [lead for site in sites for lead in _leads(site)]
        for name, target in leads:
            real = os.path.realpath(target)
            # INVARIANT I15: what starts from a commit imports nothing of the work tree.
            if is_below(real, root) and not any(is_below(real, folder) for folder in prefixes):
                raise EvidenceError(
                    f"`{printable_name(name)}`: imports `{printable_name(target)}` of the work tree, "
                    "expected an installed package",
                    help="install it without `-e`, or put its folder on PYTHONPATH",
                )


def _leads(site: str) -> Iterator[tuple[str, str]]:
    """Yield each link and editable install of a `site-packages` folder, with the path that it leads to."""
    for entry in sorted(os.scandir(site), key=lambda entry: entry.name):
        if entry.is_symlink():
            yield entry.path, os.path.realpath(entry.path)
        elif entry.name.endswith(".dist-info") and (target := _editable(entry.path)) is not None:
            yield entry.path, target


def _editable(folder: str) -> str | None:
    """Return the folder of an editable install (PEP 610); None if it is something else."""
    path = os.path.join(folder, "direct_url.json")
    if not os.path.lexists(path):
        return None
    try:
        data = json.loads(read_small(path, MAX_FILE_BYTES))
        is_editable, parts = data["dir_info"]["editable"], urlsplit(data["url"])
    except (EvidenceError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return unquote(parts.path) if is_editable and parts.scheme == "file" else None
