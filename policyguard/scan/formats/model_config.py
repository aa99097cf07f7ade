"""Parsed JSON in other formats: Keras' configurations and the metadata of tables."""

from __future__ import annotations

from collections.abc import Iterator


def maps_in(value: object) -> Iterator[dict[str, object]]:
    """Yield every object in parsed JSON, at any depth."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
