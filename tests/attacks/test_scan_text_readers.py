"""Texts whose loader runs something, or leaves the folder, while another reader of the same text sees plain data."""

from __future__ import annotations

import json
import time

import pytest

from policyguard.scan.content import scan_content
from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.source import BytesSource

CLEAN, UNKNOWN, HOSTILE = Verdict.CLEAN, Verdict.UNKNOWN, Verdict.HOSTILE
CALL = "!!python/object/apply:os.system [x]"
LOGGING = "[handlers]\nkeys=h\n[handler_h]%s\nclass=StreamHandler\n%s\n"


def scanned(text: str, name: str = "") -> Findings:
    findings = Findings(name=name)
    scan_content(BytesSource(text.encode()), findings)
    return findings


def verdict(text: str, name: str = "") -> Verdict:
    return scanned(text, name).verdict


DIFFERS: dict[str, tuple[str, str, Verdict]] = {
    "YAML in a line comment of JSON": ("c.yaml", f'{{"a": 1,\n//: {CALL}\n}}', HOSTILE),
    "YAML in a block comment of JSON": ("c.yaml", f'{{"a": 1,\n/*: {CALL}, "b*/": 2}}', HOSTILE),
    "TOML that is YAML": ("c.toml", 'a = {_target_ = "os.system", b = "x: y"}\n', HOSTILE),
    "a build that is YAML": ("p", 'build-system = {requires=[], build-backend="lab", x="a: b"}\n', UNKNOWN),
    "INI that is YAML": ("c.cfg", "[a] : 1\n_target_ = os.system # : 1\n", HOSTILE),
    "INI with text behind a heading": ("c.cfg", "[a] tail\n_target_ = os.system\n", HOSTILE),
    "INI with a value on the next line": ("c.cfg", "[a]\n_target_ =\n  os.system\n", HOSTILE),
    "INI with a space in a key": ("c.cfg", "[a]\nmy args = eval(input())\n", UNKNOWN),
    "INI in a text of TOML": ("c.toml", '[a]\nx = """\n[b]\n_target_ = os.system\n""" # = 1\n', HOSTILE),
    "INI that goes on with an entry": ("c.cfg", "[a]\nargs =\n  [(x := eval),\n  x(input())]\n", UNKNOWN),
    "INI with a line of another kind": ("c.ini", "[a]\nhello\n_target_ = os.system\n", HOSTILE),
    "INI with carriage returns": ("c.cfg", "[a]\r_target_ = os.system\r", HOSTILE),
    "INI with a line separator of Unicode": ("c.cfg", "[a]\nargs = ('\u2028', eval(input()))\n", HOSTILE),
    "a program with carriage returns": ("c.txt", "x = 1\rimport os\r", UNKNOWN),
    "logging's arguments on the next line": ("l.ini", LOGGING % ("", "args=\n  (os.system('x'),)"), HOSTILE),
    "logging's arguments behind a heading": ("l.ini", LOGGING % (" x", "args=(os.system('x'),)"), HOSTILE),
    "a function that is passed on": ("l.ini", LOGGING % ("", "args=[*map(os.system,['x'])]"), UNKNOWN),
    "YAML that begins as a template": ("c.yaml", f"{{# }} {{{{ ! }}}}\na: {CALL} }}", HOSTILE),
    "YAML that is named as a template": ("c.template", f"a: {CALL}\n", HOSTILE),
    "a raw block that looks broken": ("c.json", '{"p": "{% raw %}{{ ! }}{% endraw %}{{ x.__class__ }}"}', HOSTILE),
    "a raw block in running text": ("p.txt", 'Hi {% raw %}{{ ! }}{% endraw %}{{ x|attr("_" ~ y) }}', UNKNOWN),
    "a name that is no word": ("c.json", '{"p": "{{ \u2118 }}{{ x.__class__ }}"}', UNKNOWN),
    "an attribute that is computed": ("p.txt", 'Hi {{ x|attr("_" ~ y) }}', UNKNOWN),
    "a function in other letters": ("c.json", '{"a": "\uff45val(input())"}', UNKNOWN),
    "a function in a list": ("c.json", '{"a": "[f for f in [torch.os.system]][0](1)"}', UNKNOWN),
}
"""Name of the attack -> name of the file, text, verdict."""


@pytest.mark.parametrize("name", sorted(DIFFERS))
def test_a_text_is_judged_by_every_reader(name: str) -> None:
    """INVARIANT I18: the reader chooses the syntax, so a text is judged in each one in which it is settings."""
    file, text, expected = DIFFERS[name]
    assert verdict(text, file) is expected


SIDE_FILES: dict[str, tuple[str, str, Verdict]] = {
    "gin": ("model.gin", "import os\nx.y = @os.system()\n", UNKNOWN),
    "make": ("Makefile", "all:\n\ttrue\n", UNKNOWN),
    "setuptools": ("setup.cfg", "[metadata]\nversion = attr: lab.v\n", UNKNOWN),
    "Python behind a semicolon": ("a.txt", "x = 1;import lab\n", UNKNOWN),
    "Python in another encoding": ("a.txt", "# -*- coding: rot13 -*-\nvzcbeg bf\n", UNKNOWN),
    "a language of settings that is not read": ("c.jsonnet", 'local a = import "b"; a\n', UNKNOWN),
    "pytest": ("pytest.ini", "[pytest]\naddopts = -p lab\n", UNKNOWN),
    "pdb": (".pdbrc", "!1\n", UNKNOWN),
    "R": (".Rprofile", "cat(1)\n", UNKNOWN),
    "git's hook without a first line": ("post-checkout", "true\n", UNKNOWN),
    "git's configuration": ("config", "[alias]\n\tst = !true\n", UNKNOWN),
    "Kaldi's pipe": ("wav.scp", "a cat a.wav |\n", UNKNOWN),
    "Kaldi's pipe in front": ("feats.scp", "a | cat a.wav\n", UNKNOWN),
    "DeepSpeed's tag above the folder": ("latest", "../../x/global_step1", HOSTILE),
    "DeepSpeed's tag elsewhere": ("latest", "/tmp/global_step1", UNKNOWN),
    "MLflow's pickle module": ("pickle_module_info.txt", "lab", UNKNOWN),
    "joblib's first compressed format": ("m.txt", "ZF0x1a               x^abc", UNKNOWN),
    "TensorFlow's checkpoint elsewhere": ("checkpoint", 'model_checkpoint_path: "/tmp/m"\n', UNKNOWN),
    "Caffe's layer in Python": ("n.prototxt", 'layer { python_param { module: "lab" layer: "L" } }\n', UNKNOWN),
    "Triton's backend among others": ("config.pbtxt", 'backend: "py" "thon"\ninput [ { dims: [ 1 ] } ]\n', UNKNOWN),
    "an operator that calls Python": ("g.pbtxt", 'node { name: "a" op: "PyFunc" }\n', UNKNOWN),
    "protocol buffers that do not parse": ("g.pbtxt", "node { name: {\n", UNKNOWN),
    "mmengine's import": ("c.json", '{"custom_imports": {"imports": ["lab"]}}', UNKNOWN),
    "dask's preload": ("c.yaml", "preload:\n- import os; os.getcwd()\n", UNKNOWN),
    "lhotse's command": ("r.jsonl", '{"sources": [{"type": "command", "source": "cat a"}]}\n{"a": 1}\n', UNKNOWN),
    "a table above the folder": ("state.json", '{"_data_files": [{"filename": "../x.arrow"}]}', HOSTILE),
    "references to chunks": ("r.json", '{"version": 1, "refs": {"x/0": ["http://x.invalid", 0, 1]}}', UNKNOWN),
    "references that are encoded": ("r.json", '{".zgroup": "{}", "x/.zarray": "base64:e30="}', UNKNOWN),
    "a library with a version": ("c.json", '{"path": "lib/libx.so.1"}', UNKNOWN),
    "a library without a suffix": ("c.json", '{"custom_ops_library": "lib/x"}', UNKNOWN),
    "a tool that carries its source": ("c.json", json.dumps({"source_code": "def f():\n    return 1\n"}), UNKNOWN),
    "a notebook without its suffix": ("n.json", '{"cells": [], "nbformat": 4}', UNKNOWN),
    "Jupyter's command": ("kernel.json", '{"argv": ["true"], "display_name": "x"}', UNKNOWN),
    "npm's script": ("package.json", '{"scripts": {"install": "true"}}', UNKNOWN),
    "a container's command": ("devcontainer.json", '{"postCreateCommand": "true"}', UNKNOWN),
    "a workflow": ("x.yml", "jobs:\n  a:\n    runs-on: x\n    steps:\n    - run: true\n", UNKNOWN),
    "a function by its place": ("cog.yaml", "train: train.py:train\n", UNKNOWN),
    "a key that ends as one of functions": ("c.json", '{"characters_class": "lab.thing"}', UNKNOWN),
    "a module beside a class": ("c.yaml", "class_name: Net\nmodule_name: lab\n", UNKNOWN),
    "the loader's variable": (".env", "LD_PRELOAD=./x\n", UNKNOWN),
}


@pytest.mark.parametrize("name", sorted(SIDE_FILES))
def test_a_side_file_that_runs_or_leads_away_is_not_clean(name: str) -> None:
    """INVARIANT I18: what a program runs unasked, or follows out of the folder, is not clean."""
    file, text, expected = SIDE_FILES[name]
    assert verdict(text, file) is expected


HARMLESS: dict[str, tuple[str, str]] = {
    "JSON with comments": ("c.json", '{"a": 1, // one\n "b": [2, /* two */ 3,]}'),
    "TOML": ("c.toml", '[model]\nsize = 3\nnames = ["a.b", "c: d"]\n'),
    "INI": ("c.cfg", "[model]\nsize = 3\nnames =\n  a\n  b\n"),
    "spaCy's configuration": (
        "config.cfg",
        '[nlp]\nlang = "en"\n[ner]\nfactory = "ner"\n@layers = "x.v1"\n',
    ),
    "a page with a raw block": ("README.md", "Hi.\n{% raw %}{{ ! }}{% endraw %}{{ messages['role'] }}"),
    "a card with a program in it": ("README.md", "# X\n\nNote: see it.\n\n    x = Image.open(get(url))\n\nThe end.\n"),
    "a card with badges": ("README.md", "# X\n\n[![a](b)](c)\n\nUse it:\n\nmodel = torch.load(path)\n\nThe end.\n"),
    "the metadata of a package": ("METADATA", "Name: x\nVersion: 1\n\nUse it.\n\nx = torch.load(path)\n"),
    "a page that quotes braces": ("README.md", "# X\n\nUse `{{ ! }}` and {{ name }}.\n"),
    "DeepSpeed's tag": ("latest", "global_step100"),
    "Megatron's iteration": ("latest_checkpointed_iteration.txt", "100\n"),
    "MLflow's pickle module": ("pickle_module_info.txt", "mlflow.pytorch.pickle_module"),
    "TensorFlow's checkpoint": (
        "checkpoint",
        'model_checkpoint_path: "m-1"\nall_model_checkpoint_paths: "m-1"\n',
    ),
    "Triton's configuration": (
        "config.pbtxt",
        'name: "m"\nbackend: "onnx"\ninput [ { dims: [ 1, -1 ] } ] # x\n',
    ),
    "Kaldi's list": ("wav.scp", "a wav/a.wav\nb wav/b.wav\n"),
    "a saved data set": ("state.json", '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}'),
    "an activation": ("c.json", '{"activation_fn": "gelu", "act": "nn.SiLU()"}'),
    "a page about os.path": ("README.md", "Use os.path.join(a, b) here. Then run it.\n"),
    "text that begins with two letters": ("a.txt", "ZF Friedrichshafen\n"),
}


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_the_harmless_twin_is_clean(name: str) -> None:
    """What an ordinary folder holds beside its weights is clean."""
    file, text = HARMLESS[name]
    assert scanned(text, file).reasons == set()


SLOW: dict[str, str] = {
    "a long sum in a template": "{{ x" + " + x" * 100_000 + " }}",
    "many keys in a template": "{{ x" + "[0]" * 100_000 + " }}",
    "nested keys in a template": "{{ x" + "[x" * 20_000 + "]" * 20_000 + " }}",
    "nested filters in a template": "{{ x" + '|map("upper", x' * 10_000 + ")" * 10_000 + " }}",
    "empty lines before a brace": " " * 20_000 + "\n" * 20_000 + "{",
    "a dotted key of TOML": ".".join("a" * 50_000) + " = 1\n",
    "an import of a long name": "import " + "a." * 100_000 + "a",
    "a dotted name": json.dumps({"type": "a" * 50_000 + ".b" * 50_000 + "!"}),
    "an override": json.dumps({"x": "a" * 50_000 + "=="}),
    "substitutions of a shell": json.dumps({"x": "$(" * 50_000}),
    "underscores": json.dumps({"x": "__a" * 50_000}),
    "a path of code": json.dumps({"x": "a/" * 50_000 + ".py!"}),
}


@pytest.mark.parametrize("name", sorted(SLOW))
def test_a_small_text_does_not_take_the_square_of_its_length(name: str) -> None:
    """A scan of some hundred kilobytes ends within seconds of processor time."""
    began = time.process_time()
    verdict(SLOW[name])
    assert time.process_time() - began < 10
