"""Finds packages of an environment that are imported from a work tree: editable installs and links."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from policyguard.errors import EvidenceError
from policyguard.fs.ownership import is_below
from policyguard.fs.safe_open import open_plain
from policyguard.text import printable_name

MAX_FILE_BYTES = 1 << 20

_FINDER = re.compile(r"__editable__.*\.py|.*\.(?:pth|egg-link)", re.DOTALL)
_QUOTED = re.compile(r"""['"](/[^'"]*)['"]""")


def check_environments(environments: Sequence[str], root: str, user_base: str) -> None:
    """Refuse environments that import code from a work tree.

    Args:
        environments: their folders, that of the program first.
        root: the top folder of the work tree.
        user_base: where an interpreter outside of a virtual environment finds the account's own packages.

    Raises:
        EvidenceError: one does; the message names the file that makes it do so.
    """
    isolated = bool(environments) and _is_isolated(environments[0])
    prefixes = (*environments, *(() if isolated else (user_base, "/usr", "/usr/local")))
    stays = tuple(name for prefix in prefixes for name in (prefix, os.path.realpath(prefix)))
    for prefix in prefixes:
        for site in sorted(Path(prefix).glob("lib*/python*/*-packages")):
            for file, target in _imports(site):
                real = os.path.realpath(target)
                # INVARIANT I15: what starts from a commit imports nothing of the work tree.
                if is_below(real, root) and not any(is_below(real, folder) for folder in stays):
                    raise EvidenceError(
                        f"`{printable_name(file)}`: imports `{printable_name(target)}` of the work tree, "
                        "expected an installed package",
                        help="install it without `-e`, or put its folder on PYTHONPATH",
                    )


def _is_isolated(prefix: str) -> bool:
    """Return True for a virtual environment that sees no packages of the system or the account."""
    text = _text(Path(prefix, "pyvenv.cfg")).lower()
    return bool(re.search(r"^include-system-site-packages\s*=\s*false\s*$", text, re.MULTILINE))


def _imports(site: Path) -> Iterator[tuple[str, str]]:
    """Yield each file of a `site-packages` folder that leads elsewhere, with the path that it leads to."""
    try:
        entries = sorted(os.scandir(site), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_symlink():
            yield entry.path, os.path.realpath(entry.path)
        if _FINDER.fullmatch(entry.name):
            text = _text(Path(entry.path))
            lines = [line.strip() for line in text.splitlines()]
            paths = [line for line in lines if line and not line.startswith(("import ", "import\t", "#"))]
            for path in (*(paths if not entry.name.endswith(".py") else ()), *_QUOTED.findall(text)):
                yield entry.path, os.path.join(site, path)
        elif entry.name.endswith(".dist-info"):
            file = Path(entry.path, "direct_url.json")
            if (target := _editable(_text(file))) is not None:
                yield str(file), target


def _editable(text: str) -> str | None:
    """Return the folder of an editable install (PEP 610); None if it is something else."""
    try:
        data = json.loads(text)
        is_editable, parts = data["dir_info"]["editable"], urlsplit(data["url"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return unquote(parts.path) if is_editable and parts.scheme == "file" else None


def _text(path: Path) -> str:
    try:
        descriptor, status = open_plain(path, follow_links=True)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size > MAX_FILE_BYTES:
            raise EvidenceError(
                f"`{printable_name(str(path))}`: larger than {MAX_FILE_BYTES} bytes, expected a few lines"
            )
        return file.read().decode("utf-8", "surrogateescape")
