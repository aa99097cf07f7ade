"""Text from a policy file, made harmless for a terminal, a log viewer or an XML reader."""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)


def visible(text: str) -> str:
    """Return the text with control, bidi and zero-width characters spelled out as `\\u202e`.

    Nothing that a policy's author writes can move the cursor, hide a line of a report or start a new one.
    """
    # INVARIANT I73: text from a policy file cannot forge a line of a report.
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
