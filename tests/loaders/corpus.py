"""What the loaders are given: files that libraries wrote, and files that were built to do harm."""

from __future__ import annotations

from pathlib import Path

from tests.attacks.checkpoint_lab import HOSTILE
from tests.attacks.test_pickle_readers import BOMBS, LYING, NUMBERS
from tests.attacks.test_scan_other_libraries import FILES as LIBRARIES
from tests.attacks.test_scan_text_readers import DIFFERS

_DATA = Path(__file__).parents[1] / "data" / "scan"
_FOLDERS = ("benign", "opaque", "reported/hostile", "reported/harmless")
FILES = {
    f"{path.parent.name}/{path.name}": path.read_bytes()
    for folder in _FOLDERS
    for path in sorted((_DATA / folder).iterdir())
    if path.is_file()
}
TEXTS = {
    str(path.relative_to(_DATA)): path.read_bytes()
    for folder in ("settings", "folders")
    for path in sorted((_DATA / folder).rglob("*"))
    if path.is_file()
}


def _bytes(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode()


MADE = {
    **{name: make() for name, make in HOSTILE.items()},
    **{f"number: {name}": data + b"0cos\nsystem\n(S'true'\ntR." for name, data in NUMBERS.items()},
    **{f"numpy: {name}": data for name, data in LYING.items()},
    **{f"bomb: {name}": data for name, data in BOMBS.items()},
    **{f"library: {name}": _bytes(content) for name, (_, content, _) in LIBRARIES.items()},
    **{f"reader: {name}": _bytes(content) for name, (_, content, _) in DIFFERS.items()},
}
ALL = {name: data for name, data in {**FILES, **TEXTS, **MADE}.items() if len(data) < 2**20}
