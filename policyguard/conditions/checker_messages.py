"""Translate the checker's error report: code-point offsets, our wording and lint codes, and suggestions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from policyguard.conditions.entities import Members
from policyguard.conditions.problems import ConditionError
from policyguard.conditions.profile import ENTITIES, FUNCTION_NAMES, MACROS, VARIABLES
from policyguard.model.policy import Attribute, Schema
from policyguard.text import quoted_list

_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*?)(?=\n \||\nERROR: <input>|\Z)", re.DOTALL)
_FIELD = re.compile(r"undefined field '(?P<name>.*)' not found in struct 'policyguard\.(?P<kind>.*)'")
_NAME = re.compile(r"undeclared reference to '(?P<name>.*)' \(in container ''\)")
_OVERLOAD = re.compile(r"found no matching overload for '(?P<name>.*)' applied to '(?P<types>.*)'")
_UNEXPECTED = re.compile(
    r"(?:mismatched input|extraneous input|no viable alternative at input|token recognition error at:) ?"
    r"'(?P<unexpected>.*?)'(?: expecting|$)",
    re.DOTALL,
)
_RANGE = re.compile(r"expression of type '(?P<type>.*)' cannot be the range of a comprehension.*", re.DOTALL)
_MISSING = re.compile(r"missing '(?P<missing>.*?)' at '(?P<unexpected>.*)'", re.DOTALL)

_TYPE_NAMES = {
    "int": "an integer",
    "uint": "an unsigned integer",
    "double": "a floating-point number",
    "string": "text",
    "bool": "a bool",
    "bytes": "bytes",
    "null_type": "null",
    "null": "null",
    "dyn": "any value",
    "type": "a type",
    "google.protobuf.Timestamp": "a timestamp",
    "google.protobuf.Duration": "a duration",
    "timestamp": "a timestamp",
    "duration": "a duration",
}
_OPERATORS = {"_[_]": "[]", "_?_:_": "?:", "@in": "in", "!_": "!", "-_": "-"}
_SIGNATURES = {
    "glob": "(text, text)",
    "under": "(text, text)",
    "ip.in": "(text, text)",
    "matches": "(text, text)",
    "timestamp": "(text)",
    "duration": "(text)",
}


@dataclass(frozen=True, slots=True)
class Names:
    """The names that a condition may use."""

    schema: Schema
    members: Members

    def attributes(self, kind: str) -> Mapping[str, Attribute]:
        return self.members.get(kind, {})

    def describe(self, kind: str) -> str:
        """Describe a type for a message: "an integer", "a list of text", "a `checkpoint_ref`"."""
        kind = kind.strip()
        if kind in _TYPE_NAMES:
            return _TYPE_NAMES[kind]
        if kind.startswith("list("):
            return f"a list of {self.describe(kind[5:-1]).removeprefix('a ').removeprefix('an ')}"
        if kind.startswith("map("):
            return "a map"
        name = kind.removeprefix("policyguard.")
        return f"`{name.partition('_')[0]}`" if name.partition("_")[0] in ENTITIES else f"a `{_bare(name)}`"


def _bare(name: str) -> str:
    return name.removeprefix("record_")


def translate_report(text: str, report: str, names: Names) -> list[ConditionError]:
    """Translate a checker's report; the result is never empty and never contains the checker's wording.

    Args:
        text: the condition.
        report: the message of the checker's exception.
        names: the names that the condition may use, for suggestions.
    """
    starts = _line_starts(text)
    errors: list[ConditionError] = []
    for line, column, message in _ERROR.findall(report):
        offset = min(starts[min(int(line), len(starts)) - 1] + int(column) - 1, len(text))
        error = _translated(text, offset, message.replace("ip.iN", "ip.in"), names)
        if error is not None:
            errors.append(error)
    syntax = [error for error in errors if error.code == "PG117"]
    macros = [error for error in errors if error.code == "PG110"]
    errors = syntax[:1] or macros or errors
    return list(dict.fromkeys(errors)) or [_unreadable(report)]


def _unreadable(report: str) -> ConditionError:
    if "recursion" in report or "limit" in report or "depth" in report:
        return ConditionError(0, "the condition is nested too deeply", code="PG010")
    return ConditionError(0, "the condition cannot be checked", code="PG117")


def _line_starts(text: str) -> list[int]:
    return [0, *(match.end() for match in re.finditer("\n", text))]


def _translated(text: str, offset: int, message: str, names: Names) -> ConditionError | None:
    for pattern, translate in _TRANSLATIONS:
        match = pattern.fullmatch(message)
        if match is not None:
            return translate(text, offset, match, names)
    return _syntax(text, offset, message)


def _field(text: str, offset: int, match: re.Match[str], names: Names) -> ConditionError:
    name, kind = match["name"], match["kind"]
    entity = kind.partition("_")[0]
    known = names.attributes(entity if entity in ENTITIES else _bare(kind))
    where = text.find(name, offset)
    attribute = f"`{entity}.{name}`" if entity in ENTITIES else f"`{name}` of `{_bare(kind)}`"
    return ConditionError(
        where if where >= 0 else offset,
        f"unknown attribute {attribute}, expected {_one_of(known)}",
        _meant(name, known),
        "PG103",
    )


def _name(text: str, offset: int, match: re.Match[str], names: Names) -> ConditionError | None:
    name = match["name"]
    if text[offset : offset + 1] == "(":
        return _function(text, offset, name)
    start = offset
    while start and (text[start - 1].isalnum() or text[start - 1] in "_."):
        start -= 1
    root = name.partition(".")[0]
    known = {attribute: entity for entity in sorted(ENTITIES) for attribute in names.attributes(entity)}
    help_text = f"did you mean `{known[root]}.{root}`?" if root in known else _meant(root, VARIABLES)
    if root == "cel" or name in MACROS:
        return None
    if root == "ip" and text.startswith("ip.in(", start):
        message = f"`ip.in` does not take this number of arguments, expected {_SIGNATURES['ip.in']}"
        return ConditionError(start, message, None, "PG110")
    if root == "ip":
        return ConditionError(start, "unknown function of `ip`, expected `ip.in`", None, "PG109")
    return ConditionError(start, f"unknown name `{root}`, expected {_one_of(VARIABLES)}", help_text, "PG103")


def _function(text: str, offset: int, name: str) -> ConditionError | None:
    start = _start_of_call(text, offset, name)
    if text[:start].endswith("ip.") or (name in ("iN", "i_") and not text.startswith(name, start)):
        return None  # What is wrong with `ip.in` is said of `ip`.
    if name in MACROS:
        return ConditionError(start, f"`{name}` takes a variable and a condition on it", code="PG110")
    if name in FUNCTION_NAMES:
        expected = f", expected {_SIGNATURES[name]}" if name in _SIGNATURES else ""
        return ConditionError(start, f"`{name}` does not take this number of arguments{expected}", None, "PG110")
    if name in ("bind", "optMap", "sortBy", "transformList", "transformMap"):
        return ConditionError(start, f"the macro `{name}` is outside the profile", code="PG110")
    return ConditionError(
        start, f"unknown function `{name}`, expected {_one_of(FUNCTION_NAMES)}", _meant(name, FUNCTION_NAMES), "PG109"
    )


def _start_of_call(text: str, offset: int, name: str) -> int:
    method = name.rpartition(".")[2]
    start = text.rfind(method, 0, offset + 1)
    return start - len(name) + len(method) if start >= 0 else offset


def _overload(text: str, offset: int, match: re.Match[str], names: Names) -> ConditionError:
    name, kinds = match["name"], [names.describe(kind) for kind in _split(match["types"].strip("()"), match["types"])]
    operands = " and ".join(kinds) if len(kinds) < 3 else ", ".join(kinds)
    if name in _OPERATORS or name.startswith("_"):
        operator = _OPERATORS.get(name, name.strip("_"))
        return ConditionError(offset, f"`{operator}` does not take {operands}", _type_help(kinds), "PG104")
    start = _start_of_call(text, offset, name)
    expected = f", expected {_SIGNATURES[name]}" if name in _SIGNATURES else ""
    return ConditionError(start, f"`{name}` does not take {operands or 'nothing'}{expected}", None, "PG110")


def _split(inner: str, whole: str) -> list[str]:
    """Split the types in `a.(b, c)` or `(b, c)` at the top-level commas."""
    text = whole.replace(".(", ", ", 1) if not whole.startswith("(") else whole[1:]
    text = text[:-1] if text.endswith(")") else inner
    kinds: list[str] = []
    depth, current = 0, ""
    for character in text:
        depth += (character in "(<") - (character in ")>")
        if character == "," and depth == 0:
            kinds.append(current)
            current = ""
        else:
            current += character
    return [kind.strip() for kind in (*kinds, current) if kind.strip()]


def _type_help(kinds: list[str]) -> str | None:
    if "a timestamp" in kinds and "text" in kinds:
        return 'write a time as `timestamp("2026-03-01T09:00:00Z")`'
    if "a duration" in kinds and "text" in kinds:
        return 'write a duration as `duration("1h30m")`'
    return None


def _range(_text: str, offset: int, match: re.Match[str], names: Names) -> ConditionError:
    kind = names.describe(match["type"])
    return ConditionError(offset, f"a macro runs over a list or a map, found {kind}", None, "PG104")


_Translation = Callable[[str, int, "re.Match[str]", Names], "ConditionError | None"]
_TRANSLATIONS: tuple[tuple[re.Pattern[str], _Translation], ...] = (
    (_FIELD, _field),
    (_NAME, _name),
    (_OVERLOAD, _overload),
    (_RANGE, _range),
)


def _syntax(text: str, offset: int, message: str) -> ConditionError:
    if "invalid int literal" in message:
        return ConditionError(offset, "found an integer beyond 64 bits", None, "PG405")
    if "unsupported syntax" in message:
        return ConditionError(offset, "optional selection is outside the profile", None, "PG116")
    if offset >= len(text.rstrip()) or "<EOF>" in message.partition("expecting")[0]:
        missing = _MISSING.search(message)
        wanted = f", expected `{missing['missing']}`" if missing is not None else ""
        return ConditionError(min(offset, len(text)), f"the condition ends too early{wanted}", None, "PG117")
    unexpected = _UNEXPECTED.search(message)
    token = unexpected["unexpected"] if unexpected is not None else text[offset : offset + 1]
    help_text = _OTHER_LANGUAGES.get(token.strip())
    return ConditionError(offset, f"not a condition: unexpected `{token}`", help_text, "PG117")


_OTHER_LANGUAGES = {
    "=": "equality is `==`",
    "and": "write `&&`",
    "or": "write `||`",
    "not": "write `!`",
    "&": "write `&&`",
    "|": "write `||`",
}


def _one_of(known: Mapping[str, object] | tuple[str, ...]) -> str:
    names = sorted(known)
    if not names:
        return "none"
    listed = quoted_list(names, max_names=12)
    return f"one of {listed}" if len(names) > 1 else listed


def _meant(name: str, known: Mapping[str, object] | tuple[str, ...]) -> str | None:
    close = get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else None
