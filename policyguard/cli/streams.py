"""Makes the standard streams safe to use, however the process was started."""

from __future__ import annotations

import os
import sys

_CLOSED = ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY))


def open_closed() -> None:
    """Open closed standard descriptors on /dev/null, so that no later file gets their numbers.

    Input and output that were closed are opened the wrong way round, so that using them is an error and not silence.
    What goes to a closed error stream is lost; the exit code says the same.

    Source: glibc, csu/check_fds.c, which does the same for set-user-id programs.
    """
    for number, flags in _CLOSED:
        try:
            os.fstat(number)
        except OSError:
            # INVARIANT I14: no log, key or decision is ever opened as standard output. The lowest free number is this.
            os.set_inheritable(os.open(os.devnull, flags), True)
    # The interpreter leaves None where it found a closed descriptor.
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
