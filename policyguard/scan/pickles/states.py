"""The effect of a state on the object it is given to, by BUILD or by a torch function."""

from __future__ import annotations

from policyguard.scan.fact_sheets import names
from policyguard.scan.findings import Findings
from policyguard.scan.pickles.arrays import check_array_state, is_array, is_dtype, item_type
from policyguard.scan.pickles.values import NOTHING, Abstract, Import, Items, Made, Other, Payload
from policyguard.text import printable_ascii

_SHARD = ("torch.distributed.checkpoint.filesystem", "_StorageInfo")


_PLAIN = names("""
    __overloads__ __annotations__ __doc__ __orig_class__ __pydantic_fields_set__ __pydantic_extra__ __pydantic_private__
    __fields_set__ __private_attribute_values__
""")
"""Attributes between underscores that hold data: of torch's modules, generic classes and pydantic's models."""

_MANY = 256


def give_state(findings: Findings, target: Abstract, state: Abstract) -> None:
    """Record that an object gets a state; add a finding for everything more that the state does.

    Args:
        findings: takes what is found.
        target: the object, as the opcodes made it.
        state: what it is given.
    """
    if isinstance(target, Import | Other):
        # INVARIANT I18: a state may be given to an object that was just made, never to a class, function or module.
        findings.add("ckpt.pickle_build", kind_of(target))
        return
    if not isinstance(target, Made):
        findings.add("ckpt.pickle_state", f"a state given to {kind_of(target)}")
        return
    target.state, target.states = state, target.states + 1
    _check_keys(target, state, findings)
    if is_dtype(target):
        item_type(target, findings)
    elif is_array(target):
        check_array_state(state, findings)
    elif isinstance(target.callee, Import) and target.callee.pair == _SHARD:
        _check_shard_state(state, findings)


def _maps(state: Abstract) -> list[Items]:
    parts = state if isinstance(state, tuple) else (state,)
    return [part for part in parts if isinstance(part, Items) and part.kind == "map"]


def _check_keys(target: Made, state: Abstract, findings: Findings) -> None:
    for part in _maps(state):
        keys = part.items[::2]
        # One large map may be given many times.
        findings.spend_opcodes(len(keys) if len(keys) > _MANY else 0)
        if any(type(key) is str and key.startswith("__") and key.endswith("__") for key in keys if key not in _PLAIN):
            findings.add("ckpt.pickle_build", f"a special attribute of {kind_of(target)}")
        if part.count != len(part.items) or any(isinstance(key, Made | Payload | Other) for key in keys):
            findings.add("ckpt.pickle_state", f"computed or too many attributes of {kind_of(target)}")


def check_shard_call(args: Abstract, findings: Findings) -> None:
    """Check the arguments of a shard's constructor: `( path, offset, length [ , transforms ] )`, or none."""
    if args == ():
        return
    check_shard_path(args[0] if isinstance(args, tuple) and args else NOTHING, findings)


def _check_shard_state(state: Abstract, findings: Findings) -> None:
    maps = _maps(state)
    entries = maps[0].plain_map() if len(maps) == 1 else None
    if entries is None:
        findings.add("ckpt.pickle_state", "a shard whose attributes are computed")
        return
    check_shard_path(entries.get("relative_path", NOTHING), findings)


def check_shard_path(name: Abstract, findings: Findings) -> None:
    """Add a finding for a shard outside the checkpoint's folder: it would be read without being scanned."""
    if type(name) is not str:
        findings.add("ckpt.pickle_state", "a shard whose path is computed")
        return
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or name[1:2] == ":" or "\0" in name:
        findings.add("ckpt.archive_path", f"a shard of a sharded checkpoint: {name}")
    elif len(parts) > 1:
        findings.add("ckpt.external_data", f"a shard in a folder of its own: {name}")


def kind_of(value: Abstract) -> str:
    """Return a short name of a value for a message."""
    if isinstance(value, Import):
        return printable_ascii(f"the import {value}", 80)
    if isinstance(value, Made):
        return (
            f"a result of {printable_ascii(str(value.callee), 60)}"
            if isinstance(value.callee, Import)
            else "a computed value"
        )
    if isinstance(value, Items | Other | Payload):
        return f"a {value.kind}"
    return "a tuple" if isinstance(value, tuple) else "a constant"
