"""skops files of scikit-learn models: a zip with `schema.json`, whose nodes name what is imported.

Source: skops 0.16 `io/_utils.py` and the loaders it registers; CVE-2025-54412 and CVE-2025-54413.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from policyguard.scan.archives.zip import Member, plain_name
from policyguard.scan.archives.zip_members import content_of
from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.pickles.ordinary import judge_import

SCHEMA = "schema.json"
MAX_SCHEMA = 64 * 2**20
_PLAIN = {"DictNode", "ListNode", "TupleNode", "SetNode", "JsonNode", "NdArrayNode", "SliceNode", "BytesNode"}
_PLAIN_CLASSES = {
    *(("builtins", name) for name in ("dict", "list", "tuple", "set", "str", "int", "float", "bool", "bytes", "slice")),
    ("builtins", "NoneType"),
    ("collections", "OrderedDict"),
    ("numpy", "ndarray"),
    ("numpy", "matrix"),
}
_NAMES = (("__module__", "__class__"), ("module_path", "function"))


def is_skops(listed: Sequence[Member], findings: Findings) -> bool:
    """Return True if skops rebuilds a model from a member; check what it names."""
    claims = [_is_schema(member, findings) for member in listed if plain_name(member.name) == SCHEMA]
    return any(claims)


def _is_schema(member: Member, findings: Findings) -> bool:
    content = content_of(member, findings)
    if content is None or content.size > MAX_SCHEMA:
        return False
    data = content.read(0, content.size)
    return check_schema(data, findings)


def check_schema(data: bytes, findings: Findings) -> bool:
    """Add a finding for each node that imports more than plain data; return False if it is no skops schema.

    Args:
        data: the member `schema.json`.
        findings: takes what is found.
    """
    try:
        schema = json.loads(data)
    except (ValueError, RecursionError):
        findings.add("ckpt.skops_schema", "no JSON")
        return b"__loader__" in data
    pending, is_skops = [schema], False
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            is_skops = is_skops or "__loader__" in node
            _check_node(node, findings)
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return is_skops


def _check_node(node: dict[str, object], findings: Findings) -> None:
    for module_key, name_key in _NAMES:
        if module_key not in node and name_key not in node:
            continue
        module, name = node.get(module_key), node.get(name_key)
        if type(module) is not str or type(name) is not str:
            findings.add("ckpt.skops_schema", "a node without a name")
        elif (module, name) not in _PLAIN_CLASSES or node.get("__loader__", "TypeNode") not in {*_PLAIN, "TypeNode"}:
            # INVARIANT I18: skops imports what a node names, before it asks whether that is trusted.
            hostile = judge_import(module, name) is Verdict.HOSTILE
            findings.add("ckpt.skops_call" if hostile else "ckpt.skops_class", f"{module}.{name}")
