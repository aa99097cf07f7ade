"""Key-value metadata of Parquet and Arrow: text, and a few keys that readers act on.

| key | reader | checked for |
|---|---|---|
| `huggingface` | Hugging Face datasets | feature types that are no class of its own list |
| `parquet.avro.schema`, `avro.schema` | Java's parquet-avro | Java classes it would instantiate (CVE-2025-30065) |
| `pandas` | pyarrow, fastparquet | JSON |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from policyguard.scan.findings import Findings
from policyguard.scan.formats.model_config import maps_in
from policyguard.scan.pickles.files import probe
from policyguard.scan.settings.judge import judge_embedded
from policyguard.scan.source import BytesSource

_FEATURES = {
    "Array2D",
    "Array3D",
    "Array4D",
    "Array5D",
    "Audio",
    "ClassLabel",
    "Image",
    "Json",
    "LargeList",
    "List",
    "Nifti",
    "Pdf",
    "Sequence",
    "Translation",
    "TranslationVariableLanguages",
    "Value",
    "Video",
}
_JAVA_KEYS = ("java-class", "java-element-class", "java-key-class")
_JAVA_LISTED = {
    *(
        f"java.lang.{name}"
        for name in ("Boolean", "Byte", "Character", "Double", "Float", "Integer", "Long", "Short", "String")
    ),
    *(f"java.util.{name}" for name in ("ArrayList", "Collection", "HashMap", "HashSet", "List", "Map", "Set", "UUID")),
    "java.math.BigDecimal",
    "java.math.BigInteger",
}


def check_metadata(pairs: Iterable[tuple[bytes, bytes]], findings: Findings) -> None:
    """Add a finding for each key with two values, and each value that is not text or names code."""
    seen: dict[bytes, bytes] = {}
    for key, value in pairs:
        name = key.decode("utf-8", "replace")
        # INVARIANT I18: of two values under one key, readers differ in which they believe.
        if seen.setdefault(key, value) != value:
            findings.add("ckpt.metadata_duplicate", name)
        if not _is_text(value) or probe(BytesSource(value), findings):
            findings.add("ckpt.metadata_binary", name)
            continue
        if (check := _CHECKS.get(name)) is not None:
            check(name, value, findings)
            continue
        judge_embedded(name, value.decode("utf-8"), findings, "$")


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def _parsed(name: str, value: bytes, findings: Findings) -> object:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        findings.add("ckpt.metadata_binary", f"{name} that is no JSON")
        return None


def _check_features(name: str, value: bytes, findings: Findings) -> None:
    """Check `_type` entries, which the reader looks up in its classes and then in its module's globals."""
    for item in maps_in(_parsed(name, value, findings)):
        kind = item.get("_type", "Value")
        if isinstance(kind, str) and kind not in _FEATURES:
            findings.add("ckpt.dataset_feature", kind)


def _check_java(name: str, value: bytes, findings: Findings) -> None:
    for item in maps_in(_parsed(name, value, findings)):
        for key in _JAVA_KEYS:
            wanted = item.get(key)
            if wanted is not None and str(wanted) not in _JAVA_LISTED:
                findings.add("ckpt.java_class", str(wanted))


def _check_json(name: str, value: bytes, findings: Findings) -> None:
    _parsed(name, value, findings)


_CHECKS: dict[str, Callable[[str, bytes, Findings], None]] = {
    "huggingface": _check_features,
    "parquet.avro.schema": _check_java,
    "avro.schema": _check_java,
    "pandas": _check_json,
}
