"""Exit codes, as sysexits.h numbers them: one table for every verb and every hook.

What the caller asks about (a request, a job file, a signed decision, an approval) is data: missing, unreadable or
malformed, it is `BAD_DATA`, also where the answer is a signed denial `engine.malformed`, so that a caller can tell a
mistake from a refusal. What answers (policies, keys, trust, the log) is `CONFIGURATION`.
"""

from __future__ import annotations

OK = 0
FINDINGS = 1
USAGE = 64
BAD_DATA = 65
UNAVAILABLE = 69
DENIED = 77
CONFIGURATION = 78
