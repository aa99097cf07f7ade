"""Every test, and every process that a test starts, runs the package beside these tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_WHERE = "import policyguard; print(policyguard.__file__)"


def pytest_sessionstart() -> None:
    """Stop where another package would be tested: tests of this one would pass or fail for no reason of its own."""
    expected = ROOT / "policyguard" / "__init__.py"
    # Elsewhere and with -P, as no test can rely on the current folder.
    child = subprocess.run(
        [sys.executable, "-P", "-c", _WHERE], cwd="/", capture_output=True, text=True, check=False, timeout=60
    )
    if Path(child.stdout.strip()) != expected:
        raise pytest.UsageError(
            f"processes import `{child.stdout.strip() or child.stderr[-200:]}`, expected `{expected}`: "
            f"set PYTHONPATH={ROOT}, or install this folder (`pip install --editable .`)"
        )
