r"""The grammar of ids: subjects, resources, domains and accounts, wherever they come from. Pure.

    ref       = type ":" id
    type      = lower *62( lower / digit / "_" )
    id        = segment *( "/" segment ), 512 characters at most
    segment   = 1*character, not "." and not ".."

Characters must be visible: no white space, no control characters, nothing invisible (`id_characters.py`). Ids are
literal, so they cannot contain `*`, `?`, `{`, `}` or `\`, not even percent-encoded, nor an encoded dot, slash, control
or invisible character, however often it is encoded. Text is in composed form (NFC).

Patterns have another grammar (`patterns/`). They are used in policies, and in approvals made with `--pattern`.
"""

from __future__ import annotations

import re

from policyguard.model.id_characters import is_refused
from policyguard.text import quoted
from policyguard.values import LazyPattern

MAX_ID_CHARS = 512

_COMMON = LazyPattern(r"[\w@:+=,~#-][\w.@:+=,~#-]*(?:/[\w@:+=,~#-][\w.@:+=,~#-]*)*", re.ASCII)
"""Matches nearly all valid ids, which then need no other test."""

_ENCODED = LazyPattern(r"(?:%[0-9A-Fa-f]{2})+", re.ASCII)
_ENCODED_WIDE = LazyPattern(r"%[uU][0-9A-Fa-f]{4}", re.ASCII)

_WILD = frozenset("*?{}\\")
_DOTS = frozenset({"", ".", ".."})


def id_problem(identifier: str) -> str | None:
    r"""Describe what is wrong with an id, as "found ..., expected ..."; None if nothing is.

    >>> id_problem("team/vision/run-17") is None
    True
    >>> id_problem("team/vision/**")
    'found `team/vision/**`, expected an id without `*`: an id is literal, and patterns belong in policies'
    """
    if _COMMON.fullmatch(identifier) is not None and len(identifier) <= MAX_ID_CHARS:
        return None
    expected = _expected(identifier)
    return None if expected is None else f"found {quoted(identifier) if identifier else 'empty text'}, {expected}"


def is_type_name(text: str) -> bool:
    """Return True for a type: lower *62( lower / digit / "_" ).

    Written out because a regular expression would slow down every start.
    """
    letters = text.replace("_", "")
    return text.isascii() and text[:1].isalpha() and text.islower() and letters.isalnum() and len(text) < 64


def is_action(text: str) -> bool:
    """Return True for an action: type ":" verb, where the verb may also have hyphens after its first letter."""
    kind, _, verb = text.partition(":")
    return is_type_name(kind) and is_type_name(verb.replace("-", "_"))


def is_segment(text: str) -> bool:
    """Return True for one segment of an id, such as a domain or the name of a role."""
    return "/" not in text and id_problem(text) is None


def ref_problem(ref: str) -> str | None:
    """Describe what is wrong with `type:id` text; None if nothing is.

    >>> ref_problem("carol")
    'found `carol`, expected `type:id` such as `user:alice`'
    """
    kind, _, identifier = ref.partition(":")
    if not is_type_name(kind) or not identifier:
        return f"found {quoted(ref) if ref else 'empty text'}, expected `type:id` such as `user:alice`"
    return id_problem(identifier)


def _expected(identifier: str) -> str | None:
    if not 0 < len(identifier) <= MAX_ID_CHARS or any(_is_control(c) for c in identifier):
        return f"expected an id of 1 to {MAX_ID_CHARS} characters, no spaces, no control characters"
    # INVARIANT I5: an id is literal, so that approving or binding one never covers another.
    wild = next((c for c in identifier if c in _WILD), None)
    if wild is not None:
        return f"expected an id without `{wild}`: an id is literal, and patterns belong in policies"
    if not identifier.isascii():
        # Imported here, so that only ids with characters outside ASCII pay for it.
        from unicodedata import is_normalized

        if any(c > "\x7f" and is_refused(c) for c in identifier):
            return "expected visible characters only, and no lone surrogate"
        if not is_normalized("NFC", identifier):
            return "expected an id in composed form (NFC)"
    # INVARIANT I5: an id has one form, so that `team/vision/../llm/x` is never taken for an id of team vision.
    if not _DOTS.isdisjoint(identifier.split("/")):
        return "expected no empty, `.` or `..` segment"
    if "%" in identifier and _hides(identifier):
        return "expected no percent-encoded dot, slash, control, star or invisible character: write it as it is"
    return None


def _is_control(character: str) -> bool:
    return character <= " " or "\x7f" <= character <= "\xa0"


def _hides(identifier: str) -> bool:
    """Return True if repeated percent-decoding reveals a refused character, a dot or a slash."""
    text = identifier
    while True:
        if next(_ENCODED_WIDE.finditer(text), None) is not None:
            return True
        pieces, end = [], 0
        for match in _ENCODED.finditer(text):
            plain = _decoded(match[0])
            if plain is None or any(_is_hidden(c) for c in plain):
                return True
            pieces += [text[end : match.start()], plain]
            end = match.end()
        if not pieces:
            return False
        text = "".join([*pieces, text[end:]])


def _decoded(encoded: str) -> str | None:
    try:
        return bytes.fromhex(encoded.replace("%", "")).decode()
    except UnicodeDecodeError:
        return None


def _is_hidden(character: str) -> bool:
    if character > "\x7f":
        return is_refused(character)
    return character in "./" or character in _WILD or (character != " " and _is_control(character))
