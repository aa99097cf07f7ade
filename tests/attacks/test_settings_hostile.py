"""Settings that make their loader run code or leave its folder, in every spelling, and their harmless twins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from policyguard.scan.content import scan_content
from policyguard.scan.files import scan_file, scan_paths
from policyguard.scan.findings import CheckpointScan, Findings, Limits, Verdict
from policyguard.scan.source import BytesSource
from tests.attacks.checkpoint_lab import tarred, zipped

DATA = Path(__file__).parents[1] / "data" / "scan"
CLEAN, UNKNOWN, HOSTILE = Verdict.CLEAN, Verdict.UNKNOWN, Verdict.HOSTILE


def scanned(text: str | bytes, name: str = "") -> Findings:
    findings = Findings(name=name)
    scan_content(BytesSource(text if isinstance(text, bytes) else text.encode()), findings)
    return findings


NAMES_CODE: dict[str, tuple[str, Verdict]] = {
    "hydra's target through a listed module": ('{"m": {"_target_": "pathlib.os.system"}}', HOSTILE),
    "hydra's target through an unlisted library": ('{"m": {"_target_": "omegaconf.omegaconf.os.system"}}', HOSTILE),
    "hydra's target of somebody's module": ('{"m": {"_target_": "lab.models.Net"}}', UNKNOWN),
    "a key spelled with escapes": ('{"\\u005ftarget_": "os.system"}', HOSTILE),
    "a value spelled with escapes": ('{"_target_": "\\u006fs.system"}', HOSTILE),
    "the first of two equal keys": ('{"_target_": "os.system", "_target_": "torch.nn.Linear"}', HOSTILE),
    "the second of two equal keys": ('{"_target_": "torch.nn.Linear", "_target_": "os.system"}', HOSTILE),
    "a byte order mark before it": ('\ufeff{"_target_": "os.system"}', HOSTILE),
    "NaN beside it": ('{"a": NaN, "_target_": "os.system"}', HOSTILE),
    "a number of 5,000 digits beside it": ('{"a": %s, "_target_": "os.system"}' % ("9" * 5000), HOSTILE),
    "a line break in a string beside it": ('{"a": "x\ny", "_target_": "os.system"}', HOSTILE),
    "the second line of JSON Lines": ('{"a": 1}\n{"_target_": "os.system"}\n', HOSTILE),
    "JSON in a string": (json.dumps({"config": json.dumps({"_target_": "os.system"})}), HOSTILE),
    "JSON in a string in YAML": ('config: \'{"_target_": "os.system"}\'\n', HOSTILE),
    "JSON with a comma too much": ('{"_target_": "os.system",}', HOSTILE),
    "JSON with a comment": ('{"_target_": "os.system", // x\n}', HOSTILE),
    "JSON that ends too early": ('{"_target_": "os.system"', UNKNOWN),
    "YAML, an explicit key": ("m:\n  ? _target_\n  : os.system\n", HOSTILE),
    "YAML, the value on the next line": ("m:\n  _target_:\n    os.system\n", HOSTILE),
    "YAML, quoted": ("m:\n  '_target_' : \"os.system\"\n", HOSTILE),
    "YAML, an escaped key": ('m:\n  "\\x5ftarget_": os.system\n', HOSTILE),
    "YAML, a folded value": ("m:\n  _target_: >-\n    os.system\n", HOSTILE),
    "YAML, a flow map": ("m: {_target_: os.system}\n", HOSTILE),
    "YAML, an alias as the value": ("a: &x os.system\nm:\n  _target_: *x\n", HOSTILE),
    "YAML, an alias as the key": ("a: &x _target_\nm:\n  *x : os.system\n", HOSTILE),
    "YAML, a merge key": ("a: &x {_target_: os.system}\nm:\n  <<: *x\n", HOSTILE),
    "YAML, the second document": ("a: 1\n---\n_target_: os.system\n", HOSTILE),
    "YAML, the first of two documents, the second broken": ("_target_: os.system\n---\n[", UNKNOWN),
    "YAML, a complex key": ("? {_target_: os.system}\n: 1\n", HOSTILE),
    "YAML, a version that libyaml refuses": ("%YAML 1.9\n---\na: !!python/object/apply:os.system [x]\n", HOSTILE),
    "YAML, a percent-encoded tag": ("a: !!python%2Fobject/apply:os.system [x]\n", HOSTILE),
    "YAML, a tag behind a directive": (
        "%TAG !p! tag:yaml.org,2002:pyth\n---\na: !p!on/object/apply:os.system [x]\n",
        HOSTILE,
    ),
    "YAML, a verbatim tag": ("a: !<tag:yaml.org,2002:python/object/apply:os.system> [x]\n", HOSTILE),
    "YAML, a tag on a key": ("!!python/object/apply:os.system [x] : 1\n", HOSTILE),
    "YAML, a tag of a class": ("a: !!python/object:lab.Net {}\n", UNKNOWN),
    "YAML, a name as a tag": ("a: !!python/name:os.system ''\n", HOSTILE),
    "YAML, an application's tag": ("a: !include other.yaml\n", UNKNOWN),
    "TOML": ('[model]\n_target_ = "os.system"\n', HOSTILE),
    "TOML, a dotted key": ('model._target_ = "os.system"\n', HOSTILE),
    "INI": ("[model]\n_target_ = os.system\n", HOSTILE),
    "an override of hydra": ("- model._target_=os.system\n", HOSTILE),
    "an ordinary package of Python": ('[build-system]\nbuild-backend = "setuptools.build_meta"\n', UNKNOWN),
    "a build backend of the attacker's": ('[build-system]\nbuild-backend = "setuptools.os.system"\n', HOSTILE),
    "a template in a key": ('{"{{ cycler.__init__.__globals__.os.popen(1) }}": 1}', UNKNOWN),
    "hydra's target among the words of a vocabulary": (
        '{"type": "BPE", "merges": [], "vocab": {"a": 1, "_target_": "os.system"}}',
        HOSTILE,
    ),
    "jsonargparse": ("m:\n  class_path: subprocess.Popen\n", HOSTILE),
    "torchtune": ("m:\n  _component_: os.system\n", HOSTILE),
    "latent diffusion": ("m:\n  target: ldm.models.Net\n  params: {}\n", UNKNOWN),
    "a function as an argument": ("_target_: hydra.utils.get_method\npath: os.system\n", HOSTILE),
    "sentence-transformers' parts": ('[{"idx": 0, "name": "0", "path": "", "type": "lab_modules.Head"}]', UNKNOWN),
    "sentence-transformers' activation": ('{"activation_function": "lab.Act"}', UNKNOWN),
    "diffusers' component": ('{"_class_name": "P", "unet": ["my_unet", "LabUNet"]}', UNKNOWN),
    "MLflow's loader": ("flavors:\n  python_function:\n    loader_module: lab_loader\n", UNKNOWN),
    "MLflow's code": ("flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n    code: code\n", UNKNOWN),
    "MLflow's model from code": ("loader_module: mlflow.pyfunc.model\nmodel_code_path: notes.txt\n", UNKNOWN),
    "MLflow's trusted names": ("flavors:\n  sklearn:\n    skops_trusted_types: [builtins.exec]\n", HOSTILE),
    "a requirement with a command": ("dependencies:\n- pip==24.0; true $(touch /tmp/x)\n", UNKNOWN),
    "a requirement from elsewhere": ("dependencies:\n- pip: ['git+https://x.invalid/y']\n", UNKNOWN),
    "MONAI's expression": ("{\"device\": \"$__import__('os').system('true')\"}", HOSTILE),
    "MONAI's expression in brackets": ('{"device": "$(os.system(\'true\'))"}', HOSTILE),
    "MONAI's import": ('{"imports": ["$import lab"]}', UNKNOWN),
    "jsonpickle's call": ('{"py/reduce": [{"py/function": "os.system"}, {"py/tuple": ["true"]}]}', HOSTILE),
    "jsonpickle's class": ('{"py/object": "lab.Net", "a": 1}', UNKNOWN),
    "langchain's constructor": ('{"lc": 1, "type": "constructor", "id": ["lab", "Net"], "kwargs": {}}', UNKNOWN),
    "zarr's pickle": ('{"zarr_format": 2, "filters": [{"id": "pickle"}]}', UNKNOWN),
    "zarr's pickle, version 3": ('{"zarr_format": 3, "codecs": [{"name": "numcodecs.pickle"}]}', UNKNOWN),
    "a column that is unpickled": ('{"format": "mds", "column_encodings": ["pkl", "int"]}', UNKNOWN),
    "a data set that runs Python": ("train: x\ndownload: |\n  import os\n  os.system('true')\n", HOSTILE),
    "a data set that runs a script": ("train: x\ndownload: bash get.sh\n", UNKNOWN),
    "ModelScope's plugins": ('{"plugins": ["http://mirror.invalid/plugin.tar.gz"]}', UNKNOWN),
    "ModelScope's switch": ('{"allow_remote": true}', UNKNOWN),
    "peft's library": ('{"auto_mapping": {"base_model_class": "system", "parent_library": "os"}}', UNKNOWN),
    "mlx-lm's file": ('{"model_type": "llama", "model_file": "modeling_lab.py"}', UNKNOWN),
    "Keras' Lambda": ('{"class_name": "Lambda", "config": {"function": "x"}}', HOSTILE),
    "Keras' Lambda, given first": ('{"class_name": "Lambda", "config": {}, "class_name": "Dense"}', HOSTILE),
    "skops' function": ('{"__class__": "system", "__module__": "os", "__loader__": "FunctionNode"}', HOSTILE),
    "skops' type": ('{"__class__": "system", "__module__": "posix", "__loader__": "TypeNode"}', HOSTILE),
    "skops' caller": (
        '{"__class__": "methodcaller", "__module__": "operator", "__loader__": "OperatorFuncNode"}',
        HOSTILE,
    ),
    "yolo's arguments": ("backbone:\n- [-1, 1, Conv, [\"__import__('os').system('true')\"]]\nhead: []\n", HOSTILE),
    "yolo's module": ("backbone: []\nhead:\n- [-1, 1, torch.os.system, ['true']]\n", HOSTILE),
    "a logging handler": ("handlers:\n  a:\n    (): os.system\n", HOSTILE),
    "a resolver that evaluates": ("a: ${eval:'1+1'}\n", UNKNOWN),
    "a function in a string": ('{"normalize": "lambda x: x.strip()"}', UNKNOWN),
    "a call in a string": ('{"normalize": "eval(input())"}', UNKNOWN),
    "a name under any key": ('{"whatever": "os.system"}', UNKNOWN),
    "a file of code under any key": ('{"whatever": "sub/helpers.py"}', UNKNOWN),
    "a shard above the folder": ('{"weight_map": {"w": "../../x.safetensors"}}', HOSTILE),
    "a shard at the root": ('{"weight_map": {"w": "/tmp/x.safetensors"}}', HOSTILE),
    "a shard on a drive": ('{"weight_map": {"w": "C:\\\\x.safetensors"}}', HOSTILE),
    "a shard on a server": ('{"weight_map": {"w": "http://x.invalid/y"}}', HOSTILE),
    "a template that puts a name together": ("{\"chat_template\": \"{{ ''['_' '_class_' '_'] }}\"}", HOSTILE),
    "a template that joins a name": ("{\"chat_template\": \"{{ ''[['_','_class_','_']|join] }}\"}", UNKNOWN),
    "a template that formats a name": ("{\"chat_template\": \"{{ ''['%c%cclass' % (95,95)] }}\"}", UNKNOWN),
    "a template in a list": ('{"chat_template": [{"name": "a", "template": "{{ x.__class__ }}"}]}', HOSTILE),
    "a template under any key": ('{"prompt": "{{ x.__class__.__mro__ }}"}', HOSTILE),
    "a template in YAML": ("chat_template: |\n  {{ x.__class__ }}\n", HOSTILE),
    "a template as a file": ("{{ x['a' ~ y] }}", UNKNOWN),
    "a way to the interpreter in running text": ("Hello {{ x.__class__.__mro__ }}", UNKNOWN),
    "a class under any key": ('{"whatever": "lab.models.Net"}', UNKNOWN),
    "a function under a key of functions": ('{"func": "lab.make_net"}', UNKNOWN),
    "a switch as a number": ('{"trust_remote_code": 1}', UNKNOWN),
    "a comment before JSON": ('// x\n{"_target_": "os.system"}\n', HOSTILE),
    "JSON in comments and single quotes": ("/* x */ {'_target_': 'os.system',}", HOSTILE),
    "YAML, a bare document": ("a: 1\n...\n_target_: os.system\n", HOSTILE),
    "INI with colons": ("[a]\n_target_: os.system\n", HOSTILE),
    "a resolver of a program": ("a: ${resolve:os.system}\n", UNKNOWN),
    "a logging stream": ("stream: ext://os.system\n", UNKNOWN),
    "a pipe of webdataset": ('{"urls": "pipe:curl http://x.invalid"}', UNKNOWN),
    "Triton's backend": ('name: "x"\nbackend: "python"\n', UNKNOWN),
    "peft's Megatron": ('{"megatron_core": "evil.core", "megatron_config": {"a": 1}}', UNKNOWN),
    "zarr's pickle without a version": ('{"filters": [{"id": "pickle"}]}', UNKNOWN),
    "sentence-transformers' parts, a function": ('[{"idx": 0, "name": "0", "type": "joblib.numpy_pickle"}]', UNKNOWN),
    "a diffusion pipeline's module": ('{"_class_name": "XPipeline", "unet": ["My_unet", "unet"]}', UNKNOWN),
    "running text with a computed key": ("Hi.\n{% for m in ms %}{{ m['_' ~ 'x'] }}{% endfor %}", UNKNOWN),
    "a program without an import": ("__import__('os').system('true')\n", UNKNOWN),
    "a program that is YAML": ("def load():\n    return 1\n", UNKNOWN),
    "a program": ("import os\nos.system('true')\n", UNKNOWN),
}


@pytest.mark.parametrize("name", sorted(NAMES_CODE))
def test_settings_that_name_code_are_not_clean(name: str) -> None:
    """INVARIANT I18: whatever the file is called, at any depth, in every spelling that a loader reads."""
    text, verdict = NAMES_CODE[name]
    assert scanned(text).verdict is verdict


TWINS: dict[str, str] = {
    "a target of a listed class": '{"m": {"_target_": "torch.nn.Linear"}}',
    "JSON Lines": '{"text": "call eval(x) or os.system"}\n{"text": "{{ not a template"}\n',
    "JSON in a string": json.dumps({"config": json.dumps({"hidden_size": 8})}),
    "YAML with anchors": "a: &x {lr: 1}\nb:\n  <<: *x\n",
    "YAML with harmless tags": "a: !!python/tuple [0.9, 0.999]\nb: !!float 1\n",
    "YAML, a path": "a: !!python/object/apply:pathlib.PosixPath [runs]\n",
    "TOML": '[model]\nname = "x"\n',
    "sentence-transformers' activation": '{"activation_function": "torch.nn.modules.activation.Tanh"}',
    "a plain activation": '{"activation_function": "gelu_new", "type": "linear"}',
    "diffusers' blocks": '{"_class_name": "UNet2DModel", "down_block_types": ["DownBlock2D", "AttnDownBlock2D"]}',
    "diffusers' component": '{"_class_name": "P", "unet": ["diffusers", "UNet2DConditionModel"], "x": [null, null]}',
    "MLflow": "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n    data: model.pkl\n    code: null\n",
    "requirements": "dependencies:\n- python=3.11\n- pip<=24.0\n- pip:\n  - mlflow==3.1\n  - numpy>=1.2,<2\n",
    "a bill of materials": '{"dependencies": [{"ref": "pkg:pypi/a@1"}, {"ref": "b", "dependsOn": ["pkg:pypi/a@1"]}]}',
    "a price": '{"price": "$5.00", "home": "$HOME/x", "ref": "$@model"}',
    "jsonpickle's plain values": '{"a": {"py/tuple": [1, 2]}}',
    "zarr": '{"zarr_format": 2, "filters": null, "compressor": {"id": "blosc", "cname": "lz4"}}',
    "columns": '{"format": "mds", "column_encodings": ["jpeg", "int", "ndarray:uint8"]}',
    "a data set": "path: ../datasets/lab\ntrain: images/train\nnames: {0: part}\n",
    "switches that are off": '{"trust_remote_code": false, "allow_remote": false, "weights_only": true, "plugins": []}',
    "peft's library": '{"auto_mapping": {"base_model_class": "M", "parent_library": "transformers.models.llama"}}',
    "yolo": "backbone:\n- [-1, 1, Conv, [64, 3, 2]]\nhead:\n- [-1, 1, nn.Upsample, [None, 2, nearest]]\n",
    "names of layers": '{"target_modules": ["self_attn.q_proj", "attn.Wqkv"], "tied": ["lm_head.weight"]}',
    "files": '{"files": ["model.safetensors", "code.json", "test.csv", "os.txt"], "site": "en.wikipedia.org"}',
    "an index": '{"weight_map": {"w": "model-00001-of-00002.safetensors"}}',
    "a tokenizer's words": json.dumps(
        {"model": {"type": "BPE", "vocab": {"os.system": 1}, "merges": ["{{ }}", "{% %}", "eval ("]}}
    ),
    "a tokenizer's words, of an older version": json.dumps(
        {"model": {"vocab": {"lc": 1}, "merges": ["| sh", ["$", "("], "lab.Net", "f ()", "os .system"]}}
    ),
    "words with numbers": json.dumps(dict.fromkeys(("lc", "id", "type", "path", "class_name", "config", "idx"), 7)),
    "a tokenizer's scores": json.dumps({"model": {"type": "Unigram", "vocab": [["os.system", 0.0], ["$x", -1.5]]}}),
    "a template": "{\"chat_template\": \"{% for m in messages %}{{ m['role'] }}{{ '__end__' }}{% endfor %}\"}",
    "braces of another language": '{"doc": "\\\\frac{{a}}{{b}} and ${{ matrix.os }}"}',
    "a log": "2026-11-28 10:00 INFO start: eval(x)\n[rank0]: Traceback (most recent call last):\n",
    "prose that parses as Python": '{"context": "Python (e.g. os.system) is used; run() is called"}',
    "versions and people": '{"a": "v1.Beta", "author": "j.Doe", "site": "github.com"}',
    "a channel of conda": "dependencies: [pytorch::pytorch=2.1]\n",
    "a page with Liquid": "# X\n\n{% raw %}{{ x }}{% endraw %}\n{% include foo.html %}\n",
    "a page with a template": "# X\n\n{% for message in messages %}{{ message['role'] }}{% endfor %}\n",
    "a page with braces": "# Model\nUse `{{ x.__class__ }}`? No.\n",
    "a page with front matter": "---\nlicense: mit\n---\n# Model\n\n```python\nimport os\nprint(os.getcwd())\n```\n",
    "a page that mentions targets": "# Use\n\nSet `_target_: os.system`? Never.\n",
    "words, one a line": "[PAD]\n[UNK]\nimport\n##ing\n{{\n}}\n",
    "merges": "#version: 0.2\ni n\nt h\n",
    "a licence": "MIT License\n\nCopyright (c) 2026: the authors\n\nPermission is granted\n",
    "a table": "step,loss\n1,0.5\n2,0.25\n",
}


@pytest.mark.parametrize("name", sorted(TWINS))
def test_the_harmless_twin_is_clean(name: str) -> None:
    """One step away: the same libraries, with nothing that runs."""
    findings = scanned(TWINS[name])
    assert (findings.verdict, findings.reasons) == (CLEAN, set())


REPORTED = DATA / "settings"


@pytest.mark.parametrize("path", sorted((REPORTED / "hostile").iterdir()), ids=lambda path: path.name)
def test_no_reported_settings_that_run_code_are_clean(path: Path) -> None:
    """INVARIANT I18: each folder is one public report, or one kind of file that a real loader ran."""
    weights = {"model.safetensors", "0", "notes.txt", "model_weights.ckpt"}
    files = [scan for scan in scan_paths([path]) if Path(scan.path).name not in weights]
    assert any(scan.verdict is not CLEAN for scan in scan_paths([path]))
    if path.name in ("settings", "tokenizer"):
        assert [scan.path for scan in files if scan.verdict is CLEAN] == []


@pytest.mark.parametrize("path", sorted((REPORTED / "harmless").rglob("*.*")), ids=lambda path: path.name)
def test_no_reported_harmless_settings_are_hostile(path: Path) -> None:
    """`hostile` accuses somebody: a page with braces is clean, functions of a library are unknown."""
    expected = CLEAN if path.name in ("README.md", "poisoned.gguf") else UNKNOWN
    assert scan_file(path).verdict is expected


@pytest.mark.parametrize(
    "scan",
    [scan for folder in sorted((DATA / "folders").iterdir()) for scan in scan_paths([folder])],
    ids=lambda scan: "/".join(Path(scan.path).parts[-2:]),
)
def test_the_files_of_an_ordinary_folder_are_clean(scan: CheckpointScan) -> None:
    """Configuration, tokenizer, index, card and requirements, as the libraries write them."""
    assert (scan.verdict, scan.reasons) == (CLEAN, ())


def test_a_name_makes_a_verdict_stricter_only() -> None:
    """INVARIANT I18: a template by name, settings by name; the other way round nothing changes."""
    assert scanned("Use {{ x.__class__ }}").verdict is CLEAN
    assert scanned("Use {{ x.__class__ }}", "chat_template.jinja").verdict is HOSTILE
    assert scanned("a: [", "config.yaml").verdict is UNKNOWN
    assert scanned("os.system\n", "requirements.txt").verdict is CLEAN
    assert scanned("git+https://x.invalid/y\n", "requirements.txt").verdict is UNKNOWN
    assert scanned('{"_target_": "os.system"}', "README.md").verdict is HOSTILE


def test_a_template_and_settings_are_known_by_their_digests(tmp_path: Path) -> None:
    """A template that adds an instruction runs no code; a policy pins the digest of the one that was reviewed."""
    (scan,) = scan_paths([REPORTED / "harmless" / "pinned" / "poisoned.gguf"])
    assert len(scan.templates) == 1
    template = "{% for m in messages %}{{ m.role }}{% endfor %}"
    for name, text in (("a.jinja", template), ("tokenizer_config.json", json.dumps({"chat_template": template}))):
        (tmp_path / name).write_text(text)
        assert scan_file(tmp_path / name).templates == (hashlib.sha256(template.encode()).hexdigest(),)
    settings = scan_file(tmp_path / "tokenizer_config.json")
    assert settings.configurations == (settings.sha256,)


@pytest.mark.parametrize("pack", [zipped, tarred], ids=["zip", "tar"])
def test_a_name_in_an_archive_counts(pack: Callable[[dict[str, bytes]], bytes]) -> None:
    """INVARIANT I18: NeMo and Keras keep settings and templates in archives."""
    assert scanned(pack({"x/chat_template.jinja": b"Use {{ x.__class__ }}"})).verdict is HOSTILE
    assert scanned(pack({"x/config.json": b'{"a"'})).verdict is UNKNOWN
    assert scanned(pack({"x/notes.txt": b"Use {{ x.__class__ }}"})).verdict is CLEAN


MUTATIONS = 400


def test_changed_settings_raise_nothing() -> None:
    """INVARIANT I18: a fixture changed at random has a verdict, in bounded time."""
    random = Random(10)
    texts = [path.read_bytes() for path in sorted(DATA.glob("folders/**/*.*")) if path.is_file()]
    texts += [text.encode() for text, _ in NAMES_CODE.values()]
    pieces = [
        b"{",
        b"[",
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!python/name:os.system",
        b"%TAG ! x\n",
        b"\x0b",
        b"\xc2\x85",
        b"$(",
        b"{{",
        b"? ",
    ]
    for _ in range(MUTATIONS):
        text = bytearray(random.choice(texts)[:4000])
        for _ in range(random.randint(1, 5)):
            at = random.randrange(len(text) + 1)
            text[at : at + random.choice((0, 0, 1, 5))] = random.choice(pieces)
        scanned(bytes(text), random.choice(("", "a.json", "a.yaml", "a.jinja", "requirements.txt")))


def test_a_finding_says_where() -> None:
    """A path in settings, a line and a column in a text."""
    assert {one.where for one in scanned('{"a": [{"_target_": "os.system"}]}').reasons} == {"$.a[0]._target_"}
    assert {one.where for one in scanned("a: 1\nb: !!python/name:os.system ''\n").reasons} == {"2:4"}
    assert {one.where for one in scanned("x\n{{ y.__class__ }}", "chat_template.jinja").reasons} == {"2:3"}


BAD: dict[str, bytes] = {
    "a million brackets": b"[" * 1_000_000,
    "a million braces": b'{"a":' * 1_000_000,
    "YAML of a million brackets": b"a: " + b"[" * 1_000_000,
    "a billion laughs": b"a: &a [x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(20)),
    "a billion merges": b"a: &a {x: 1, y: 2, z: os.system}\n"
    + b"".join(b"%c: &%c {<<: [%s]}\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(12)),
    "a circle": b"a: &a [*a]\nb: !!python/object/apply:os.system [*a]\n",
    "ten thousand directives": b"%TAG ! x\n" * 10_000 + b"---\na: 1\n",
    "text that is not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"_target_": "os.system"}'.encode("utf-16"),
    "an expression of a million minus signs": b'{"a": "$' + b"-" * 1_000_000 + b'f()"}',
    "an expression of many brackets": b'{"a": "$' + b"(" * 5000 + b"f()" + b")" * 5000 + b'"}',
    "JSON in JSON in JSON": b"",
}
nested = "1"
for _ in range(8):
    nested = json.dumps({"a": nested if nested.startswith("{") else {"b": 1}})
BAD["JSON in JSON in JSON"] = nested.encode()


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_settings_have_a_verdict_in_bounded_time(name: str) -> None:
    """INVARIANT I18: nested for ever, huge or broken: never clean, never a traceback."""
    findings = Findings(limits=Limits(time_s=20.0))
    scan_content(BytesSource(BAD[name]), findings)
    assert findings.verdict is not CLEAN


def test_a_file_cut_short_is_not_clean(tmp_path: Path) -> None:
    """INVARIANT I18: settings by name, cut at every byte."""
    text = '{"model_type": "llama", "hidden_size": 8, "layers": [1, 2, 3]}'
    path = tmp_path / "config.json"
    for size in range(1, len(text)):
        path.write_text(text[:size])
        assert scan_file(path).verdict is UNKNOWN


def test_a_thousand_small_files_are_quick(tmp_path: Path) -> None:
    """A folder of settings costs milliseconds a file; the bound leaves room for a busy machine."""
    import time

    for number in range(1000):
        (tmp_path / f"{number}.json").write_text(json.dumps({"hidden_size": number, "name": f"layer.{number}"}))
    began = time.perf_counter()
    assert all(scan.verdict is CLEAN for scan in scan_paths([tmp_path]))
    assert time.perf_counter() - began < 6.0


def test_a_template_that_no_list_has_room_for_is_not_clean() -> None:
    """INVARIANT I18: a policy that pins every digest must not miss the one behind the limit."""
    many = "".join(f'{{"chat_template": "{{{{ x }}}} {index}"}}\n' for index in range(300))
    findings = scanned(many)
    assert len(findings.templates) == 256
    assert findings.verdict is UNKNOWN
    assert {reason.code for reason in findings.reasons} == {"ckpt.too_large"}
