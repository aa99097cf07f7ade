"""Maps recognised by several of their entries; each shape belongs to one loader.

Source: diffusers 0.35 `pipeline_loading_utils.py`; langchain-core `load/load.py`; zarr 2 and 3 and numcodecs; MosaicML
streaming `base/format/mds/encodings.py`; skops 0.16 `io/_audit.py`; yolov7 `models/yolo.py`; sentence-transformers
`modules.json`; Keras (`formats/keras.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from policyguard.scan.fact_sheets import names
from policyguard.scan.findings import Verdict
from policyguard.scan.formats.keras import check_config
from policyguard.scan.pickles.allowlist import judged
from policyguard.scan.settings.expressions import judge_expression
from policyguard.scan.settings.names import is_dotted, judge_name
from policyguard.scan.settings.report import Report
from policyguard.scan.settings.tree import Location, Map, strings_in

_LIBRARIES = names("""
    diffusers transformers stable_diffusion stable_diffusion_safe deepfloyd_if paint_by_example latent_diffusion
    vq_diffusion versatile_diffusion audioldm audioldm2 unidiffuser spectrogram_diffusion wuerstchen shap_e unclip
    musicldm semantic_stable_diffusion stable_cascade alt_diffusion kolors onnxruntime optimum flax null
""")
_CODECS = names("""
    adler32 astype base64 bitround blosc bytes bz2 categorize crc32 crc32c delta fixedscaleoffset fletcher32 gzip
    jenkins_lookup3 json2 lz4 lzma msgpack2 n5_wrapper packbits quantize sharding_indexed shuffle transpose vlen-array
    vlen-bytes vlen-utf8 zlib zfpy zstd
""")
_ENCODINGS = re.compile(
    r"(?:list\[|dict\[|tuple\[)?(?:bytes|str|int|u?int(?:8|16|32|64)|float(?:16|32|64)|str_(?:int|float|decimal)|json|"
    r"ndarray(?::[\w,.:]+)?|pil|jpeg|jpeg_array|jpegarray|list\[jpeg\]|png|image)\]?"
)
_NODES = names("""
    DictNode ListNode TupleNode SetNode ObjectNode NdArrayNode MaskedArrayNode RandomStateNode RandomGeneratorNode
    DtypeNode SparseMatrixNode JsonNode SliceNode BytesNode BytearrayNode DefaultDictNode OrderedDictNode CachedNode
    DateTimeNode FrozenSetNode TypeNode ReduceNode TreeNode LossNode
""")
_LAYER = re.compile(r"(?:nn\.|torch\.nn\.|torchvision\.ops\.)?[A-Z]\w*", re.ASCII)
_ARGUMENT = re.compile(r"[\w ,./+-]*", re.ASCII)
_IDENTIFIER = re.compile(r"[a-z_]\w*(?:\.\w+)*", re.ASCII)


def check_shapes(entries: Map, location: Location, report: Report) -> None:
    """Add a finding for each part of the map that its loader would run.

    Args:
        entries: the map.
        location: the path to it.
        report: receives the findings.
    """
    known = {key for key, _ in entries}
    # A vocabulary has any word, with a number.
    if _TRIGGERS.isdisjoint(known) or all(type(value) is float for _, value in entries):
        return
    for keys, check in _SHAPES:
        if keys <= known:
            check(entries, location, report)


def _components(entries: Map, location: Location, report: Report) -> None:
    """Check `model_index.json`: each component is a library and a class; an unlisted library is imported."""
    is_pipeline = any(name.endswith("Pipeline") for name in entries.texts("_class_name"))
    is_pipeline = is_pipeline or report.name.casefold().endswith("model_index.json")
    for key, value in entries:
        if type(value) is not list or len(value) not in (2, 3) or key.startswith("_"):
            continue
        below = Location(location, key)
        _component(value[:2], is_pipeline, below, report)
        # A modular pipeline has a third part, which says where the component comes from.
        for hint in (hint for part in value[2:] for one in _maps(part) for hint in one.all("type_hint")):
            _component(hint if type(hint) is list else [], True, below, report)


def _component(value: list[object], is_pipeline: bool, location: Location, report: Report) -> None:
    if len(value) != 2 or type(value[0]) is not str or type(value[1]) is not str:
        return
    library, name = str(value[0]), str(value[1])
    is_component = is_pipeline or (_IDENTIFIER.fullmatch(library) is not None and name[:1].isupper())
    if is_component and library not in _LIBRARIES:
        report.add("hub.own_code", f"{library}.{name}", location)
    elif not is_component and judge_name(f"{library}.{name}") is Verdict.HOSTILE:
        report.called(f"{library}.{name}", location)


def _fallback(entries: Map, location: Location, report: Report) -> None:
    """Ray Tune keeps in its states what JSON cannot hold: a pickle in hexadecimal digits."""
    if "CLOUDPICKLE_FALLBACK" in entries.texts("_type"):
        report.add("ckpt.pickled_column", "CLOUDPICKLE_FALLBACK", location)


def _langchain(entries: Map, location: Location, report: Report) -> None:
    """Check `lc` maps: langchain builds the class in `id`, and reads secrets from the environment."""
    kind = next(entries.texts("type"), "")
    path = ".".join(part for value in entries.all("id") if type(value) is list for part in value if type(part) is str)
    if kind != "not_implemented":
        report.add("ckpt.target_unlisted", f"langchain {kind} {path}", location)


def _zarr(entries: Map, location: Location, report: Report) -> None:
    for key in ("filters", "compressor", "compressors", "codecs", "serializer"):
        for value in entries.all(key):
            for codec in _maps(value):
                for name in (*codec.texts("id"), *codec.texts("name")):
                    if name.removeprefix("numcodecs.") not in _CODECS:
                        code = "ckpt.pickled_column" if "pickle" in name or name == "dill" else "ckpt.target_unlisted"
                        report.add(code, f"codec {name}", Location(location, key))


def _mds(entries: Map, location: Location, report: Report) -> None:
    for value in entries.all("column_encodings"):
        for name in value if type(value) is list else [value]:
            if type(name) is not str or not _ENCODINGS.fullmatch(name):
                report.add("ckpt.pickled_column", f"encoding {name}", Location(location, "column_encodings"))


def _skops(entries: Map, location: Location, report: Report) -> None:
    """Check `__loader__` maps: skops rebuilds an object of this class if its name is trusted."""
    for node in entries.texts("__loader__"):
        name = next(entries.texts("__class__"), "")
        module = next(entries.texts("__module__"), "")
        verdict = judge_name(f"{module}.{name}") if module else Verdict.UNKNOWN
        is_plain = judged(module, name) is Verdict.CLEAN or (module == "builtins" and name in _PLAIN_BUILTINS)
        is_plain = is_plain or (module.startswith(("sklearn.", "scipy.sparse")) and name[:1].isupper())
        is_plain = is_plain or (module.startswith("numpy") and name in _PLAIN_NUMPY)
        if node not in _NODES or not is_plain:
            code = "ckpt.target_call" if verdict is Verdict.HOSTILE and not is_plain else "ckpt.target_unlisted"
            report.add(code, f"{node} {module}.{name}", location)


_PLAIN_BUILTINS = names("str int float bool dict list tuple set frozenset slice bytes bytearray NoneType complex range")
_PLAIN_NUMPY = names("ndarray int32 int64 float32 float64 bool_ dtype generic str_ RandomState Generator")


def _keras(entries: Map, location: Location, report: Report) -> None:
    # Readers differ in which of two equal keys they take.
    for pairs in (entries, reversed(entries)):
        check_config(dict(pairs), report.findings, str(location))


def _lambda(entries: Map, location: Location, report: Report) -> None:
    if any(name in ("Lambda", "__lambda__") for name in entries.texts("class_name")):
        _keras(entries, location, report)


def _module_list(entries: Map, location: Location, report: Report) -> None:
    """Check `modules.json`: the type of each part is imported, and its `load` is called."""
    for name in entries.texts("type"):
        if is_dotted(name):
            report.called(name, Location(location, "type"))
    for name in entries.texts("path"):
        if entries.has("idx"):
            report.path(name or ".", Location(location, "path"))


def _layers(entries: Map, location: Location, report: Report) -> None:
    """Check rows of `[from, number, module, arguments]`: yolov5 to yolov7 evaluate the module and each text."""
    for key in ("backbone", "head"):
        for value in entries.all(key):
            for index, row in enumerate(value if type(value) is list else ()):
                if type(row) is list and len(row) == 4 and type(row[2]) is str and type(row[3]) is list:
                    _layer(row[2], row[3], Location(Location(location, key), index), report)


def _layer(module: str, arguments: list[object], location: Location, report: Report) -> None:
    if not _LAYER.fullmatch(module):
        code = "ckpt.expression" if judge_expression(module) is not Verdict.HOSTILE else "ckpt.expression_call"
        report.add("ckpt.target_call" if judge_name(module) is Verdict.HOSTILE else code, module, location)
    for text in arguments:
        if type(text) is str and not _ARGUMENT.fullmatch(text):
            code = "ckpt.expression_call" if judge_expression(text) is Verdict.HOSTILE else "ckpt.expression"
            report.add(code, text, location)


def _mlflow(entries: Map, location: Location, report: Report) -> None:
    """Check `code`, a folder that is put on the module path before the loader is imported."""
    for value in entries.all("code"):
        for code in strings_in(value, report.check_time):
            if code.casefold() not in ("", "null", "~"):
                report.add("hub.own_code", code, Location(location, "code"))
    for key in ("data", "env", "model_path"):
        for path in entries.texts(key):
            report.path(path or ".", Location(location, key))


def _recording(entries: Map, location: Location, report: Report) -> None:
    """Check audio sources: lhotse reads one of this type from a command's output."""
    if "command" in entries.texts("type"):
        for text in entries.texts("source"):
            report.add("ckpt.shell_text", text, Location(location, "source"))


def _kernel(entries: Map, location: Location, report: Report) -> None:
    """Check `kernel.json`: Jupyter starts its command."""
    for value in entries.all("argv"):
        report.add("ckpt.shell_text", " ".join(strings_in(value, report.check_time)), Location(location, "argv"))


def _module_of_class(entries: Map, location: Location, report: Report) -> None:
    """Check `module_name` with `class_name`: Great Expectations imports and builds them."""
    for module in entries.texts("module_name"):
        for name in entries.texts("class_name"):
            report.called(f"{module}.{name}", location)


def _workflow(_: Map, location: Location, report: Report) -> None:
    report.add("ckpt.shell_text", "the steps of a workflow", Location(location, "steps"))


def _notebook(_: Map, location: Location, report: Report) -> None:
    report.add("ckpt.code_file", "a notebook", Location(location, "cells"))


def _references(entries: Map, location: Location, report: Report) -> None:
    """Check chunk references: fsspec reads from the files they name, or from the text after `base64:`."""
    chunks = [value for value in entries.all("refs") if type(value) is Map] or [entries]
    for key, value in (entry for chunk in chunks for entry in chunk):
        first = value[0] if type(value) is list and value else value
        if type(first) is str and (type(value) is list or first.startswith("base64:")):
            report.add("ckpt.external_data", f"{key}: {first}", location)


def _trigger(entries: Map, location: Location, report: Report) -> None:
    """Check the arguments of an instantiated name: `get_method` with a path, `partial` with a function."""
    for key, value in entries:
        if key not in _CALLERS and type(value) is str and is_dotted(value) and judge_name(value) is Verdict.HOSTILE:
            report.add("ckpt.target_call", value, Location(location, key))


_CALLERS = names("_target_ _component_ class_path __target__ target")


def _maps(value: object) -> Iterator[Map]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is Map:
            yield item
            waiting.extend(one for _, one in item if type(one) is Map or type(one) is list)
        elif type(item) is list:
            waiting.extend(item)


_SHAPES: tuple[tuple[frozenset[str], Callable[[Map, Location, Report], None]], ...] = (
    (names("_class_name"), _components),
    (names("lc id"), _langchain),
    (names("zarr_format"), _zarr),
    (names("column_encodings"), _mds),
    (names("__loader__"), _skops),
    (names("class_name config"), _keras),
    (names("class_name module"), _keras),
    (names("type path"), _module_list),
    (names("type idx"), _module_list),
    (names("class_name"), _lambda),
    (names("backbone head"), _layers),
    (names("_type value"), _fallback),
    (names("loader_module"), _mlflow),
    (names("type source"), _recording),
    (names("argv display_name"), _kernel),
    (names("cells nbformat"), _notebook),
    (names("class_name module_name"), _module_of_class),
    (names("runs-on steps"), _workflow),
    (names("refs"), _references),
    (names(".zgroup"), _references),
    (names(".zarray"), _references),
    *((names(key), _trigger) for key in sorted(_CALLERS)),
)
"""The keys that a shape is known by, and its check."""

_FREQUENT = names("type config id head module")
_TRIGGERS = frozenset(min(keys - _FREQUENT) for keys, _ in _SHAPES)
"""A key of each shape: few maps have one."""
