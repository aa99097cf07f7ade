"""Two names that the eye takes for one, or one name in two alphabets."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.values import Span

CODE = "PG012"
NAME = "mixed-script"
SEVERITY = "warning"
HELP = "rename one of them"

_SCRIPTS = ("LATIN", "CYRILLIC", "GREEK")
_LETTERS = str.maketrans({"I": "l", "|": "l", "_": "-"})
_DIGITS = re.compile("(?<![0-9])[01](?![0-9])")
_PAIRS = (("rn", "m"), ("vv", "w"))
"""What common fonts draw alike. Source: Unicode Technical Standard 39, confusables, the Basic Latin part.

A digit among digits is read as one. Pairs of letters count only in names that policies choose: people called Arnie and
Amie keep theirs.
"""


def check(context: Context) -> Iterator[Hit]:
    """Yield names that mix alphabets, and names of one kind that look like an earlier one."""
    for kind, named in _names(context):
        seen: dict[str, str] = {}
        for name, span in named:
            scripts = sorted(_scripts(name.rpartition(":")[2]))
            if len(scripts) > 1:
                mixed = " and ".join(script.title() for script in scripts)
                yield Hit(span, f"{kind} `{name}` mixes {mixed} letters")
            other = seen.setdefault(_look(name, kind != "subject"), name)
            if other != name:
                yield Hit(span, f"{kind} `{name}` looks like `{other}`")


def _names(context: Context) -> Iterator[tuple[str, Iterable[tuple[str, Span]]]]:
    policies = context.policy_set
    yield "role", [(role.name, role.span) for role in policies.roles]
    yield "rule", [(rule.id, rule.span) for rule in policies.rules]
    yield "quorum", [(quorum.id, quorum.span) for quorum in policies.quorums]
    yield "subject", [(binding.subject, binding.span) for binding in policies.bindings]
    yield "domain", [(binding.domain, binding.span) for binding in policies.bindings]


def _look(name: str, pairs: bool) -> str:
    """Return what the name looks like; names of one look are told apart only by luck."""
    name = _DIGITS.sub(lambda digit: "lo"[digit[0] == "0"], name).translate(_LETTERS).lower()
    for letters, like in _PAIRS if pairs else ():
        name = name.replace(letters, like)
    return name


def _scripts(name: str) -> set[str]:
    if name.isascii():
        return set()
    found = {unicodedata.name(character, "").partition(" ")[0] for character in name if character.isalpha()}
    return found & set(_SCRIPTS)
