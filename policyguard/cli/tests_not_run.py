"""Says which tests and invariants beside policies a verb has not run: nothing that is written is ignored in silence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from policyguard.cli.output import say
from policyguard.text import counted

_KIND = re.compile(rb"(?m)^kind:[ \t]*['\"]?(Tests|Invariants)\b")


def say_not_run(folder: Path, sources: Mapping[str, bytes]) -> None:
    """Say on standard error how many documents of tests and invariants there are, and what runs them."""
    kinds = [kind for data in sources.values() for kind in _KIND.findall(data)]
    tests, invariants = kinds.count(b"Tests"), kinds.count(b"Invariants")
    if tests:
        say(f"{counted(tests, 'document')} of tests not run; `policyguard test {folder}` runs them", err=True)
    if invariants:
        say(f"{counted(invariants, 'document')} of invariants not checked; no command does so yet", err=True)
