"""A reader can confuse two names, or one name mixes letters of two alphabets."""

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
"""Characters that common fonts draw alike. Source: Unicode Technical Standard 39, confusables, Basic Latin.

`0` and `1` count as letters only if no digit is next to them. Pairs of letters are compared only in names that policies
choose, not in the names of people: Arnie and Amie are two persons.
"""


def check(context: Context) -> Iterator[Hit]:
    """Yield names that mix alphabets, and names that are confusable with an earlier one of their kind."""
    for kind, named in _names(context):
        seen: dict[str, str] = {}
        for name, span in named:
            scripts = sorted(_scripts(name.rpartition(":")[2]))
            if len(scripts) > 1:
                mixed = " and ".join(script.title() for script in scripts)
                yield Hit(span, f"{kind} `{name}` mixes {mixed} letters")
            other = seen.setdefault(_skeleton(name, kind != "subject"), name)
            if other != name:
                yield Hit(span, f"{kind} `{name}` is easily confused with `{other}`")


def _names(context: Context) -> Iterator[tuple[str, Iterable[tuple[str, Span]]]]:
    policies = context.policy_set
    yield "role", [(role.name, role.span) for role in policies.roles]
    yield "rule", [(rule.id, rule.span) for rule in policies.rules]
    yield "quorum", [(quorum.id, quorum.span) for quorum in policies.quorums]
    yield "subject", [(binding.subject, binding.span) for binding in policies.bindings]
    yield "domain", [(binding.domain, binding.span) for binding in policies.bindings]


def _skeleton(name: str, pairs: bool) -> str:
    """Replace confusable characters, so that names that a reader can confuse become equal."""
    name = _DIGITS.sub(lambda digit: "lo"[digit[0] == "0"], name).translate(_LETTERS).lower()
    for letters, like in _PAIRS if pairs else ():
        name = name.replace(letters, like)
    return name


def _scripts(name: str) -> set[str]:
    if name.isascii():
        return set()
    scripts = {unicodedata.name(character, "").partition(" ")[0] for character in name if character.isalpha()}
    return scripts & set(_SCRIPTS)
