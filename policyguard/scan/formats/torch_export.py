"""Programs of `torch.export` (`.pt2`): a zip with a graph in JSON, whose nodes name functions.

Never clean: a node's target is looked up by attributes from `torch` on, and no list of harmless targets can be
complete.

Source: torch 2.13 `torch/_export/serde/serialize.py`, `deserialize_operator`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from policyguard.scan.archives.zip import Member
from policyguard.scan.archives.zip_members import content_of
from policyguard.scan.findings import Findings
from policyguard.scan.pickles.allowlist import is_standard

MAX_GRAPH = 64 * 2**20
_OPERATORS = ("torch.ops.", "_operator.", "operator.", "math.", "torch.sym_", "torch._sym_")


def is_program(listed: Sequence[Member], findings: Findings) -> bool:
    """Return True for an exported program; check the functions that its graph names."""
    if not _is_export([member.name for member in listed]):
        return False
    findings.add("ckpt.format_opaque", "a program of torch.export, whose graph names functions")
    for member in listed:
        if member.name.endswith(".json") and (content := content_of(member, findings)) is not None:
            check_graph(content.read(0, MAX_GRAPH), findings)
    return True


def _is_export(names: Sequence[str]) -> bool:
    """Return True if the members are those of an exported program, in the current or the previous layout."""
    parts = [name.rpartition("/")[2] for name in names]
    models = any("/models/" in f"/{name}" and name.endswith(".json") for name in names)
    return models or "archive_format" in parts or "serialized_exported_program.json" in parts


def check_graph(data: bytes, findings: Findings) -> None:
    """Add a finding for each node of this JSON whose target reaches a Python module.

    Args:
        data: a member of the archive.
        findings: takes what is found.
    """
    try:
        pending = [json.loads(data)]
    except (ValueError, RecursionError):
        return
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending.extend(node)
        elif isinstance(node, dict):
            pending.extend(node.values())
            target = node.get("target")
            if isinstance(target, str) and not target.startswith(_OPERATORS):
                parts = target.lstrip("#").split(".")
                if any(is_standard(part) or part.startswith("__") for part in parts[:-1]):
                    findings.add("ckpt.export_call", target)
