"""Files of libraries of all kinds that run code, unpickle or lead elsewhere: none is clean; their twins are."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
from pathlib import Path

import pytest

from policyguard.scan.files import scan_file
from policyguard.scan.findings import Verdict
from policyguard.scan.formats.registry import category_by_suffix
from tests.attacks.checkpoint_lab import calls_stacked, zipped

CLEAN, UNKNOWN, HOSTILE = Verdict.CLEAN, Verdict.UNKNOWN, Verdict.HOSTILE
EVIL = calls_stacked("os", "system")
IN_BASE64 = base64.b64encode(EVIL).decode()
PLAIN = pickle.dumps({"rate": 1})
R_TEXT = b"A\n3\n262912\n197888\n5\nUTF-8\n6\n1\n"

FILES: dict[str, tuple[str, str | bytes, Verdict]] = {
    "Ray Tune: a pickle in hexadecimal digits": (
        "experiment_state.json",
        json.dumps({"a": {"_type": "CLOUDPICKLE_FALLBACK", "value": EVIL.hex()}}),
        HOSTILE,
    ),
    "Ray Tune: a pickle that nobody reads here": (
        "experiment_state.json",
        json.dumps({"a": {"_type": "CLOUDPICKLE_FALLBACK", "value": "x"}}),
        UNKNOWN,
    ),
    "stable-baselines3: a pickle in base64 in a zip": (
        "model.zip",
        zipped({"data": json.dumps({"policy": {":serialized:": IN_BASE64}}).encode()}),
        HOSTILE,
    ),
    "a pickle in base64 under any key": ("a.json", json.dumps({"b": IN_BASE64}), HOSTILE),
    "a harmless pickle in base64 under any key": (
        "a.json",
        json.dumps({"b": base64.b64encode(PLAIN).decode()}),
        UNKNOWN,
    ),
    "a pickle in base64 in lines": ("a.json", json.dumps({"b": IN_BASE64[:9] + "\n" + IN_BASE64[9:]}), HOSTILE),
    "a pickle in spaced hexadecimal digits": ("a.json", json.dumps({"b": EVIL.hex(" ")}), HOSTILE),
    "a pickle in base64 in YAML": ("a.yaml", f"b: {IN_BASE64}\n", HOSTILE),
    "a pickle in base64 for addresses": ("a.json", json.dumps({"b": base64.urlsafe_b64encode(EVIL).decode()}), HOSTILE),
    "logging: arguments of a handler": (
        "logging.conf",
        "[loggers]\nkeys=root\n[handler_h]\nclass=StreamHandler\nargs=(print(1),)\n",
        UNKNOWN,
    ),
    "logging: arguments that run a command": ("logging.conf", "[handler_h]\nargs=(os.system('x'),)\n", HOSTILE),
    "R: data as text, whose promises run": ("model.rds", R_TEXT, UNKNOWN),
    "R: data as text, compressed": ("model.rds", gzip.compress(R_TEXT), UNKNOWN),
    "R: an image of a session": ("model.rda", b"RDX3\nX\n\0\0\0\3", UNKNOWN),
    "OpenVINO without a declaration": ("model.xml", '<net name="m" version="11"/>', UNKNOWN),
    "PMML": ("model.pmml", '<PMML version="4.4"/>', UNKNOWN),
    "XML by its name": ("model.xml", "<lab/>", UNKNOWN),
    "an external entity": ("a.svg", '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', UNKNOWN),
    "detectron2: a base outside": ("a.yaml", "_BASE_: ../../Base.yaml\n", UNKNOWN),
    "hydra: a search path": ("a.yaml", "hydra:\n  searchpath: ['file:///tmp/x']\n", UNKNOWN),
    "allennlp: an import of Jsonnet": ("a.jsonnet", "local x = import '/etc/x.libsonnet';\n{a: x}\n", UNKNOWN),
    "SpeechBrain: a function": ("hyperparams.yaml", "a: !apply:os.system [x]\n", HOSTILE),
    "SpeechBrain: a class": ("hyperparams.yaml", "a: !new:lab.Net {}\n", UNKNOWN),
    "diffusers: a component of a modular pipeline": (
        "modular_model_index.json",
        json.dumps({"_class_name": "LabPipeline", "te": [None, None, {"type_hint": ["lab_lib", "Net"]}]}),
        UNKNOWN,
    ),
    "diffusers: a library of a modular pipeline": (
        "modular_model_index.json",
        json.dumps({"_class_name": "LabPipeline", "te": ["lab_lib", "Net", {}]}),
        UNKNOWN,
    ),
    "TensorFlow.js: weights outside": (
        "model.json",
        json.dumps({"weightsManifest": [{"paths": ["../x.bin"]}]}),
        HOSTILE,
    ),
    "datasets: files elsewhere": ("README.md", "---\nconfigs:\n- data_files: ../../x\n---\n# x\n", UNKNOWN),
    "ultralytics: an activation": ("a.yaml", "nc: 80\nactivation: print(1)\n", UNKNOWN),
    "RLlib: a state outside": ("rllib_checkpoint.json", json.dumps({"state_file": "../x.pkl"}), HOSTILE),
    "nnU-Net: a class by its name": ("plans.json", json.dumps({"network_class_name": "lab.nets.net"}), UNKNOWN),
    "MATLAB 7.3": ("a.mat", b"MATLAB 7.3 MAT-file".ljust(512, b" ") + b"\x89HDF\r\n\x1a\n", UNKNOWN),
    "HDF5 behind a block of the user's": ("a.dat", b"\0" * 512 + b"\x89HDF\r\n\x1a\n", UNKNOWN),
    "TensorFlow Lite": ("a.tflite", b"\x1c\0\0\0TFL3" + b"\0" * 40, UNKNOWN),
    "CatBoost": ("a.cbm", b"CBM1" + b"\0" * 40, UNKNOWN),
    "TensorFlow's SavedModel": ("saved_model.pb", bytes([8, 1, 18, 4, 18, 2, 8, 1]) * 3, UNKNOWN),
    "Core ML": ("a.mlmodel", bytes([8, 4, 18, 4, 162, 6, 1, 32]), UNKNOWN),
    "LightGBM's dataset": ("a.bin", b"______LightGBM_Binary_File_Token______\n" + b"\0" * 40, UNKNOWN),
    "a text that is named like a pickle of dill": ("a.dill", "x", UNKNOWN),
    "a text that is named like a program of torch": ("a.pt2", "x", UNKNOWN),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_library_is_judged_by_what_it_runs(name: str, tmp_path: Path) -> None:
    """INVARIANT I18: whichever library reads it."""
    file, content, verdict = FILES[name]
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert scan_file(path).verdict is verdict


TWINS: dict[str, tuple[str, str]] = {
    "logging: a stream": ("logging.conf", "[handler_h]\nclass=StreamHandler\nargs=(sys.stdout,)\n"),
    "orbax": ("_METADATA", json.dumps({"a": {"value_metadata": {"value_type": "jax.Array"}}})),
    "ultralytics: an activation": ("a.yaml", "nc: 80\nactivation: nn.SiLU()\n"),
    "datasets: files of its own": ("README.md", "---\nconfigs:\n- data_files: data/train-*\n---\n# x\n"),
    "base64 that is no pickle": ("a.json", json.dumps({"b": "gASVhello" * 20})),
    "a commit in hexadecimal digits": ("a.json", json.dumps({"commit": "8004" + "ab" * 18})),
    "a page in HTML": ("a.html", "<!DOCTYPE html><html><body>x</body></html>"),
    "a page that begins with a tag": ("README.md", '<div align="center">\n\n# x\n</div>\n'),
    "special tokens": ("vocab.txt", "<s>\n<pad>\n<net>x\n"),
    "XGBoost": ("a.json", json.dumps({"learner": {"objective": {"name": "reg:squarederror"}}, "version": [2, 0, 0]})),
    "LightGBM": (
        "a.txt",
        "tree\nversion=v4\n\nTree=0\nnum_leaves=2\n\nend of trees\n\nparameters:\n[boosting: x]\n",
    ),
    "spaCy": ("config.cfg", '[nlp]\nlang = "en"\n\n[components.ner.model]\n@architectures = "spacy.Tok2Vec.v2"\n'),
    "TensorFlow's pointer": ("checkpoint", 'model_checkpoint_path: "model.ckpt-9"\n'),
}


@pytest.mark.parametrize("name", TWINS)
def test_the_ordinary_file_of_that_library_is_clean(name: str, tmp_path: Path) -> None:
    """The twin, one step away."""
    file, content = TWINS[name]
    (tmp_path / file).write_text(content)
    scan = scan_file(tmp_path / file)
    assert (scan.verdict, scan.reasons) == (CLEAN, ())


@pytest.mark.parametrize("name", ["a.nemo", "a.mar", "a.dill", "a.pk", "a.ptl"])
def test_the_name_of_a_checkpoint_promises_one(name: str) -> None:
    """A job that names such a file has a record for it, also where the file is missing."""
    assert category_by_suffix(name) != "unknown"
