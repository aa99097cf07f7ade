"""Notes of what a dependency does: printed with the test, never a reason for it to fail.

A fence proves that we are safe, whichever release of the dependency is installed. That the dependency is dangerous is
worth writing down and showing (`pytest -rP tests/fences`), but a release that repairs it must not turn the suite red.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def noted() -> Iterator[None]:
    """Run statements that show a hazard; print it when this release behaves differently, and go on."""
    try:
        yield
    except (Exception, pytest.fail.Exception) as different:  # noqa: BLE001  (a note cannot fail)
        print(f"no longer as noted: {type(different).__name__}: {different}")
