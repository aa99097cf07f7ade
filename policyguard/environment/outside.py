"""Finds what an interpreter loads from outside its environment's folder, and the code that runs when it starts.

Nothing is run or imported: `pyvenv.cfg`, path files (`.pth`) and the finders of editable installs are read as text. A
path that cannot be determined in this way is named, and counts as a difference from every baseline.

Source: CPython, `Lib/site.py` (`addpackage`, `venv`) and `Modules/getpath.py`; setuptools, `command/editable_wheel.py`.
"""

from __future__ import annotations

import glob
import os
import pwd
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from policyguard.environment.finders import paths_in_code, paths_in_module
from policyguard.errors import EvidenceError
from policyguard.fs.ownership import is_written_by_only
from policyguard.fs.safe_open import read_small
from policyguard.text import printable_name

MAX_TEXT_BYTES = 1 << 20
"""The maximum size of a path file or of `pyvenv.cfg`."""

_SITES = (
    "lib*/python*/site-packages",
    "lib*/python*/dist-packages",
    "lib*/pypy*/site-packages",
    "local/lib/python*/dist-packages",
)
_IMPORTED = re.compile(r"(?:\b(?:import|from)\s+|\b(?:__import__|import_module)\(\s*['\"])([A-Za-z_][\w.]*)")
_CHANGES_PATH = re.compile(r"sys\s*\.\s*path\b|addsitedir|addpackage|path_hooks|meta_path")
_BY_EASY_INSTALL = frozenset(
    {
        "import sys; sys.__plen = len(sys.path)",
        (
            "import sys; new=sys.path[sys.__plen:]; del sys.path[sys.__plen:]; p=getattr(sys,'__egginsert',0); "
            "sys.path[p:p]=new; sys.__egginsert = p+len(new)"
        ),
    }
)
"""Lines that old setuptools writes around its entries: they change the order of `sys.path`, and add nothing."""


class Outside(msgspec.Struct):
    """What was found: files and folders outside, lines that run at start, and what cannot be determined, by file.

    `skipped` are folders that are not on the path of this environment although they lie in one that is.
    """

    paths: list[str] = []
    skipped: set[str] = set()
    starting: dict[str, list[str]] = {}
    unmeasured: dict[str, str] = {}


def user_sites(environment: Mapping[str, str]) -> tuple[str, ...]:
    """List the user site folders of a job that exist; none with `PYTHONNOUSERSITE`."""
    if environment.get("PYTHONNOUSERSITE"):
        return ()
    base = environment.get("PYTHONUSERBASE") or os.path.join(environment.get("HOME") or _home(), ".local")
    return tuple(sorted(glob.glob(os.path.join(glob.escape(base), "lib/python3*/site-packages"))))


def outside_of(root: str, users: Sequence[str], owners: Collection[int]) -> Outside:
    """Find what an environment loads from elsewhere; the folders that links lead to are not among it.

    Args:
        root: the environment, links resolved.
        users: the user site folders of the job.
        owners: a standard library that only these accounts can write is not measured.
    """
    result = Outside()
    settings = _settings(root, result)
    includes_others = any(
        name == "include-system-site-packages" and value.lower() == "true" for name, value in settings
    )
    sites = list(_folders(root, _SITES))
    for base in _bases(root, settings):
        own = list(_folders(base, _SITES))
        libraries = [path for path in _folders(base, ("lib*/python3*", "lib*/pypy*")) if path not in own]
        if includes_others:
            sites += own
        else:
            result.skipped.update(own)
        # What only root can write is the system's: jobs and their users cannot change it.
        if not all(is_written_by_only(path, owners) for path in libraries):
            result.paths += [*libraries, *_files(base, ("lib*/*.so*", "lib*/python*.zip", "bin/pybuilddir.txt"))]
    if includes_others or not settings:
        sites += users
    for site in dict.fromkeys(map(os.path.realpath, sites)):
        result.paths.append(site)
        _read_site(root, site, result)
    return result


def _settings(root: str, result: Outside) -> list[tuple[str, str]]:
    """Read the settings of a virtual environment; a name may be given twice."""
    settings = []
    for name in ("pyvenv.cfg", "bin/pyvenv.cfg"):
        path = os.path.join(root, name)
        if not os.path.lexists(path):
            continue
        text = _text(path, name, result)
        pairs = [line.partition("=") for line in text.splitlines() if "=" in line]
        settings += [(key.strip().lower(), value.strip()) for key, _, value in pairs]
    return settings


def _text(path: str, label: str, result: Outside, encoding: str = "utf-8") -> str:
    """Read a text file; one that cannot be read is empty, and noted as not measured."""
    try:
        return read_small(os.path.realpath(path), MAX_TEXT_BYTES).decode(encoding, "surrogateescape")
    except EvidenceError as problem:
        result.unmeasured[label] = problem.message
        return ""


def _bases(root: str, settings: list[tuple[str, str]]) -> list[str]:
    """List the installations whose standard library the environment borrows."""
    homes = [value for name, value in settings if name == "home" and os.path.isabs(value)]
    homes += [os.path.dirname(os.path.realpath(python)) for python in _files(root, ("bin/python*", "bin/pypy*"))]
    bases = {os.path.dirname(os.path.realpath(home)) for home in homes}
    return sorted(base for base in bases if base != root and not base.startswith(root + "/"))


def _read_site(root: str, site: str, result: Outside) -> None:
    """Read the path files of a site folder, as `site.addsitedir` does; hidden ones, too."""
    for name in sorted(os.listdir(site)):
        if not name.endswith(".pth"):
            continue
        path = os.path.join(site, name)
        label = printable_name(path.removeprefix(root + "/"))
        text = _text(path, label, result, "utf-8-sig")
        for line in dict.fromkeys((*re.split(r"\r\n|\r|\n", text), *text.splitlines())):
            if line.startswith(("import ", "import\t")):
                result.starting.setdefault(label, []).append(line.rstrip())
                _read_code(site, label, line.rstrip(), result)
            elif line.strip() and not line.startswith("#") and "\0" not in line:
                _add(os.path.join(site, line.rstrip()), result)


def _read_code(site: str, label: str, line: str, result: Outside) -> None:
    """Find the paths that a line of code in a path file adds, and those in the module that it imports."""
    paths = list(paths_in_code(line))
    for module in dict.fromkeys(_IMPORTED.findall(line)):
        for path in filter(os.path.isfile, _sources(site, module.split("."))):
            try:
                paths += paths_in_module(path)
            except EvidenceError as problem:
                result.unmeasured[label] = problem.message
    if not paths and _CHANGES_PATH.search(line) and line not in _BY_EASY_INSTALL:
        result.unmeasured[label] = "computes where code is loaded from"
    for path in paths:
        _add(path, result)


def _sources(site: str, parts: list[str]) -> Iterator[str]:
    """Yield the files that an import of a module runs."""
    for count in range(1, len(parts) + 1):
        path = os.path.join(site, *parts[:count])
        yield from (f"{path}.py", os.path.join(path, "__init__.py"))


def _add(path: str, result: Outside) -> None:
    """Add a file or folder; for a module that is named without its suffix, the files of that name."""
    path = os.path.abspath(path)
    if os.path.lexists(path):
        result.paths.append(path)
    else:
        result.paths += glob.glob(glob.escape(path) + ".*")


def _folders(base: str, patterns: tuple[str, ...]) -> Iterator[str]:
    for path in _matching(base, patterns):
        if os.path.isdir(path):
            yield os.path.realpath(path)


def _files(base: str, patterns: tuple[str, ...]) -> Iterator[str]:
    return (path for path in _matching(base, patterns) if os.path.isfile(path))


def _matching(base: str, patterns: tuple[str, ...]) -> Iterator[str]:
    for pattern in patterns:
        yield from sorted(glob.glob(os.path.join(glob.escape(base), pattern)))


def _home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"
