"""The paths that a command can load: those in its arguments, its variables, and the files of settings that these name.

A text is tried as a path: as it is, the part after `=`, and its parts between quotes, commas and white space; `~`,
`$NAME`, `file://`, `@` and patterns are replaced. Nothing is loaded here, and the work is bounded.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pwd import getpwnam
from urllib.parse import unquote

import msgspec

from policyguard.confinement.profile import SYSTEM_PLACES
from policyguard.errors import EvidenceError
from policyguard.evidence.collector import GUARD_VARIABLES, JobInputs
from policyguard.evidence.settings_texts import SCRIPT_SUFFIXES, is_settings, texts_of
from policyguard.fs.ownership import is_below
from policyguard.fs.safe_open import names_in
from policyguard.program.counts import tokens_of

MAX_FILES_READ = 256
"""The maximum number of settings files that a command may name, those that they include counted."""

MAX_TEXTS = 200_000
MAX_MATCHES = 1_000
MAX_TEXT_CHARS = 4_096
MAX_DEPTH = 5

_PIECES = re.compile(r"[\s,;=|&<>()\[\]{}\"'`]+")
_VARIABLE = re.compile(r"\$\{([^${}]*)\}|\$(\w+)")
_HUB_NAME = re.compile(r"[\w.-]{1,96}(?:/[\w.-]{1,96})?\Z", re.ASCII)
_GLOB = re.compile(r"[*?\[]")
_SETTINGS_FOLDERS = ("conf", "config", "configs")

_LOADED = re.compile(
    "CKPT|CHECKPOINT|MODEL|WEIGHT|RESUME|PRETRAIN|INIT|LOAD|RESTORE|SNAPSHOT|ADAPTER|LORA|TOKENIZER|VOCAB|EMBED|OPTIM"
)
"""Names of variables whose folder is searched. Others name places, such as HOME, PYENV_ROOT or HF_HOME."""

_SETTINGS = re.compile("CONF|CFG|ARG|PARAM|SETTING|RECIPE|YAML|JSON|TOML|HYDRA")
"""Names of variables whose text file is read, whatever its name; others only if the file is named like settings."""


class NamedPath(msgspec.Struct, frozen=True):
    """A path that exists. Without `is_argument` a text may name it, and what is no checkpoint is ignored."""

    path: str
    is_argument: bool


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """What a command names: paths; `unread` are files of settings that are too large or cannot be read."""

    paths: tuple[NamedPath, ...]
    unread: tuple[str, ...]


def named_paths(inputs: JobInputs) -> Named:
    """List the paths that the command, its variables and its settings name.

    Raises:
        EvidenceError: they name too many.
    """
    search = _searched(inputs)
    return Named(
        paths=tuple(NamedPath(path, is_argument) for path, is_argument in search.paths.items()),
        unread=tuple(search.unread),
    )


def named_settings(inputs: JobInputs) -> tuple[str, ...]:
    """List the files of settings that a command names, and those that they include.

    Raises:
        EvidenceError: they are too many.
    """
    return tuple(_searched(inputs).settings)


def _searched(inputs: JobInputs) -> _Search:
    search = _Search(inputs)
    search.arguments()
    search.chosen(tokens_of(inputs.argv[1:]))
    search.variables()
    search.included()
    return search


class _Search:
    def __init__(self, inputs: JobInputs) -> None:
        self._inputs, self._environment = inputs, inputs.environment
        self._directory = os.path.abspath(inputs.directory)
        self.paths: dict[str, bool] = {}
        self.settings: dict[str, int] = {}
        """Files of settings, and through how many others each was reached."""
        self.unread: dict[str, None] = {}
        self._tried: set[tuple[str, str]] = set()
        self._code: str | None = None
        self._by_name_only = False
        self._hub = _hub_folder(inputs)

    def arguments(self) -> None:
        """Try each argument, the part after its `=`, and its parts; the files of the job file, too."""
        for argument in (*self._inputs.files, *self._inputs.argv[1:]):
            for whole in (argument, argument.partition("=")[2]):
                # What is written as one argument is a path in its own right; what is inside may be one.
                self._try(whole, self._inputs.directory, is_argument=True)
            for piece in _pieces(argument):
                self._try(piece, self._inputs.directory)

    def variables(self) -> None:
        """Try the values of the job's variables; a folder only where its name says that it is loaded (`_LOADED`)."""
        for name, value in self._environment.items():
            if name.startswith(GUARD_VARIABLES):
                continue
            is_loaded = _LOADED.search(name.upper()) is not None
            self._by_name_only = not (is_loaded or _SETTINGS.search(name.upper()))
            texts = (value, *value.split(os.pathsep)) if os.pathsep in value and name != "PATH" else (value,)
            for text in texts:
                if is_loaded or "$" in text or "~" in text or _is_file(self._inputs.directory, text):
                    self._try(text, self._inputs.directory)
        self._by_name_only = False

    def included(self) -> None:
        """Read the files of settings for paths, and those that they include."""
        pending = list(self.settings)
        while pending:
            file = pending.pop(0)
            depth, before = self.settings[file], len(self.settings)
            folder = os.path.dirname(file)
            texts = texts_of(file)
            if texts is None:
                self.unread[file] = None
            if texts and file.endswith(SCRIPT_SUFFIXES):
                for _, line in texts:
                    self.chosen(tokens_of((line,)))
            for key, text in texts or ():
                if len(self._tried) > MAX_TEXTS:
                    raise EvidenceError(f"the settings name more than {MAX_TEXTS} texts that may be paths")
                for piece in _pieces(text):
                    for base in dict.fromkeys((self._inputs.directory, folder)):
                        self._try(piece, base, depth=depth + 1)
                    for group in (piece, f"{key}/{piece}"):
                        self._try_settings(os.path.join(folder, f"{group}.yaml"), depth + 1)
            pending += list(self.settings)[before:]

    def _try(self, text: str, base: str, *, is_argument: bool = False, depth: int = 0) -> None:
        """Add what this text names, if it exists."""
        if not text or len(text) > MAX_TEXT_CHARS or "\0" in text:
            return
        key = (text, base)
        if key in self._tried and not is_argument:
            return
        self._tried.add(key)
        for name in self._replaced(text):
            path = os.path.normpath(os.path.join(base, name))
            if os.path.lexists(path) and (is_argument or self._may_count(path)):
                self._add(path, is_argument, depth)
        if self._hub and _HUB_NAME.match(text):
            folder = os.path.join(self._hub, "models--" + text.replace("/", "--"), "snapshots")
            for snapshot in names_in(folder):
                self._add(os.path.join(folder, snapshot), False, depth)

    def _add(self, path: str, is_argument: bool, depth: int) -> None:
        if os.path.isfile(path) and self._is_settings(path):
            self._try_settings(path, depth)
        self.paths[path] = is_argument or self.paths.get(path, False)

    def _is_settings(self, path: str) -> bool:
        if path.endswith(".py"):
            # The program itself is code, which other facts measure; a second one may be settings.
            self._code = self._code or path
            return path != self._code
        return is_settings(path, by_name_only=self._by_name_only)

    def _try_settings(self, path: str, depth: int) -> None:
        if path in self.settings or depth > MAX_DEPTH or not os.path.isfile(path):
            return
        if len(self.settings) >= MAX_FILES_READ:
            raise EvidenceError(f"the command names more than {MAX_FILES_READ} files of settings")
        self.settings[path] = depth

    def chosen(self, argv: Sequence[str]) -> None:
        """Add the settings that Hydra finds for `model=big`, `--config-name exp` and `--config-path conf`."""
        pairs = [
            (name.lstrip("+~").partition("@")[0], value)
            for name, equals, value in (word.partition("=") for word in argv)
            if equals
        ]
        pairs += [(name, value) for name, value in pairwise(argv) if name.startswith("-")]
        overrides = [(name, value) for name, value in pairs if name and not name.startswith("-")]
        names = [value for name, value in pairs if name in ("--config-name", "-cn")]
        if not overrides and not names:
            return
        script = next((os.path.dirname(word) for word in argv if word.endswith(".py")), "")
        above = dict.fromkeys(os.path.join(self._inputs.directory, folder) for folder in (script, ""))
        folders = [value for name, value in pairs if name in ("--config-path", "-cp", "--config-dir", "-cd")]
        for folder in [os.path.join(base, folder) for base in above for folder in (*folders, *_SETTINGS_FOLDERS)]:
            if os.path.isdir(folder):
                groups = [f"{name}/{part}" for name, value in overrides for part in _pieces(value)]
                for chosen in ("config", *names, *groups):
                    self._try_settings(os.path.join(folder, chosen), 0)
                    self._try_settings(os.path.join(folder, f"{chosen}.yaml"), 0)

    def _replaced(self, text: str) -> Iterator[str]:
        """Yield the texts that this one may become: without prefixes, with home folder, variables and patterns."""
        yield text
        name = text.lstrip("@") if text.startswith("@") else text
        if name.startswith("file:"):
            name = unquote(re.sub(r"\Afile:(?://(?:localhost)?(?=/))?", "", name))
        if name.startswith(("http://", "https://")):
            name = os.path.join(self._torch_home(), "hub", "checkpoints", name.rpartition("/")[2].partition("?")[0])
        if "$" in name:
            name = _VARIABLE.sub(self._variable, name)
        if name.startswith("~"):
            name = self._home(name)
        if name != text:
            yield name
        if _GLOB.search(name) and name.strip("*/."):
            yield from islice(glob.iglob(os.path.join(self._inputs.directory, name)), MAX_MATCHES + 1)

    def _variable(self, match: re.Match[str]) -> str:
        name, _, default = (match[1] or match[2]).partition(":-")
        name = name.removeprefix("oc.env:").removeprefix("env:")
        name, _, other = name.partition(",")
        value = self._environment.get(name, default or other.strip())
        # What cannot be known may be anything.
        return value or "*"

    def _home(self, name: str) -> str:
        user, slash, rest = name[1:].partition("/")
        try:
            home = self._environment.get("HOME", "") if not user else getpwnam(user).pw_dir
        except KeyError:
            return name
        return home + slash + rest if home else name

    def _torch_home(self) -> str:
        return self._environment.get("TORCH_HOME") or os.path.join(_cache(self._inputs), "torch")

    def _may_count(self, path: str) -> bool:
        """Return False for folders that hold the job itself, or the system: they are places, not something to load."""
        return not (is_below(self._directory, path) or any(is_below(path, folder) for folder in SYSTEM_PLACES))


def _is_file(base: str, text: str) -> bool:
    return os.path.isfile(os.path.join(base, text.replace("\0", "").removeprefix("file://")))


def _pieces(text: str) -> dict[str, None]:
    """Split a text into what may be names in it, the text itself included."""
    pieces = {text: None, text.partition("=")[2]: None}
    if _PIECES.search(text) or ":" in text:
        if any(quote in text for quote in "\"'\\"):
            try:
                parts_of_shell = shlex.split(text)
            except ValueError:
                parts_of_shell = []
            pieces |= {part: None for word in parts_of_shell for part in (word, word.partition("=")[2])}
        parts = [part for part in _PIECES.split(text) if part]
        pieces |= dict.fromkeys(parts)
        pieces |= {piece: None for part in parts if ":" in part and "://" not in part for piece in part.split(":")}
        pieces |= {part.strip(): None for part in text.split(",")}
    pieces.pop("", None)
    return pieces


def _cache(inputs: JobInputs) -> str:
    home = inputs.environment.get("HOME", "/nonexistent")
    return inputs.environment.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")


def hub_home(inputs: JobInputs) -> str:
    """Return the folder of the hub's libraries, as they find it by the variables of a job."""
    return inputs.environment.get("HF_HOME") or os.path.join(_cache(inputs), "huggingface")


def _hub_folder(inputs: JobInputs) -> str:
    """Return the folder in which the hub's library keeps models; empty if there is none."""
    folder = inputs.environment.get("HF_HUB_CACHE") or inputs.environment.get("HUGGINGFACE_HUB_CACHE")
    folder = os.path.join(inputs.directory, folder or os.path.join(hub_home(inputs), "hub"))
    return folder if os.path.isdir(folder) else ""
