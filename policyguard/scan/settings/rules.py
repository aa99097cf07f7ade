"""The table of entries that name code: for each key, what its loader does with the value.

To add a key: one line in a table, one sample in `tests/attacks/test_settings_hostile.py`, and its harmless twin.

Source: hydra 1.3, OmegaConf 2.3, jsonargparse 4, torchtune, jsonpickle 4, MLflow 3, mlx-lm, ModelScope, transformers 5,
diffusers 0.35, peft 0.18, sentence-transformers 5, logging.config, setuptools.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator

from policyguard.scan.archives.zip import leaves_folder
from policyguard.scan.fact_sheets import names
from policyguard.scan.findings import Verdict
from policyguard.scan.settings.expressions import is_program, is_shell, judge_expression
from policyguard.scan.settings.hub import NAMING_KEYS, named_by
from policyguard.scan.settings.names import is_dotted, is_dotted_class, judge_name
from policyguard.scan.settings.report import Report
from policyguard.scan.settings.tree import Location, Map, is_true, plain_value, strings_in

Rule = Callable[[object, Location, Report], None]

INSTANTIATED = names("""
    _target_ _component_ class_path __target__ _class_path_ class_ref __component__ _cls_ __cls__ __factory__ _factory_
    _call_ _fn_ _func_ _builder_ _object_ __object__ __type__ _import_ () build-backend loader_module python_model
    model_class_path factory_function dataloader_cls
""")
"""Keys whose value is imported and called."""

_MAY_NAME_A_CLASS = names("""
    target class cls klass class_name type types _type_ _type func function fn callable factory module handler
    entry_point entrypoint hook hooks plugin import component builder constructor criterion activation_function
    activation_fn sbert_ce_default_activation_function loss loss_fn transform callback callbacks collate_fn
    implementation optimizer scheduler metric model_class tokenizer_class processor_class
""")
"""Keys with plain words in most files; many loaders import the dotted name of a class there."""

_NAMES_A_FUNCTION = names("""
    class cls klass target func function fn callable factory entry_point entrypoint handler constructor builder
    import_path module_path import_name class_name target_class function_name collate_fn loss_fn callback _target _cls
    _class _fn _func implementation import_string dotted_path driver service predict
    network_class_name
""")
"""Keys whose dotted name is imported, functions included."""

_NAMES_OF_LAYERS = re.compile(r"modules|layers|keys|weights|tensors|params|ignore|pattern|_no_split|tied|names|domain")
"""Keys of lists of layer names, which also have dots and capitals."""

_HARMLESS_PY = names("py/tuple py/set py/id py/ref py/b64 py/b85 py/bytes py/iterator py/seq py/state py/initargs")
SWITCHES = names("""
    trust_remote_code allow_remote allow_pickle allow_dangerous_deserialization allow_custom_objects unsafe unsafe_load
    enable_unsafe_deserialization allow_code_execution dangerously_allow_pickle use_remote_code allow_unsafe
    enable_code_execution
""")
_SAFETIES = names("safe_mode weights_only safe_serialization_only")
_COMMANDS = names("""
    command cmd shell exec postinstall preinstall setup_commands initialization_commands run_command post_install
    pre_install install_command entrypoint_command on_load postCreateCommand postStartCommand postAttachCommand
    onCreateCommand updateContentCommand initializeCommand LD_PRELOAD PYTHONSTARTUP BASH_ENV PROMPT_COMMAND
    GIT_SSH_COMMAND PYTHONBREAKPOINT
""")
_REQUIREMENTS = names("dependencies build_dependencies pip requirements install_requires pip_requirements packages")
_PATHS = names("weight_map basename template_path pickled_model weightsManifest state_file model_data")
_ELSEWHERE = names("model_checkpoint_path all_model_checkpoint_paths data_files _BASE_ _base_ searchpath")
_REQUIREMENT = re.compile(
    r"(?:[\w.-]+::)?[A-Za-z0-9][\w.-]*(?:\[[\w,. -]*\])?(?:\s*+[=<>!~]=?=?\s*+[\w.*+!-]++\s*+,?+)*+"
    r"(?:\s*+;\s*(?:python_version|sys_platform|platform_\w+|os_name|extra|implementation_name)\s*[=<>!]=?[^$`;|&]*)?"
    r"|-[rc]\s*[\w.-]+\.txt",
)
_FUNCTION_KEY = re.compile(
    r"_(?:class|cls|factory|fn|func|function|callable|loader|builder|constructor|hook|callback)\Z"
)
_RUNNING_OPERATORS = names("""
    PyFunc PyFuncStateless EagerPyFunc NumpyFunction ReadFile WriteFile MatchingFiles LoadLibrary _Native Custom
""")
_OWN_LIBRARY = re.compile(r"megatron\.core|(?:transformers|diffusers|peft|sentence_transformers)(?:\.\w+)*", re.ASCII)
_CODE_FILE = re.compile(
    r"[\w.@+ /\\-]*\.(?:pyw?|pyc|pyx|so(?:\.\d{1,9}){0,4}|dll|dylib|sh|bat|ps1|jar|pyz|whl|egg)(?::[\w.]*)?", re.A
)


def entry(key: str, value: object, location: Location, report: Report, *, is_named: bool = False) -> None:
    """Apply the rule for one entry, if its key has one.

    Args:
        key: the key of the entry.
        value: what lies under it.
        location: the path to the value.
        report: receives the findings.
        is_named: a key above it names code of a hub, and was judged with everything below.
    """
    rule = _rule_of(key)
    if rule is not None and not (is_named and rule in (_any, _names_one_function)):
        rule(value, location, report)
    elif key.startswith("py/"):
        _jsonpickle(key, value, location, report)
    if key in NAMING_KEYS:
        for kind, name in named_by(key, plain_value(value)) or ():
            if kind in _NAMED_CODE:
                report.add(_NAMED_CODE[kind], name, location)


@functools.lru_cache(4096)
def _rule_of(key: str) -> Rule | None:
    """Return the rule of a key; most maps of a file have the same keys."""
    if (rule := RULES.get(key)) is not None or key.startswith("py/"):
        return rule
    if key in NAMING_KEYS or _NAMES_OF_LAYERS.search(key):
        return None
    return _names_one_function if _FUNCTION_KEY.search(key) else _any


_NAMED_CODE = {"own": "hub.own_code", "foreign": "hub.foreign_code", "kernel": "hub.remote_kernels"}


def names_code_file(text: str) -> bool:
    """Return True for a path to a file of code."""
    return _CODE_FILE.fullmatch(text) is not None


def is_requirement(line: str) -> bool:
    """Return True for a requirement that installs one package from the configured index."""
    return _REQUIREMENT.fullmatch(line.strip()) is not None


def _texts(value: object, report: Report) -> Iterator[str]:
    """Yield each text in a value, except those that mean null."""
    return (text for text in strings_in(value, report.check_time) if text.casefold() not in _NULLS)


_NULLS = ("", "null", "none", "~")


def _instantiated(value: object, location: Location, report: Report) -> None:
    for name in _texts(value, report):
        report.called(name, location)


def _names_a_function(value: object, location: Location, report: Report) -> None:
    for name in _own_strings(value):
        if is_dotted(name):
            report.called(name, location)


def _names_one_function(value: object, location: Location, report: Report) -> None:
    (_names_a_function if type(value) is str else _any)(value, location, report)


def _any(value: object, location: Location, report: Report) -> None:
    """Judge the dotted name of a class under any key: no known loader imports it here, but another may."""
    for name in _own_strings(value):
        if is_dotted_class(name) and judge_name(name) is not Verdict.CLEAN:
            report.add("ckpt.target_unlisted", name, location)


def _types(value: object, location: Location, report: Report) -> None:
    """Judge a registry name: one with dots is imported if nobody registered it."""
    for name in _own_strings(value):
        if is_dotted_class(name) or (is_dotted(name) and name.count(".") > 1):
            report.called(name, location)


def _may_name_a_class(value: object, location: Location, report: Report) -> None:
    for name in _own_strings(value):
        if is_dotted_class(name) or (is_dotted(name) and judge_name(name) is Verdict.HOSTILE):
            report.called(name, location)


def _own_strings(value: object) -> list[str]:
    if type(value) is str:
        return [value]
    if type(value) is list:
        return [item for item in value if type(item) is str]
    return [item for _, item in value if type(item) is str] if type(value) is Map else []


def _jsonpickle(key: str, value: object, location: Location, report: Report) -> None:
    if key in _HARMLESS_PY:
        return
    if key == "py/repr":
        report.add("ckpt.expression", "jsonpickle evaluates it", location)
    texts = list(strings_in(value, report.check_time)) or [key]
    if key in ("py/object", "py/type", "py/function", "py/class", "py/mod", "py/module"):
        for name in texts:
            report.called(name, location)
    else:
        report.add("ckpt.target_unlisted", f"{key}: objects that are built by calls", location)


def _switch(value: object, location: Location, report: Report) -> None:
    if is_true(value):
        report.add("ckpt.unsafe_switch", str(location.part), location)


def _safety(value: object, location: Location, report: Report) -> None:
    if value is False or (type(value) is str and value.casefold() in ("false", "no", "off", "0")):
        report.add("ckpt.unsafe_switch", f"{location.part}: false", location)


def _command(value: object, location: Location, report: Report) -> None:
    for text in _texts(value, report):
        report.add("ckpt.shell_text", text, location)
        return


def _requirements(value: object, location: Location, report: Report) -> None:
    if type(value) is list and all(type(item) is Map and item.has("ref") for item in value):
        # The graph of a bill of materials.
        return
    for text in _texts(value, report):
        if not is_requirement(text):
            report.add("ckpt.requirement", text, location)


def _download(value: object, location: Location, report: Report) -> None:
    """Judge a download script: Ultralytics fetches a URL, runs `bash ...` in a shell, and anything else as Python."""
    for text in _own_strings(value):
        verdict = judge_expression(text)
        if verdict is Verdict.HOSTILE:
            report.add("ckpt.expression_call", text, location)
        elif text.startswith("bash ") or is_shell(text):
            report.add("ckpt.shell_text", text, location)
        elif verdict is Verdict.UNKNOWN:
            report.add("ckpt.expression", text, location)
        elif "://" in text:
            report.add("ckpt.external_data", text, location)


def _named_code(value: object, location: Location, report: Report) -> None:
    for text in _texts(value, report):
        report.add("hub.own_code", text, location)


def _plugins(value: object, location: Location, report: Report) -> None:
    for text in _texts(value, report):
        report.add("hub.foreign_code" if "/" in text else "ckpt.target_unlisted", text, location)


def _library(value: object, location: Location, report: Report) -> None:
    """Judge a library name, which peft imports and takes a class from."""
    for name in _texts(value, report):
        if not _OWN_LIBRARY.fullmatch(name):
            report.add("ckpt.target_unlisted", name, location)


def _implementation(value: object, location: Location, report: Report) -> None:
    """Judge `custom_pipelines`: module and class, or `repository--module.Class` of another repository."""
    for name in _texts(value, report):
        if "--" in name:
            report.add("hub.foreign_code", name.rpartition("--")[0], location)
        elif is_dotted(name):
            report.add("hub.own_code", name, location)


def _paths(value: object, location: Location, report: Report) -> None:
    for name in _texts(value, report):
        report.path(name, location)


def _codecs(value: object, location: Location, report: Report) -> None:
    """Judge a codec name: zarr unpickles chunks for some; others are judged where the format is named."""
    for name in _texts(value, report):
        if re.fullmatch(r"(?:\w+\.)?(?:pickle|dill|cloudpickle|joblib)", name):
            report.add("ckpt.pickled_column", f"codec {name}", location)


def _backend(value: object, location: Location, report: Report) -> None:
    """Judge a backend name: Triton's server runs the `model.py` beside it."""
    if value == "python":
        report.add("hub.own_code", "the backend python", location)


def _imports(value: object, location: Location, report: Report) -> None:
    """Judge module lists: MONAI's `imports`, mmengine's `custom_imports`, and those of other libraries."""
    for text in _texts(value, report):
        if (is_dotted(text) or text.isidentifier()) and text.casefold() not in ("true", "false"):
            report.called(text, location)
        elif is_program(text):
            report.add("ckpt.expression", text, location)


def _scripts(value: object, location: Location, report: Report) -> None:
    """Judge scripts of an npm package, some of which run when it is installed."""
    for key, text in value if type(value) is Map else ():
        if key in ("preinstall", "install", "postinstall", "prepublish", "prepare") and type(text) is str:
            report.add("ckpt.shell_text", text, location)


def _data_files(value: object, location: Location, report: Report) -> None:
    """Check `state.json` of a saved dataset, which names tables that are mapped into memory."""
    for item in value if type(value) is list else ():
        for name in item.texts("filename") if type(item) is Map else ():
            report.path(name, location)


def _elsewhere(value: object, location: Location, report: Report) -> None:
    """Add a finding for a path outside the folder: its library writes absolute paths, which are not scanned."""
    for name in _texts(value, report):
        if leaves_folder(name) or "://" in name or name.startswith("~"):
            report.add("ckpt.external_data", name, location)


def _evaluated(value: object, location: Location, report: Report) -> None:
    """Judge a text that is evaluated: arguments of `logging.config.fileConfig`, an activation of ultralytics."""
    for text in _own_strings(value):
        # Other programs keep lines of commands under `args`; `fileConfig` has a tuple or a dictionary there.
        is_data = location.part != "activation" and text.lstrip()[:1] not in ("(", "[", "{")
        verdict = Verdict.CLEAN if is_data or _LAYER_CALL.fullmatch(text) else judge_expression(text)
        if verdict is not Verdict.CLEAN:
            report.add("ckpt.expression_call" if verdict is Verdict.HOSTILE else "ckpt.expression", text, location)


_LAYER_CALL = re.compile(r"(?:torch\.)?nn\.[A-Z]\w*\([\w=., -]*\)", re.ASCII)


def _pickled(_: object, location: Location, report: Report) -> None:
    """stable-baselines3 unpickles the text."""
    report.add("ckpt.pickled_column", "an object that is unpickled", location)


def _operator(value: object, location: Location, report: Report) -> None:
    """Judge operators of graphs that call Python, load a library, or read and write files."""
    for name in _own_strings(value):
        if name in _RUNNING_OPERATORS:
            report.add("ckpt.target_unlisted", f"the operator {name}", location)


def _python_layer(value: object, location: Location, report: Report) -> None:
    """Judge a Caffe layer written in Python, whose module is imported."""
    report.add("ckpt.target_unlisted", ".".join(_texts(value, report)), location)


def _source_code(value: object, location: Location, report: Report) -> None:
    """Judge an AutoGen tool, which is loaded by running its text."""
    for text in _texts(value, report):
        if is_program(text):
            report.add("ckpt.expression", text, location)


RULES: dict[str, Rule] = {
    **dict.fromkeys(_MAY_NAME_A_CLASS, _may_name_a_class),
    **dict.fromkeys(("type", "types", "_type", "_type_"), _types),
    **dict.fromkeys(_NAMES_A_FUNCTION, _names_a_function),
    **dict.fromkeys(INSTANTIATED, _instantiated),
    **dict.fromkeys(SWITCHES, _switch),
    **dict.fromkeys(_SAFETIES, _safety),
    **dict.fromkeys(_COMMANDS, _command),
    **dict.fromkeys(_REQUIREMENTS, _requirements),
    **dict.fromkeys(
        names("""
            model_code_path code_paths code_path custom_pipeline user_dir custom_ops_library shared_library_path
            plugin_library_path
        """),
        _named_code,
    ),
    **dict.fromkeys(("filters", "compressor", "compressors", "codecs", "serializer"), _codecs),
    "backend": _backend,
    **dict.fromkeys(_PATHS, _paths),
    **dict.fromkeys(("imports", "custom_imports", "import_modules", "extensions_to_load", "preload"), _imports),
    **dict.fromkeys(_ELSEWHERE, _elsewhere),
    **dict.fromkeys(("args", "kwargs", "activation"), _evaluated),
    ":serialized:": _pickled,
    **dict.fromkeys(("op", "op_type"), _operator),
    "python_param": _python_layer,
    "_data_files": _data_files,
    "scripts": _scripts,
    "source_code": _source_code,
    "download": _download,
    "plugins": _plugins,
    "skops_trusted_types": _instantiated,
    "parent_library": _library,
    "megatron_core": _library,
    "impl": _implementation,
}
"""Key -> what its loader does with the value."""
