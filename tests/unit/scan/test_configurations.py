"""A model's configuration is text that names code for its loader; such text is not clean, and plain settings are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policyguard.scan.files import scan_file
from policyguard.scan.findings import Verdict


def codes(folder: Path, text: str, name: str = "config.json") -> tuple[Verdict, set[str]]:
    (folder / name).write_text(text)
    scan = scan_file(folder / name)
    return scan.verdict, {reason.code for reason in scan.reasons}


NAMING = [
    ({"auto_map": {"AutoModel": "other/net--modeling.Net"}}, "hub.foreign_code"),
    ({"text_config": {"auto_map": {"AutoTokenizer": [None, "other/net--fast.Tok"]}}}, "hub.foreign_code"),
    ({"auto_map": {"AutoModel": "modeling.Net"}}, "hub.own_code"),
    ({"layers": [{"attn_implementation": "kernels-community/flash-attn"}]}, "hub.remote_kernels"),
    ({"use_kernels": True}, "hub.remote_kernels"),
]


@pytest.mark.parametrize(("config", "code"), NAMING)
def test_a_configuration_that_names_code_is_not_clean(config: object, code: str, tmp_path: Path) -> None:
    """INVARIANT I18: at any depth."""
    assert codes(tmp_path, json.dumps(config)) == (Verdict.UNKNOWN, {code})


def test_of_two_entries_of_one_name_both_count(tmp_path: Path) -> None:
    """INVARIANT I18: readers differ in which of two they take."""
    text = '{"auto_map": {"AutoModel": "other/net--modeling.Net"}, "auto_map": {}}'
    assert codes(tmp_path, text) == (Verdict.UNKNOWN, {"hub.foreign_code"})


PLAIN = {
    "hidden_size": 8,
    "attn_implementation": "flash_attention_2",
    "auto_map": {},
    "_class_name": "Pipeline",
    "auto_mapping": {"parent_library": "transformers.models.llama.modeling_llama"},
    "optim": {"_target_": "torch.optim.AdamW"},
    "when": {"_target_": "datetime.timedelta", "days": 1},
    "net": {"_target_": "torch.nn.Linear", "in_features": 8},
}


def test_plain_settings_are_clean(tmp_path: Path) -> None:
    """The twin: classes to build, built-in attention, adapters of installed libraries."""
    assert codes(tmp_path, json.dumps(PLAIN)) == (Verdict.CLEAN, set())


CALLS = [
    ("os.system", Verdict.HOSTILE, "ckpt.target_call"),
    ("builtins.exec", Verdict.HOSTILE, "ckpt.target_call"),
    ("subprocess.run", Verdict.HOSTILE, "ckpt.target_call"),
    ("eval", Verdict.HOSTILE, "ckpt.target_call"),
    ("torch.hub.load", Verdict.UNKNOWN, "ckpt.target_unlisted"),
]


@pytest.mark.parametrize(("target", "verdict", "code"), CALLS)
def test_a_function_to_call_is_named(target: str, verdict: Verdict, code: str, tmp_path: Path) -> None:
    """hydra's `instantiate` calls whatever `_target_` names: in JSON, also escaped, and in YAML."""
    assert codes(tmp_path, json.dumps({"net": [{"_target_": target}]})) == (verdict, {code})
    assert codes(tmp_path, '{"\\u005ftarget_": "%s"}' % target) == (verdict, {code})  # noqa: UP031
    assert codes(tmp_path, f"net:\n  _target_: {target}\n", "model_config.yaml") == (verdict, {code})
    assert codes(tmp_path, f"net:\n  '_target_' : \"{target}\"\n", "model_config.yaml") == (verdict, {code})
