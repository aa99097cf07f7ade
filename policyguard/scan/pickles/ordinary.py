"""Imports that ordinary programs pickle and that run nothing themselves: unknown rather than hostile.

`hostile` is for imports known to run code, or to read or write files. A class of a model library, one of its functions
on numbers, or a value of the standard library is not; its effect in a program is for the operator to judge, who can
list the class, sign a manifest or approve the digest.
"""

from __future__ import annotations

import re

from policyguard.scan.fact_sheets import names
from policyguard.scan.findings import Verdict
from policyguard.scan.pickles.allowlist import CARRIERS, is_standard, judged, modern

LIBRARIES = names("""
    torch torchvision torchaudio numpy scipy pandas tensorflow keras jax flax transformers accelerate diffusers sklearn
    datasets deepspeed lightning pytorch_lightning joblib safetensors
""")
"""Packages whose classes and numeric functions are in the files of their users."""

_GADGETS = names("""
    torch._dynamo torch._inductor torch._functorch torch._export torch._lazy torch._refs torch.fx torch.hub
    torch.jit torch.package torch.utils torch.testing torch.onnx torch.export torch.serialization torch.storage
    torch.library torch.multiprocessing torch.ops torch.classes torch.compile torch.backends torch.profiler
    torch.monitor torch.xpu torch.distributed.run torch.distributed.launch torch.distributed.elastic
    torch.distributed.rpc torch.distributed.nn torch.distributed.argparse_util torch.nn.parallel.replicate
    numpy.f2py numpy.testing numpy.distutils numpy.ctypeslib numpy.lib numpy.compat numpy._pytesttester
    numpy._build numpy.__builtins__ numpy._core._internal numpy.core._internal numpy._core.records
    numpy.core.records scipy.io scipy.datasets scipy.misc scipy.weave scipy._lib scipy._build_utils scipy.odr
    pandas.io pandas.core.computation pandas.compat pandas._testing pandas.util pandas.plotting pandas.tests
    sklearn.datasets sklearn.externals sklearn.utils._testing sklearn._build_utils sklearn.conftest
    tensorflow.python.ops.script_ops tensorflow.python.saved_model tensorflow.io tensorflow.raw_ops
    transformers.utils transformers.commands transformers.dynamic_module_utils transformers.pipelines
    accelerate.launchers accelerate.commands accelerate.test_utils deepspeed.launcher deepspeed.ops
    deepspeed.elasticity diffusers.commands diffusers.utils datasets.utils datasets.packaged_modules
    datasets.download datasets.load joblib.memory joblib.externals joblib.parallel joblib._parallel_backends
    joblib.test joblib.pool joblib.executor keras.src.saving keras.saving keras.src.utils keras.utils
    keras.src.legacy
""")
"""Parts of these packages that import, compile, download, start or open what their arguments name."""

_PLAIN_PARTS = names("""
    torch.utils.hooks torch.utils.data.dataset torch.utils.data.dataloader torch.utils.data.sampler
    torch.utils.data.distributed torch.utils.data._utils.collate torch.jit._pickle
""")
"""Modules in those parts that have classes of data, and functions that hand on their argument."""

_RISKY_CLASSES = names("""
    DataSource ExcelFile ExcelWriter HDFStore LowLevelCallable PackageImporter PackageExporter FileSystem Memory
    NpzFile CDLL Popen Lambda PyTorchFileReader PyTorchFileWriter ScriptModule GraphModule Importer Loader Unpickler
""")
_RISKY_WORDS = names("""
    system popen exec eval run spawn load loads loadtxt save open read write download fetch compile import
    subprocess shell remove unlink rmtree delete makedirs mkdir dump dumps launch launcher start connect request url
    extract cmd command script file fromfile tofile main build install exit environ environment patch socket thread
    process pickle unpickler builtins globals getattr setattr apply map invoke execute handler handlers hook register
    memmap fromregex genfromtxt savez savetxt frompyfunc vectorize from_pretrained py_function numpy_function
""")

_PLAIN_FUNCTIONS = names("""
    default_collate default_convert restore_type_tag build_intlist build_tensorlist build_doublelist build_boollist
    _lazy_load_hook
""")
_NUMERIC = ("torch.nn.functional", "torch.nn.init", "torch._C._nn", "torch.optim", "sklearn.", "scipy.", "pandas.core.")
_NUMERIC_NAMES = names("""
    relu sigmoid tanh softmax gelu selu exp log log1p log2 log10 expm1 sqrt square abs absolute sin cos tan sign clip
    maximum minimum mean sum add subtract multiply divide power mean median std var argmax identity reciprocal ravel
""")
"""Functions of numpy and torch itself that people hand to a transformer or a layer."""

_RESTORES = re.compile(
    r"__pyx_unpickle_\w+|newObj|_?new_(?:Index|\w*Index|block)|_unpickle_(?:block|timestamp)|_rebuild_\w+"
)
_CLASS = re.compile(r"_*[A-Z]\w*")
_NAME = re.compile(r"[^\W\d]\w*")

_VALUES = {
    "types": "SimpleNamespace MappingProxyType GenericAlias UnionType NoneType",
    "re": "_compile Pattern RegexFlag",
    "time": "struct_time",
    "array": "array _array_reconstructor",
    "logging": "getLogger Logger",
    "functools": "partial",
    "collections": "ChainMap UserDict UserList UserString",
    "random": "Random",
    "io": "BytesIO StringIO",
    "_io": "BytesIO StringIO",
    "http": "HTTPStatus HTTPMethod",
    "signal": "Signals",
    "weakref": "WeakKeyDictionary WeakValueDictionary WeakSet",
    "inspect": "Parameter Signature _ParameterKind",
    "itertools": "count cycle repeat chain",
    "abc": "ABC ABCMeta",
    "enum": "Enum IntEnum StrEnum Flag IntFlag auto",
    "dataclasses": "Field _MISSING_TYPE",
    "calendar": "Month Day",
    "copyreg": "__newobj__",
    "scipy._lib.array_api_compat.numpy._aliases": "asarray",
}
_VALUE_PAIRS = frozenset((module, name) for module, listed in _VALUES.items() for name in listed.split())
_VALUE_MODULES = names("typing typing_extensions zoneinfo ipaddress numbers datetime decimal collections.abc string")
_EXCEPTION = re.compile(r"[A-Z]\w*(?:Error|Exception|Warning)|StopIteration|KeyboardInterrupt")


def judge_import(module: str, name: str, extra: frozenset[tuple[str, str]] = frozenset()) -> Verdict:
    """Return the verdict on an import, as `judged` does, but unknown for what ordinary programs pickle.

    Args:
        module: the module.
        name: the qualified name in it.
        extra: imports that the operator lists.
    """
    verdict = judged(module, name, extra)
    if verdict is not Verdict.HOSTILE:
        return verdict
    written = {(module, name), modern(module, name)}
    return Verdict.UNKNOWN if all(_may_be_ordinary(*pair) for pair in written) else verdict


def _may_be_ordinary(module: str, name: str) -> bool:
    tools = module.partition(".")[0] in CARRIERS and module.partition(".")[0] not in LIBRARIES
    return not tools and is_ordinary(module, name)


def is_ordinary(module: str, name: str) -> bool:
    """Return True for an import that runs nothing by itself and occurs in ordinary programs' files."""
    parts = name.split(".")
    if not all(_NAME.fullmatch(part) for part in parts) or not module:
        return False
    if len(parts) > 1 and not _is_inner_name(parts):
        return False
    return _is_value(module, parts[0]) or _is_of_library(module, parts[0]) or _is_of_a_program(module, parts)


def _is_inner_name(parts: list[str]) -> bool:
    """Return True for a method or inner class; False for a name that another module imported."""
    reaches = any(is_standard(part) for part in parts[:-1])
    return not reaches and not any(part.startswith("__") or _is_risky(part) for part in parts)


def _is_risky(name: str) -> bool:
    parts = name.lower().strip("_").split("_")
    is_risky = name in _RISKY_CLASSES or name in _RISKY_WORDS or any(word in _RISKY_WORDS for word in parts)
    return is_risky and name not in _PLAIN_FUNCTIONS


def _is_value(module: str, name: str) -> bool:
    if module in ("builtins", "exceptions"):
        return _EXCEPTION.fullmatch(name) is not None
    return (module, name) in _VALUE_PAIRS or (module in _VALUE_MODULES and _CLASS.fullmatch(name) is not None)


def _is_of_library(module: str, name: str) -> bool:
    if module in _PLAIN_PARTS:
        return bool(_CLASS.fullmatch(name) or name in _PLAIN_FUNCTIONS)
    if module.partition(".")[0] not in LIBRARIES or _is_below(module, _GADGETS):
        return False
    # A module is no class: it reaches whatever it imports.
    if _CLASS.fullmatch(name):
        return name not in _RISKY_CLASSES
    if _RESTORES.fullmatch(name):
        return not module.startswith("torch")
    if name in _NUMERIC_NAMES:
        return True
    return module.startswith(_NUMERIC) and not _is_risky(name) and not name.startswith("__")


def _is_below(module: str, packages: frozenset[str]) -> bool:
    parts = module.split(".")
    return any(".".join(parts[:count]) in packages for count in range(1, len(parts) + 1))


def _is_of_a_program(module: str, parts: list[str]) -> bool:
    """Return True for an inner class or method of a module that is on no list."""
    top = module.partition(".")[0]
    return len(parts) > 1 and top not in LIBRARIES and (top == "__main__" or not is_standard(top))
