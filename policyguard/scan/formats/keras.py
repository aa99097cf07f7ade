"""Keras configurations: the classes a model is rebuilt from; a Lambda layer carries Python bytecode.

Keras builds what its configuration names: before 3.9, `module` and `class_name` were imported from anywhere
(CVE-2025-1550), functions of Keras itself download and write files (CVE-2025-8747), and a Lambda layer contains
marshalled code (CVE-2024-3660).

Source: the Keras 3 serialization library and the Keras 2 HDF5 format.
"""

from __future__ import annotations

import json

from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.formats.keras_classes import CLASSES
from policyguard.scan.formats.model_config import maps_in
from policyguard.scan.pickles.allowlist import judged

MAX_CONFIG = 64 * 2**20
_CODE = {"Lambda", "__lambda__"}
_MODULES = {
    "keras",
    "keras.activations",
    "keras.constraints",
    "keras.dtype_policies",
    "keras.initializers",
    "keras.layers",
    "keras.losses",
    "keras.metrics",
    "keras.models",
    "keras.optimizers",
    "keras.optimizers.schedules",
    "keras.quantizers",
    "keras.random",
    "keras.regularizers",
}
_OWN = ("keras.src.", "keras.engine.", "tf_keras.src.", "builtins")
_OPERATIONS = tuple(f"keras.src.ops.{name}" for name in ("image", "linalg", "math", "nn", "numpy"))
"""Modules of operations on tensors; not `core`, whose operations take functions."""


def check_config_text(data: bytes, findings: Findings) -> None:
    """Add a finding for everything that rebuilding the model from this configuration would run or read."""
    if len(data) > MAX_CONFIG:
        findings.add("ckpt.too_large", "a Keras configuration")
        return
    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        findings.add("ckpt.keras_config", "no JSON")
        return
    if not isinstance(config, dict):
        findings.add("ckpt.keras_config", "no map")
    for item in maps_in(config):
        check_config(item, findings)


def check_config(item: dict[str, object], findings: Findings, where: str = "") -> None:
    """Add a finding for what rebuilding one object of a configuration would run or read.

    Args:
        item: the map of the object; those inside it are not visited.
        findings: receives the findings.
        where: the path to the map.
    """
    # INVARIANT I18: a class that a configuration names is on the list, or the model is not clean.
    name, module, registered = (
        None if item.get(key) is None else str(item[key]) for key in ("class_name", "module", "registered_name")
    )
    if name in _CODE:
        findings.add("ckpt.keras_lambda", name or "", where)
    elif _is_own(item):
        pass
    elif module is not None and module not in _MODULES:
        custom = (module, name) == ("builtins", "function") or judged(module, str(name)) is Verdict.UNKNOWN
        findings.add("ckpt.keras_class" if custom else "ckpt.keras_module", f"{module}.{name}", where)
    elif "class_name" in item and name not in CLASSES:
        findings.add("ckpt.keras_class", str(name), where)
    if registered is not None and registered != name:
        findings.add("ckpt.keras_class", registered, where)
    if any(isinstance(item.get(key), str) and item.get(key) for key in ("vocabulary", "idf_weights", "filepath")):
        findings.add("ckpt.external_data", "a vocabulary or a model in another file", where)


def _is_own(item: dict[str, object]) -> bool:
    """Return True for Keras' own classes, and builtin types that it restores without an import."""
    module, name = str(item.get("module")), str(item.get("class_name"))
    is_operation = module.startswith(_OPERATIONS) and name[:1].isupper() and name.isidentifier()
    return is_operation or (module.startswith(_OWN) and name in CLASSES)
