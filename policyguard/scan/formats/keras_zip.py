"""Keras' own archives (`.keras`): a configuration, from which the model is rebuilt, and weights."""

from __future__ import annotations

import json
from collections.abc import Sequence

from policyguard.scan.archives.zip import Member
from policyguard.scan.archives.zip_members import content_of
from policyguard.scan.findings import Findings
from policyguard.scan.formats.keras import MAX_CONFIG, check_config_text


def is_keras(listed: Sequence[Member], findings: Findings) -> bool:
    """Return True if Keras rebuilds a model from a member; check the classes that it names."""
    claims = [_is_config(member, findings) for member in listed if member.name == "config.json"]
    return any(claims)


def _is_config(member: Member, findings: Findings) -> bool:
    content = content_of(member, findings)
    if content is None or content.size > MAX_CONFIG or not _names_class(data := content.read(0, content.size)):
        return False
    check_config_text(data, findings)
    return True


def _names_class(data: bytes) -> bool:
    """Return True if some key is `class_name`, however it is written."""
    try:
        return '"class_name"' in json.dumps(json.loads(data))
    except (ValueError, RecursionError):
        return b"class_name" in data
