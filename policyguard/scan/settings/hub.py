"""Entries of a hub configuration that name code: in the repository, another one, a kernel or a library.

Source: transformers 5 `dynamic_module_utils.py` and `integrations/hub_kernels.py`; diffusers `pipeline_utils.py`; peft
`auto.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_KERNEL_KEYS = {
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "kernel_config",
    "experts_implementation",
    "_experts_implementation",
}
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(?:@[\w./-]+)?(?::[\w.-]+)?", re.ASCII)
_BUILTIN_KERNELS = {"eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "paged_attention"}
NAMING_KEYS = frozenset(
    {"auto_map", "custom_pipelines", "auto_mapping", "use_kernels", "allow_all_kernels", "_class_name", *_KERNEL_KEYS}
)


def named_by(key: str, value: object) -> Iterator[tuple[str, str]] | None:
    """Return kind and name of the code that a configuration entry names; None if it names none.

    Kinds: `own` (in this repository), `foreign` (another repository), `kernel`, `import` (an installed library).
    """
    if key == "auto_map":
        return (_reference(text) for text in _texts(value))
    if key in ("custom_pipelines", "auto_mapping"):
        return _loader(key, value)
    if key in _KERNEL_KEYS:
        return (("kernel", text) for text in _texts(value) if _is_repository(text))
    if key in ("use_kernels", "allow_all_kernels") and value is True:
        return iter([("kernel", key)])
    if key == "_class_name" and isinstance(value, list):
        return iter([("own", ".".join(_texts(value)))])
    return None


def _reference(text: str) -> tuple[str, str]:
    """Tell a name in another repository, `repository--module.Class`, from one in this, `module.Class`."""
    repository, dashes, _ = text.rpartition("--")
    return ("foreign", repository) if dashes else ("own", text)


def _loader(key: str, value: object) -> Iterator[tuple[str, str]]:
    if not isinstance(value, Mapping):
        return
    if key == "auto_mapping":
        library = value.get("parent_library")
        if type(library) is str and library:
            yield "import", library
        return
    for task in value.values():
        if isinstance(task, Mapping) and type(task.get("impl")) is str:
            yield _reference(task["impl"])


def _is_repository(text: str) -> bool:
    return (
        text.rpartition("|")[2] not in _BUILTIN_KERNELS and _REPOSITORY.fullmatch(text.rpartition("|")[2]) is not None
    )


def _texts(value: object) -> Iterator[str]:
    if type(value) is str:
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
