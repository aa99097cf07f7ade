"""The command line: one file a verb, loaded when it is called.

Exit codes are sysexits': 0 fine, 1 findings or failed tests, 64 usage, 65 bad data, 69 something needed is unavailable,
77 denied, 78 configuration. `hook` never comes through click: its start-up time is a feature.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from policyguard.cli.streams import open_closed

OK, FINDINGS, USAGE, BAD_DATA, UNAVAILABLE, DENIED, CONFIGURATION = 0, 1, 64, 65, 69, 77, 78


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    open_closed()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:2] == ["hook", "git"]:
        from policyguard.hooks.git import main as git_hook

        sys.exit(git_hook(words[2:]))
    if words[:1] == ["hook"] and not {"--help", "-h", "--json"} & set(words):
        from policyguard.hooks.stdio import main as hook

        sys.exit(hook(words[1:]))
    from policyguard.cli.group import run

    sys.exit(run(words))
