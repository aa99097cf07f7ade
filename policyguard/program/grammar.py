"""Options on a command line, read by the rules of getopt(3) and of Python's argparse."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class NotFollowed(Exception):
    """The program that a command line runs cannot be determined; the message says why."""


class Grammar(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one program, written as on the command line: `-v`, `--nnodes`.

    `optional` options have a value only if it is attached. `ending` options take a value and end the options, as
    CPython's `-c` and `-m` do. With `is_argparse` long options may be written with `_`, with `abbreviates` cut short.
    """

    flags: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    ending: frozenset[str] = frozenset()
    is_argparse: bool = False
    abbreviates: bool = False


class Options(msgspec.Struct, frozen=True):
    """The options that were read, in order, and the words after them."""

    read: tuple[tuple[str, str], ...]
    rest: tuple[str, ...]

    def value(self, *names: str) -> str | None:
        """Return the last value of an option; None if it was not given."""
        return next((value for name, value in reversed(self.read) if name in names), None)


def grammar(
    flags: str = "",
    values: str = "",
    ending: str = "",
    *,
    optional: str = "",
    argparse: bool = False,
    abbreviates: bool | None = None,
) -> Grammar:
    """Build a grammar from options separated by spaces; see `Grammar`.

    Args:
        flags: options without a value.
        values: options with a value.
        ending: options with a value that end the options.
        optional: options with a value only where it is attached.
        argparse: long options follow argparse.
        abbreviates: and may be cut short; the default of argparse.
    """
    return Grammar(
        flags=frozenset(flags.split()),
        values=frozenset(values.split()),
        optional=frozenset(optional.split()),
        ending=frozenset(ending.split()),
        is_argparse=argparse,
        abbreviates=argparse if abbreviates is None else abbreviates,
    )


def read_options(argv: Sequence[str], rules: Grammar) -> Options:
    """Read the options before the first word that is none.

    Args:
        argv: the words after the program.
        rules: the program's options.

    Raises:
        NotFollowed: an option is unknown, or its value is missing.
    """
    read: list[tuple[str, str]] = []
    position = 0
    while position < len(argv):
        word = argv[position]
        position += 1
        if word == "--":
            return Options(tuple(read), tuple(argv[position:]))
        if word == "-" or not word.startswith("-"):
            return Options(tuple(read), tuple(argv[position - 1 :]))
        parse = _read_long if word.startswith("--") else _read_short
        for name, value in parse(word, rules):
            if value is None:
                if position >= len(argv):
                    raise NotFollowed(f"option `{name}` has no value")
                value, position = argv[position], position + 1
            read.append((name, value))
        if read[-1][0] in rules.ending:
            break
    return Options(tuple(read), tuple(argv[position:]))


def _read_long(word: str, rules: Grammar) -> list[tuple[str, str | None]]:
    """Read one `--option` or `--option=value`; a value of None is the next word."""
    name, equals, value = word.partition("=")
    if rules.is_argparse:
        name = "--" + name[2:].replace("_", "-")
    known = rules.flags | rules.values | rules.optional | rules.ending
    if name not in known:
        matches = [option for option in known if option.startswith(name)] if rules.abbreviates else []
        if len(matches) != 1:
            raise NotFollowed(f"option `{word}` is not known")
        name = matches[0]
    if name in rules.optional:
        return [(name, value)]
    if name in rules.flags:
        if equals:
            raise NotFollowed(f"option `{word}` takes no value")
        return [(name, "")]
    return [(name, value if equals else None)]


def _read_short(word: str, rules: Grammar) -> list[tuple[str, str | None]]:
    """Read letters written together, `-Ic CODE` or `-n8`; a value of None is the next word."""
    read: list[tuple[str, str | None]] = []
    for index, letter in enumerate(word[1:], 1):
        name = f"-{letter}"
        if name in rules.flags:
            read.append((name, ""))
        elif name in rules.optional:
            read.append((name, word[index + 1 :]))
            break
        elif name in rules.values or name in rules.ending:
            attached = word[index + 1 :]
            read.append((name, (attached.removeprefix("=") if rules.is_argparse else attached) or None))
            break
        else:
            raise NotFollowed(f"option `-{letter}` in `{word}` is not known")
    return read
