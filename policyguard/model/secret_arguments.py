r"""Replaces secrets in command lines by keyed digests, so that a log can record what ran.

A secret is the value of an argument or variable whose name says so (`--wandb-key=V`, `--api_key V`, `hfToken: V`,
`TOKEN=V`), in a shell's text or in JSON as well, and the user part of a URL (`https://USER:PASSWORD@host`). It is found
by its name: a secret that no name announces is recorded as it is. Where a value could end at two places, the longer one
is hidden. The text is that of `printable_name`: backslashes are doubled and line breaks are `\n`. Pure.

The digest is HMAC-SHA256 with a key that the log does not contain, so nobody who reads the log can confirm a guess; two
equal secrets of one decision have equal digests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from hmac import digest as hmac_digest

from policyguard.values import FrozenMap, Value

_SECRET_NAME = re.compile(
    r"(?i:key|token|secret|passw(?:or)?d|passphrase|passcode|credential|authorization)"
    r"|(?<![A-Za-z])(?i:pass|pwd|auth)(?![a-z])|(?<=[a-z])(?:Pass|Pwd|Auth)(?![a-z])"
)
_NAME_CHARACTER = re.compile(r"[\w.\-]")
_REST_OF_NAME = re.compile(r"(?:[\w.\-]|\[[^\]\s]{0,64}\])*")
_SPACE = r"(?:\s|\\+[nrt])"
_ASSIGNS = re.compile(rf"""(?:\\*["'\])]|{_SPACE})*(?:[-+?:]?=[=>]?|:(?!//)|,(?={_SPACE}*\\*["'])){_SPACE}*""")
_FOLLOWS = re.compile(r"""(?:\\*["'])?(?:\\*\s|\\+[nrt])+(?!--[A-Za-z]|-[A-Za-z](?:\s|$))""")
_QUOTE = re.compile(r"""\\*["'`]""")
_WORD = re.compile(r"""(?:\\.|[^\s\\;&|<>()"'`])+""")
_SPACES = re.compile(rf"{_SPACE}+")
_SCHEMES = frozenset({"basic", "bearer", "digest", "negotiate", "token"})
_SEPARATOR = re.compile(r"""[\s"'`<>]""")
_OPTION = re.compile(r"--?\w[\w.\-]*\Z")
_NEXT_OPTION = re.compile(r"--[A-Za-z]|--\Z|-[A-Za-z]\Z")
_SHELL_OPTION = re.compile(r"-[A-Za-z]*c\Z|(?:-S|--split-string|--wrap|--command|eval)\Z")
_SHELL_TEXT = re.compile(r"--(?:split-string|wrap|command)=|-S.")
_PLACEHOLDER = "{secret:"

Replace = Callable[[str], str]


def keyed_digests(key: bytes) -> Replace:
    """Build the function that replaces a secret by its keyed digest, `{secret:...}`."""
    return lambda secret: f"{_PLACEHOLDER}{hmac_digest(key, secret.encode(), 'sha256').hex()[:32]}}}"


def without_digests(secret: str) -> str:  # noqa: ARG001
    """Replace a secret by `{secret}`, in text that people read."""
    return "{secret}"


def hide_secrets(value: Value, replace: Replace) -> Value:
    """Replace the secrets in a value; a list of texts is a command line.

    Args:
        value: of a fact in `model.facts.COMMANDS`.
        replace: computes what a secret becomes.

    Returns:
        The same object if it has no secrets.
    """
    hidden: Value = value
    if isinstance(value, str):
        hidden = _replaced(value, replace, is_shell=" " in value)
    elif isinstance(value, FrozenMap):
        hidden = FrozenMap(
            {
                name: replace(item) if type(item) is str and _SECRET_NAME.search(name) else hide_secrets(item, replace)
                for name, item in value.items()
            }
        )
    elif isinstance(value, tuple):
        texts = [item for item in value if isinstance(item, str)]
        is_command = len(texts) == len(value)
        # One search first: most commands have no secret.
        if is_command and not _may_have_secrets("\n".join(texts)):
            return value
        hidden = (
            tuple(_arguments(texts, replace)) if is_command else tuple([hide_secrets(item, replace) for item in value])
        )
    return value if hidden == value else hidden


def _arguments(arguments: Sequence[str], replace: Replace) -> Iterator[str]:
    """Replace the secrets in each word of a command; the one after `--password` is a secret as a whole."""
    is_value, before = False, ""
    for word in arguments:
        if is_value and not _NEXT_OPTION.match(word):
            yield replace(word) if word else word
            is_value = before[-1] in "sS"
            continue
        is_shell = bool(_SHELL_OPTION.match(before) or _SHELL_TEXT.match(word))
        yield _replaced(word, replace, is_shell=is_shell)
        is_value, before = bool(_OPTION.match(word) and _SECRET_NAME.search(word)), word


def _may_have_secrets(text: str) -> bool:
    return "@" in text or _PLACEHOLDER in text or _SECRET_NAME.search(text) is not None


def _replaced(text: str, replace: Replace, *, is_shell: bool) -> str:
    literal = text.find(_PLACEHOLDER)
    spans = [*_named(text, is_shell=is_shell), *_users(text)]
    # What resembles a keyed digest is hidden, so that nobody can put one into the log.
    spans += [(literal, len(text))] if literal >= 0 else []
    pieces, at = [], 0
    for start, stop in _merged(spans):
        pieces += [text[at:start], replace(text[start:stop])]
        at = stop
    return "".join([*pieces, text[at:]]) if pieces else text


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _named(text: str, *, is_shell: bool) -> Iterator[tuple[int, int]]:
    """Find the values that a name announces. Linear in the length of the text: a job's owner chooses it."""
    at = 0
    while name := _SECRET_NAME.search(text, at):
        first = name.start()
        while first > at and _NAME_CHARACTER.match(text[first - 1]):
            first -= 1
        at = _end(_REST_OF_NAME, text, name.end())
        assigned = _ASSIGNS.match(text, at)
        separator = assigned or (_FOLLOWS.match(text, at) if text[first] == "-" else None)
        if separator is None:
            continue
        start = separator.end()
        at = _shell_value(text, start) if is_shell or assigned is None else _value(text, start)
        if start < at:
            yield start, at


def _value(text: str, start: int) -> int:
    """Find the end of a value outside of a shell's text: the end of its quotes, or of the text."""
    quote = _QUOTE.match(text, start)
    if quote is None:
        return len(text)
    closed = _closing(text, quote)
    return closed if text[closed : closed + 1] in ("", " ", ",", "}", "]", ")") else len(text)


def _shell_value(text: str, start: int) -> int:
    """Find the end of a shell's word, which may consist of several quoted pieces."""
    at = start
    while at < len(text):
        if quote := _QUOTE.match(text, at):
            at = _closing(text, quote)
            if len(quote[0]) > 1 and text[at : at + 1] in (",", "}", "]", ")"):
                break
        elif word := _WORD.match(text, at):
            at = word.end()
        elif text[at] == "(" and at > start:
            closed = text.find(")", at)
            at = len(text) if closed < 0 else closed + 1
        else:
            break
    if text[start:at].lower() in _SCHEMES and (spaces := _SPACES.match(text, at)):
        return _shell_value(text, spaces.end())
    return at


def _closing(text: str, quote: re.Match[str]) -> int:
    """Find the position after the quote that closes this one; the end of the text if none does."""
    at = text.find(quote[0], quote.end())
    while at > quote.end() and text[at - 1] == "\\":
        at = text.find(quote[0], at + len(quote[0]))
    return len(text) if at < 0 else at + len(quote[0])


def _users(text: str) -> Iterator[tuple[int, int]]:
    """Find the user parts of URLs, and `USER:PASSWORD@host` without a scheme."""
    previous, was_user = 0, False
    for at in (match.start() for match in re.finditer("@", text)):
        start = text.rfind("//", previous, at) + 2
        if start < 2:
            start = max([previous, *(text.rfind(mark, previous, at) + 1 for mark in "/ \"'=,<>`")])
            is_user = was_user or ":" in text[start:at]
            is_user = is_user and not text.startswith("sha256:", at + 1)
        else:
            authority = re.split("[/?#]", text[start:at], maxsplit=1)[0]
            port = authority.rpartition(":")[2] if ":" in authority else "0"
            is_user = start + len(authority) == at or not (port == "" or port.isdigit())
        if _SEPARATOR.search(text, start, at):
            is_user = False
        if is_user and start < at:
            yield start, at
        previous, was_user = at + 1, is_user


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()
