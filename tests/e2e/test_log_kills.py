"""Writers are killed at random moments; what they had acknowledged is in the log, and the next writer goes on.

`POLICYGUARD_KILLS=1000` makes it a long run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

KILLS = os.environ.get("POLICYGUARD_KILLS", "20")


def test_no_acknowledged_entry_is_lost_by_a_kill() -> None:
    """Two writers at once, killed at random moments: nothing lost, and no new writer is refused."""
    ended = subprocess.run(
        [sys.executable, "-m", "bench.kills", KILLS],
        capture_output=True,
        text=True,
        timeout=60 + int(KILLS),
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " 0 lost, 0 refused" in ended.stdout
