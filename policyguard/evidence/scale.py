"""The number of GPUs that a job asks for, measured: the largest that the command, its variables or the job file say.

Neither the job file nor the command can make the number smaller. What starts in the end may still be less than this
number, and a program may start more by itself: the watch measures again (`hooks/watch/`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence

from policyguard.errors import ConfigurationError, EvidenceError
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.evidence.job import resolve_executable
from policyguard.evidence.named_paths import hub_home, named_settings
from policyguard.evidence.settings_texts import SCRIPT_SUFFIXES, SETTINGS_SUFFIXES
from policyguard.fs.safe_open import names_in, read_small, read_start
from policyguard.model.facts import Assurance, Fact
from policyguard.model.request import Request
from policyguard.program.counts import Count, Reader, UnreadableCount, number_of, tokens_of
from policyguard.program.interpreters import SHELL
from policyguard.program.launchers import PARALLEL
from policyguard.text import printable, printable_name
from policyguard.values import Instant, Value

GPUS = "resource.gpus"

MAX_FILE_BYTES = 16 << 20
"""Scripts and settings are shorter; a longer JSON file is data."""

MAX_SCRIPTS = 64

MAX_NUMBERED = 5_000
"""A JSON file with more numbers is a vocabulary, unless an argument names it: `devices` is a word of many."""

MAX_SOURCE_CHARS = 160

_SHELL_SCRIPT, _SETTINGS = (
    re.compile(f".(?:{'|'.join(map(re.escape, suffixes))})\\Z") for suffixes in (SCRIPT_SUFFIXES, SETTINGS_SUFFIXES)
)
_ESCAPED = re.compile(r"\\(?:u00|x)([2-7][0-9A-Fa-f])")
_NUMBERED = re.compile(r"\"\s*:\s*[0-9]+\s*[,}]")
_DEVICE_FILE = re.compile(r"nvidia[0-9]+\Z")


class ScaleCollector:
    """Supplies `resource.gpus`: the largest number that the request, the command and the environment say."""

    name = "scale"
    measures_contributors = False
    declares = (GPUS,)

    def __init__(self, devices: str = "/dev") -> None:
        self._devices = devices

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:
        """Measure; missing if a number cannot be read, or if nothing says a number.

        Raises:
            EvidenceError: a number cannot be read.
        """
        try:
            number, source = self._measure(request, inputs)
        except UnreadableCount as problem:
            # INVARIANT I2: a number that cannot be read is no number, so that a claim of a smaller one does not count.
            raise EvidenceError(str(problem), help="write the number of GPUs as digits, or leave it out") from problem
        fact = Fact(number, Assurance.MEASURED, f"{self.name}: {source}", now, bound=True)
        return Collected(entries={GPUS: fact})

    def _measure(self, request: Request, inputs: JobInputs) -> tuple[int, str]:
        reader = Reader(inputs.environment)
        counts = [
            *reader.read(inputs.argv),
            *_of_files(inputs, reader),
            *reader.environment(inputs.environment),
            *_claimed(request.resource.properties),
        ]
        if not counts:
            raise EvidenceError("neither the job file nor the command says how many, expected `properties: {gpus: 1}`")
        return combined([self._counted(count, counts) for count in counts])

    def _counted(self, count: Count, counts: Sequence[Count]) -> Count:
        """Replace `as many as a node has` by that number: of the variables that list devices, else of this machine."""
        if count.kind != "devices":
            return count
        listed = [other.number for other in counts if "VISIBLE_DEVICES=" in other.source]
        number = max(listed) if listed else sum(1 for name in names_in(self._devices) if _DEVICE_FILE.match(name))
        if not number and not count.source.startswith("NVIDIA_VISIBLE_DEVICES"):
            raise UnreadableCount(f"`{count.source}`: this machine has no GPUs to count, expected a whole number")
        return Count("node", number, f"{count.source} = {number}")


def combined(counts: Sequence[Count]) -> tuple[int, str]:
    """Return the largest number of GPUs that these counts can mean together, and where it comes from."""
    kinds = ("total", "nodes", "node", "ranks", "tasks", "task", "array", "claim", *PARALLEL)
    best = {kind: _largest(counts, kind) for kind in kinds}
    one = Count("one", 1, "")
    nodes, tasks, ranks = best["nodes"], best["tasks"], best["ranks"]
    if nodes is None and tasks is not None:
        # Each task may be on a node of its own, unless the command says how many share one.
        nodes = Count("nodes", -(-tasks.number // max(1, (ranks or one).number)), tasks.source)
    products: list[tuple[Count, ...]] = [
        (best["total"] or one,),
        tuple(best[kind] or one for kind in PARALLEL),
        (tasks or one, best["task"] or one),
        (nodes or one, best["node"] or one),
        (nodes or one, ranks or one),
    ]
    chosen = max((p for p in products if any(c is not one for c in p)), key=_product, default=(one,))
    factors = (*chosen, best["array"] or one)
    if best["claim"] is not None and best["claim"].number >= (_product(factors) if chosen != (one,) else 0):
        factors = (best["claim"],)
    text = " x ".join(dict.fromkeys(count.source for count in factors if count is not one))
    return _product(factors), printable(text, MAX_SOURCE_CHARS)


def _largest(counts: Sequence[Count], kind: str) -> Count | None:
    return max((count for count in counts if count.kind == kind), key=lambda count: count.number, default=None)


def _product(factors: Sequence[Count]) -> int:
    result = 1
    for count in factors:
        result *= count.number
    return result


def _claimed(properties: Mapping[str, Value]) -> Iterator[Count]:
    for name, kind in (("gpus", "claim"), ("nodes", "nodes")):
        if name in properties:
            value = properties[name]
            # `bool` is an integer of Python.
            yield Count(kind, number_of(str(value) if type(value) is int else "", f"{name} of the request"), "request")


def _of_files(inputs: JobInputs, reader: Reader) -> Iterator[Count]:
    """Read the scripts, settings and host files that the command names."""
    tokens = tokens_of(inputs.argv[1:])
    yield from _of_scripts([_executable(inputs), *tokens], inputs, reader, set())
    yield from _of_settings([part for word in tokens for part in (word, word.partition("=")[2])], inputs, reader)
    for kind, name, source in (*reader.files, *_default_files(tokens, inputs)):
        text = _text(inputs, name)
        if text is None:
            raise UnreadableCount(f"`{source} {printable_name(name)}` cannot be read, expected a text file")
        if kind == "config":
            yield from reader.named(text)
        else:
            yield from _hosts(text, source)


def _of_settings(names: Sequence[str], inputs: JobInputs, reader: Reader) -> Iterator[Count]:
    """Read the settings of these names, and all that the search for checkpoints reads as well: Hydra's, includes."""
    paths = [os.path.normpath(os.path.join(inputs.directory, name)) for name in names if _SETTINGS.search(name)]
    texts = []
    for path in dict.fromkeys((*paths, *named_settings(inputs))):
        text = _text(inputs, path) if _SETTINGS.search(path) else None
        if text and (path in paths or not (path.endswith(".json") and len(_NUMBERED.findall(text)) > MAX_NUMBERED)):
            # `"num_node\u0073"` is a name as well.
            texts.append(_ESCAPED.sub(lambda match: chr(int(match[1], 16)), text))
    for text in texts:
        reader.define(text)
    for text in texts:
        yield from reader.named(text)
    for name in names:
        if name.startswith("@") and (text := _text(inputs, name[1:])):
            yield from reader.read(text.split())


def _of_scripts(tokens: Sequence[str], inputs: JobInputs, reader: Reader, seen: set[str]) -> Iterator[Count]:
    """Read the shell scripts among these tokens, and those that they name."""
    for position, name in enumerate(tokens):
        before = tokens[position - 1 : position]
        if name in seen or not (_SHELL_SCRIPT.search(name) or _is_script(inputs, name, before)):
            continue
        seen.add(name)
        if len(seen) > MAX_SCRIPTS:
            raise UnreadableCount(f"more than {MAX_SCRIPTS} shell scripts start each other")
        if text := _text(inputs, name):
            text = re.sub(r"(?m)^#(?:SBATCH|FLUX:)\s", "sbatch ", text)
            yield from reader.read((text,))
            yield from _of_scripts(tokens_of((text,))[1:], inputs, reader, seen)


def _is_script(inputs: JobInputs, name: str, before: Sequence[str]) -> bool:
    """Return True for a file that a shell is started with, or whose first line names a shell."""
    path = os.path.join(inputs.directory, name)
    if not name or name.startswith("-") or "\0" in name or not os.path.isfile(path):
        return False
    if before and SHELL.match(os.path.basename(before[0])):
        return True
    try:
        start = read_start(path, 64)
    except ConfigurationError:
        return False
    line = start.partition(b"\n")[0].split()
    return start.startswith(b"#!") and bool(SHELL.match(os.path.basename(os.fsdecode(line[-1]))))


def _executable(inputs: JobInputs) -> str:
    try:
        return resolve_executable(inputs.argv, inputs.directory, inputs.environment)
    except EvidenceError:
        return ""


def _default_files(tokens: Sequence[str], inputs: JobInputs) -> Iterator[tuple[str, str, str]]:
    """List the files that launchers read by themselves, if they exist."""
    names = {os.path.basename(word) for word in tokens} | {os.path.basename(inputs.argv[0]) if inputs.argv else ""}
    if "accelerate" in names or "accelerate-launch" in names or "accelerate.commands.launch" in names:
        for suffix in ("yaml", "yml", "json"):
            path = os.path.join(inputs.directory, hub_home(inputs), "accelerate", f"default_config.{suffix}")
            if os.path.exists(path):
                yield "config", path, "accelerate"
    if "deepspeed" in names and os.path.exists("/job/hostfile"):
        yield "hostfile", "/job/hostfile", "deepspeed"


def _hosts(text: str, source: str) -> Iterator[Count]:
    """Read lines such as `worker-1 slots=8`, `worker-1:8` or `worker-1`."""
    total, hosts = 0, 0
    for line in text.splitlines():
        tokens = line.partition("#")[0].split()
        if tokens:
            hosts += 1
            slots = [
                word.partition("=")[2] for word in tokens[1:] if word.startswith(("slots=", "max_slots=", "max-slots="))
            ]
            slots += [tokens[0].partition(":")[2]] if ":" in tokens[0] else []
            total += max((number_of(slot, source) for slot in slots), default=1)
    yield Count("total", total, source)
    yield Count("nodes", hosts, source)


def _text(inputs: JobInputs, name: str) -> str | None:
    """Read a small text file that the command names; None if there is none of this name."""
    path = os.path.join(inputs.directory, name)
    if "\0" in name or not os.path.isfile(path):
        return None
    try:
        if name.endswith(".json") and os.path.getsize(path) > MAX_FILE_BYTES:
            return None
        return read_small(os.path.realpath(path), MAX_FILE_BYTES).decode("utf-8", "replace")
    except (EvidenceError, OSError) as problem:
        raise UnreadableCount(f"`{printable_name(name)}` may hold a number of GPUs: {problem}") from problem
