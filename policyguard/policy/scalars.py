"""Resolves the type of a plain scalar by YAML 1.2's core schema; refuses what YAML 1.1 reads differently.

PyYAML's own resolver is never used: it reads `no` as false, `0777` as 511 and `12:30:45` as 45045 (YAML 1.1). Where the
two versions differ, and where a number is not an integer, the scalar is refused and the message asks for quotes.
"""

from __future__ import annotations

import re
from typing import Literal

from policyguard.policy.nodes import Scalar
from policyguard.text import MAX_QUOTED_CHARS, printable

Kind = Literal["text", "bool", "integer", "float", "null", "ambiguous", "refused"]

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", re.ASCII
)
_AMBIGUOUS = re.compile(
    r"""(?: yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF|y|Y|n|N      # YAML 1.1 bools
      | TRUE|True|FALSE|False | NULL|Null                           # other forms of true, false, null
      | [-+]?0[0-9_]+ | [-+]?0o[0-7]+ | [-+]?0b[01_]+ | [-+]?0x[0-9a-fA-F_]+
      | [-+]?[0-9][0-9_]*_[0-9_]*(?:\.[0-9_]*)?                     # 1_000
      | [-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?            # 12:30:45 in base 60
      | [0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}.*)?
      | = )""",
    re.ASCII | re.VERBOSE,
)
_MAY_BE_OTHER = re.compile(r"[-+.=~0-9]|[tTfFnNyYoO]", re.ASCII)

MAX_DIGITS = 17
"""Longer integers are always beyond 2^53 - 1 and are not converted."""


def kind_of(scalar: Scalar) -> Kind:
    """Return the kind of a scalar by the YAML 1.2 core schema; `ambiguous` if YAML 1.1 or people differ about it."""
    if scalar.style != "plain":
        return "refused" if scalar.style == "refused" else "text"
    text = scalar.text
    if text and not _MAY_BE_OTHER.match(text):
        return "text"
    if text in ("", "~", "null"):
        return "null"
    if text in ("true", "false"):
        return "bool"
    if _INTEGER.fullmatch(text):
        return "integer"
    if _AMBIGUOUS.fullmatch(text):
        return "ambiguous"
    return "float" if _FLOAT.fullmatch(text) else "text"


_DESCRIPTIONS = {
    "bool": "the bool `{}`",
    "integer": "the integer `{}`",
    "float": "the float `{}`",
    "ambiguous": "`{}`, which YAML readers take for different things",
}


def described(scalar: Scalar) -> str:
    """Describe a scalar for an error message: "the float `1.5`", "text `abc`", "nothing"."""
    kind = kind_of(scalar)
    if kind == "null":
        return f"nothing (`{scalar.text}`)" if scalar.text else "nothing"
    return _DESCRIPTIONS.get(kind, "text `{}`").format(printable(scalar.text, MAX_QUOTED_CHARS))
