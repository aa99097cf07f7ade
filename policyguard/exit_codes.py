"""Exit codes, as sysexits.h numbers them: one table for every verb and every hook."""

from __future__ import annotations

OK = 0
FINDINGS = 1
USAGE = 64
BAD_DATA = 65
UNAVAILABLE = 69
DENIED = 77
CONFIGURATION = 78
