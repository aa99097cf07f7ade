"""Lists what runs by itself: when an interpreter of the environment starts, or when it trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policyguard.environment.listing import Listing
from policyguard.environment.owners import AUTORUN, Owners
from policyguard.text import printable

MAX_LINE_CHARS = 160


def starting_code(listing: Listing, owners: Owners) -> Iterator[str]:
    """Yield what runs when an interpreter of the environment starts, or trains: the file, and the line where known."""
    for name in listing.files:
        if AUTORUN.search(name) and not name.endswith((".pth", ".egg-link")):
            yield name
    for name, lines in listing.starting.items():
        yield from (f"{name}: {printable(line, MAX_LINE_CHARS)}" for line in lines)
    for name, point in owners.entry_points:
        if not point.startswith("pytest11:"):
            yield f"{name}: {point}"


def is_new(item: str, listing: Listing, known: Mapping[str, str]) -> bool:
    """Return True if the file of an item of `starting_code` is not among the known digests, or differs.

    Args:
        item: what runs by itself.
        listing: the environment that it is of.
        known: file names and digests of an earlier baseline.
    """
    name = next(name for name in (item, item.partition(": ")[0]) if name in listing.files)
    return known.get(name) != listing.files[name]
