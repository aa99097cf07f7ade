"""Former names of command-line options, accepted for one release with a warning. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

HOOK = {"--look": "--measure", "--accepted": "--reviewed-commits"}

BY_VERB: Mapping[str, Mapping[str, str]] = {
    "decide": {"--of": "--artifact"},
    "env": {"--own-word": "--record-only"},
    "hook": HOOK,
    "run": {"--used": "--replay-store"},
    "verify": {"--used": "--replay-store"},
}
"""Verb -> former name -> present name."""


def rename_former_options(argv: Sequence[str], former: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Replace former option names; return the arguments, and a warning for each replaced name.

    Arguments after `--` are the command of a job, and stay.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    renamed, warnings = [], []
    for word in argv[:end]:
        name, equals, value = word.partition("=")
        if name in former:
            warnings.append(f"`{name}` is now `{former[name]}`; the former name goes with the next release")
        renamed.append(f"{former.get(name, name)}{equals}{value}")
    return [*renamed, *argv[end:]], warnings
