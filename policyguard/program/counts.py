"""The numbers of nodes, ranks and GPUs that a command line asks for. Pure: opens nothing.

Launchers are read by their own options, and well-known names such as `trainer.devices=8` wherever they appear. A number
that cannot be read is an error and never a smaller number: `0x10`, `6_4`, `$(nproc)`. What counts twice counts double:
the result may be larger than what starts, and never smaller.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from policyguard.program.grammar import Grammar, NotFollowed, read_options
from policyguard.program.launchers import COUNTING, LISTS, NAMES, PARALLEL, RANK_LAUNCHERS, VARIABLES
from policyguard.program.wrappers import MODULES, WRAPPERS
from policyguard.text import quoted

MAX_COUNT = 1_000_000
"""A larger number is an error of the writer, or an attempt to confuse the reader."""


class UnreadableCount(Exception):
    """A number of nodes, ranks or GPUs that cannot be read; the message says which."""


class Count(msgspec.Struct, frozen=True):
    """One number: `kind` is nodes, node or ranks (of each node), total, tasks, task (of each task), array or devices,
    or one of `PARALLEL`.

    `devices` means as many as a node has; its number is 0.
    """

    kind: str
    number: int
    source: str


_GRAMMARS: Mapping[str, Grammar] = {name: wrapper.options for name, wrapper in (*WRAPPERS.items(), *MODULES.items())}

_ASSIGNED = re.compile(r"(?<!\w)([A-Z][A-Z0-9_]+)=(\"[^\"]*\"|'[^']*'|[^\s;|&\"']*)", re.ASCII)
_NAMED = re.compile(
    r"(?<![\w])(" + "|".join(sorted(NAMES, key=len, reverse=True)).replace("_", "[_-]") + r")[\"']?\s*[=:]\s*"
    r"(\$\{[^{}\s]*\}|\[[^\]]*\]|\"[^\"]*\"|'[^']*'|[^\s,}\"';|&]*(?:,[^\s,}\"';|&:=]+(?=[\s,}\"';|&]|$))*)"
)
_DEFINED = re.compile(r"(?<![\w.-])(\w+)[\"']?\s*[:=]\s*[\"']?([0-9]{1,7})(?![\w.:])", re.ASCII)
_NO_NUMBER = re.compile(r"[A-Za-z\[{]|-\Z")
_COMMAND_START = re.compile(r"(?:\A|[\n;&|])[ \t]*\Z")
_NUMBER = re.compile(r"[0-9]{1,7}\Z")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([\w.]+)(?::?-([^${}]*))?\})\Z", re.ASCII)
_LISTED = re.compile(r"[0-9]{1,7}(?::[0-9]+)*\Z|(?:GPU|MIG)-[0-9A-Za-z/-]+\Z", re.ASCII)
_DEVICE = re.compile(r"[A-Za-z][\w:.-]*\Z", re.ASCII)
_GPU_TYPE = re.compile(r"[A-Za-z][\w.-]*\Z|[0-9]+g\.[0-9]+gb\Z", re.ASCII)
_EVERY_DEVICE = frozenset({"-1", "auto", "all", "gpu", "cuda", "xpu", "hpu", "mps", "npu"})
_NO_DEVICE = frozenset({"none", "null", "void", "false", "nodevfiles"})
_REPEATING = frozenset({"for", "while", "until", "xargs", "parallel", "seq"})


def tokens_of(texts: Sequence[str]) -> list[str]:
    """Split arguments that hold a command of their own, such as the text of `bash -c`; other arguments are one word."""
    tokens: list[str] = []
    for text in texts:
        tokens.append(text)
        if any(character.isspace() or character in ";|&" for character in text):
            tokens += _shell_tokens(text)
    return tokens


def _shell_tokens(text: str) -> list[str]:
    lexer = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    try:
        return list(lexer)
    except ValueError:
        return re.split(r"[\s;|&\"']+", text)


class Reader:
    """Reads the counts of one command line; `variables` replace `$NAME` in numbers."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables, self._settings = dict(variables), dict[str, int]()
        self.files: list[tuple[str, str, str]] = []
        """Files that hold more numbers: kind (hostfile or config), name, and the option."""

    def read(self, texts: Sequence[str]) -> list[Count]:
        """Read the arguments of a command, or the text of a script.

        Raises:
            UnreadableCount: a number cannot be read, or a launcher is started again and again.
        """
        tokens = tokens_of(texts)
        for word in tokens:
            name, equals, value = word.partition("=")
            if equals and name.isidentifier():
                self._variables[name] = value
        counts: list[Count] = []
        repeating, launches = False, 0
        for position, word in enumerate(tokens):
            name = os.path.basename(word.removeprefix("-m") or word)
            repeating = (repeating or name in _REPEATING) and name != "done"
            if name not in COUNTING or (position and tokens[position - 1] in ("--launcher", "--role")):
                continue
            if repeating:
                raise UnreadableCount(f"`{name}` is started again and again, expected a command that starts it once")
            launches += name in RANK_LAUNCHERS
            counts += self._launcher(name, tokens[position + 1 :])
        if launches > 1:
            counts.append(Count("array", launches, f"{launches} launchers"))
        counts += [count for text in texts for count in (*self.named(text), *self._assigned(text))]
        return [*counts, *self._options_by_name(tokens)]

    def environment(self, environment: Mapping[str, str]) -> Iterator[Count]:
        """Read the variables that schedulers and launchers set."""
        for name, value in environment.items():
            if kind := _kind_of_variable(name, value):
                yield from self._count(kind, value, name)

    def _assigned(self, text: str) -> Iterator[Count]:
        """Read `env WORLD_SIZE=512`, `--export=ALL,WORLD_SIZE=512`."""
        for match in _ASSIGNED.finditer(text):
            value = match[2].strip("\"'")
            if kind := _kind_of_variable(match[1], value):
                yield from self._count(kind, value, match[1])

    def define(self, text: str) -> None:
        """Read what `${trainer.gpus}` may refer to in settings; of several numbers under one name the largest."""
        for name, number in _DEFINED.findall(text):
            self._settings[name] = max(self._settings.get(name, 0), int(number))

    def named(self, text: str) -> Iterator[Count]:
        """Read `devices=8`, `trainer={devices:8}`, `"num_nodes": 4` in a text."""
        for match in _NAMED.finditer(text):
            name = match[1].replace("-", "_")
            if name == "nodes" and _is_another(match):
                continue
            yield from self._count(NAMES[name], match[2].rstrip(","), match[1])

    def _options_by_name(self, tokens: Sequence[str]) -> Iterator[Count]:
        """Read `--num-nodes 4` and `--gpus 0 1 2 3`."""
        for position, word in enumerate(tokens):
            name = word.lstrip("-").rpartition(".")[2].replace("-", "_")
            if not word.startswith("-") or name not in NAMES:
                continue
            values: list[str] = []
            for value in tokens[position + 1 :]:
                if values and not _NUMBER.match(value):
                    break
                values.append(value)
            if values and (not values[0].startswith("-") or values[0] == "-1"):
                yield from self._count(NAMES[name], values[0], word)
            if len(values) > 1:
                yield Count(NAMES[name], len(values), word)

    def _launcher(self, name: str, arguments: list[str]) -> Iterator[Count]:
        options = COUNTING[name]
        for option, value in _options(name, arguments, options):
            kind, source = options[option], f"{name} {option}"
            if kind in ("hostfile", "config"):
                self.files.append((kind, value, source))
            elif kind == "unknown":
                raise UnreadableCount(f"`{source} {value}` does not say how many in all, expected `--gpus`")
            elif kind == "hosts":
                slots = [host.partition(":")[2] or "1" for host in value.split(",")]
                yield Count("nodes", len(slots), source)
                yield Count("total", sum(self._number(slot, source) for slot in slots), source)
            else:
                yield from self._count(kind, value, source)

    def _count(self, kind: str, text: str, source: str) -> Iterator[Count]:
        value = self._replaced(text.strip().strip("\"'"), source)
        if source in LISTS:
            yield from self._list(kind, value, source)
        elif kind in PARALLEL and value.lower() in _EVERY_DEVICE | _NO_DEVICE:
            # As many as the others leave over.
            return
        elif kind == "nodes":
            # MIN:MAX of torchrun, MIN-MAX of Slurm.
            numbers = [self._number(part, source) for part in re.split("[:-]", value, maxsplit=1)]
            yield Count(kind, max(numbers), f"{source} {value}")
        elif kind == "array":
            yield Count(kind, self._array(value, source), f"{source} {value}")
        elif "gres" in source or "tres" in source or source.endswith("--map-by"):
            yield from self._resources(kind, value, source)
        elif value.lower() in _EVERY_DEVICE:
            yield Count("devices", 0, f"{source} {value}")
        elif value.lower() == "cpu":
            yield Count("node", os.cpu_count() or 1, f"{source} {value}")
        else:
            yield Count(kind, self.devices(value, source), f"{source} {value}")

    def _list(self, kind: str, value: str, source: str) -> Iterator[Count]:
        """Count the devices that a variable names: `0,1`, `0-3`, `GPU-8932f937,GPU-46d9`, `MIG-...`."""
        if value == "all":
            yield Count("devices", 0, f"{source} all")
            return
        total = 0
        for part in value.split(","):
            first, dash, last = part.strip().partition("-")
            if _NUMBER.match(first) and dash:
                total += max(0, self._number(last, source) - int(first)) + 1
            elif _LISTED.match(part.strip()):
                total += 1
            elif part.strip() and part.strip() != "-1" and part.strip().lower() not in _NO_DEVICE:
                raise UnreadableCount(_unreadable(source, value))
        yield Count(kind, total, f"{source}={value}")

    def devices(self, value: str, source: str) -> int:
        """Count `8`, `a100:8`, `volta:3,kepler:5`, `0,1,2`, `[0,1]` or `cuda:0,cuda:1`.

        Args:
            value: the value.
            source: what has it, for the message.

        Raises:
            UnreadableCount: it cannot be read.
        """
        inner = value.removeprefix("device=").strip("[]()\"' ")
        parts = [part.strip(" \"'") for part in inner.split(",") if part.strip()]
        if not parts or value.lower() in _NO_DEVICE:
            return 0
        typed = [part.rpartition(":") for part in parts]
        if all(colon and not type_.startswith("cuda") and _DEVICE.match(type_) for type_, colon, _ in typed):
            return sum(self._number(number, source) for _, _, number in typed)
        if len(parts) == 1 and not value.startswith("[") and not _DEVICE.match(parts[0]):
            return self._number(parts[0], source)
        for part in parts:
            if not _NUMBER.match(part) and not _DEVICE.match(part):
                raise UnreadableCount(_unreadable(source, value))
        return len(parts)

    def _resources(self, kind: str, value: str, source: str) -> Iterator[Count]:
        """Read `gpu:a100:8`, `gres/gpu:2,cpu=4`, `ppr:8:node`; resources that are no GPUs are left out."""
        for part in value.split(","):
            fields = re.split("[:=/]", part.partition("(")[0].removeprefix("gres:").removeprefix("gres/"))
            if fields[0] == "ppr" and len(fields) > 1:
                yield Count(kind, self._number(fields[1], source), f"{source} {value}")
            elif fields[0] == "gpu":
                is_type = len(fields) == 1 or (len(fields) == 2 and _GPU_TYPE.match(fields[1]))
                yield Count(kind, 1 if is_type else self._number(fields[-1], source), f"{source} {value}")
            elif "$" in part or "`" in part:
                raise UnreadableCount(_unreadable(source, value))

    def _array(self, value: str, source: str) -> int:
        """Count the tasks of `0-63%4`, `1,3,5` or `0-15:4`."""
        total = 0
        for part in value.partition("%")[0].split(","):
            range_, _, step = part.partition(":")
            first, dash, last = range_.partition("-")
            numbers = [self._number(text, source) for text in (first, last if dash else first, step or "1")]
            total += max(0, numbers[1] - numbers[0]) // max(1, numbers[2]) + 1
        return total

    def _replaced(self, value: str, source: str) -> str:
        match = _VARIABLE.match(value)
        if match is None:
            return value
        name, default = match[1] or match[2], match[3]
        text = self._variables.get(name) or default
        if (number := self._settings.get(name.rpartition(".")[2])) is not None and (not text or _NUMBER.match(text)):
            return str(max(number, int(text or 0)))
        if text is None or "$" in text:
            raise UnreadableCount(_unreadable(source, value))
        return text

    def _number(self, text: str, source: str) -> int:
        return number_of(self._replaced(text, source), source)


def number_of(text: str, source: str) -> int:
    """Read a whole number in decimal digits.

    Args:
        text: the digits.
        source: what has it, for the message.

    Raises:
        UnreadableCount: it is none, or larger than `MAX_COUNT`.
    """
    if not _NUMBER.match(text) or int(text) > MAX_COUNT:
        raise UnreadableCount(_unreadable(source, text))
    return int(text)


def _kind_of_variable(name: str, value: str) -> str:
    """Name the kind that a variable counts; empty if none. `NUM_NODES=64` is a user's own: only a number counts."""
    own = NAMES.get(name.lower(), "") if name.isupper() and value[:1].isdigit() else ""
    return (VARIABLES.get(name) or own) if value else ""


def _is_another(match: re.Match[str]) -> bool:
    """Return True where `nodes` names another thing: a list, a map or a text, or a variable of a shell script."""
    before = match.string[max(0, match.start() - 80) : match.start()]
    if before.endswith("-"):
        return False
    value = match[2].strip("\"'")
    is_variable = value.startswith(("$(", "`")) and _COMMAND_START.search(before)
    return bool(_NO_NUMBER.match(value) or is_variable)


def _unreadable(source: str, value: str) -> str:
    return f"`{source}`: found {quoted(value)}, expected a whole number such as 8, at most {MAX_COUNT}"


def _options(name: str, arguments: list[str], options: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the options that count. By the grammar of the program, or, where that fails, all that resemble one."""
    grammar = _GRAMMARS.get(name)
    skipped = 1 if name in WRAPPERS and WRAPPERS[name].subcommand else 0
    if grammar is not None:
        try:
            read = read_options(arguments[skipped:], grammar).read
        except NotFollowed:
            pass
        else:
            yield from ((option, value) for option, value in read if option in options)
            return
    for position, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        following = arguments[position + 1 : position + 2]
        if word.startswith("--"):
            written = option.replace("_", "-")
            names = [known for known in options if known == option or (known.startswith(written) and len(written) > 3)]
        else:
            names = [known for known in options if known == option]
            if not names and not equals:
                # `-N8`, `-n512`
                names = [
                    known for known in options if len(known) == 2 and word.startswith(known) and word[2:3].isdigit()
                ]
                following = [word[2:]]
        for known in names:
            if equals or following:
                yield known, value if equals else following[0]
