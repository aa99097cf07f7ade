"""Walks parsed JSON for other formats: Keras configurations and metadata of tables."""

from __future__ import annotations

from collections.abc import Iterator


def maps_in(value: object) -> Iterator[dict[str, object]]:
    """Yield every object in a parsed JSON value, at any depth."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
