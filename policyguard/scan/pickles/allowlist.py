"""The exact imports that pickles of tensors and plain data need; every other import counts against the file.

The list has (module, name) pairs, never modules or patterns. It covers what torch's own `weights_only` reader allows
(torch 2.13, `_weights_only_unpickler._get_allowed_globals`), numpy's arrays, scalars and random states, joblib's array
wrapper, torch's distributed-checkpoint metadata, and plain data classes of the standard library. Nothing on it opens
files or looks up attributes by name; if an argument matters, the machine checks it.
"""

from __future__ import annotations

import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator

from policyguard.scan.fact_sheets import names
from policyguard.scan.findings import Verdict

_DTYPES = (
    "float16 float32 float64 bfloat16 complex32 complex64 complex128 int8 int16 int32 int64 uint8 uint16 uint32 uint64"
    " bool qint8 quint8 qint32 quint4x2 quint2x4 bits8 bits16 bits1x8 bits2x4 bits4x2 float8_e4m3fn float8_e4m3fnuz"
    " float8_e5m2 float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2 int1 int2 int3 int4 int5 int6 int7 uint1 uint2 uint3"
    " uint4 uint5 uint6 uint7 half float double short int long cfloat cdouble chalf"
    " per_tensor_affine per_channel_affine per_tensor_symmetric per_channel_symmetric per_channel_affine_float_qparams"
)
_KINDS = ["BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short"]

_STORAGES_BY_BYTES = {
    1: "Bool Byte Char QInt8 QUInt2x4 QUInt4x2 QUInt8 Untyped",
    2: "BFloat16 Half Short",
    4: "Float Int QInt32",
    8: "ComplexFloat Double Long",
    16: "ComplexDouble",
}
STORAGE_ITEM_BYTES = {f"{name}Storage": size for size, names in _STORAGES_BY_BYTES.items() for name in names.split()}
"""Bytes of one element, by the name of torch's storage class."""

_TABLE: dict[str, str] = {
    "builtins": "set frozenset slice complex bytearray bytes range list dict tuple int float str bool object Ellipsis"
    " NotImplemented",
    "_codecs": "encode",
    "copyreg": "_reconstructor",
    "collections": "OrderedDict Counter defaultdict deque",
    "datetime": "datetime date time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": "UUID",
    "pathlib": "PosixPath PurePosixPath WindowsPath PureWindowsPath Path PurePath",
    "pathlib._local": "PosixPath PurePosixPath WindowsPath PureWindowsPath Path PurePath",
    "argparse": "Namespace",
    "numpy": "dtype ndarray matrix record recarray bool_ bool int8 int16 int32 int64 uint8 uint16 uint32 uint64"
    " float16 float32 float64 longdouble complex64 complex128 clongdouble str_ bytes_ void object_"
    " datetime64 timedelta64"
    " longlong ulonglong intc uintc",
    "numpy.dtypes": "BoolDType Int8DType Int16DType Int32DType Int64DType UInt8DType UInt16DType UInt32DType"
    " UInt64DType"
    " Float16DType Float32DType Float64DType Complex64DType Complex128DType StrDType BytesDType ObjectDType VoidDType"
    " LongLongDType ULongLongDType LongDoubleDType CLongDoubleDType DateTime64DType TimeDelta64DType",
    "numpy.rec": "recarray record",
    "numpy.matrixlib.defmatrix": "matrix",
    "numpy.ma": "MaskedArray",
    "numpy.ma.core": "MaskedArray _mareconstruct",
    "numpy.random": "RandomState Generator",
    "numpy.random.mtrand": "RandomState",
    "numpy.random._pickle": "__bit_generator_ctor __generator_ctor __randomstate_ctor",
    "numpy.random._mt19937": "MT19937",
    "numpy.random._pcg64": "PCG64 PCG64DXSM",
    "numpy.random._philox": "Philox",
    "numpy.random._sfc64": "SFC64",
    "numpy.random.bit_generator": "SeedSequence __pyx_unpickle_SeedSequence",
    "joblib.numpy_pickle": "NumpyArrayWrapper",
    "torch": f"Tensor Size device Generator {_DTYPES} "
    + " ".join(f"{kind}Tensor {kind}Storage" for kind in _KINDS)
    + " ComplexFloatStorage ComplexDoubleStorage QInt8Storage QUInt8Storage QInt32Storage QUInt4x2Storage"
    " QUInt2x4Storage",
    "torch._C": "Generator",
    "torch.cuda": " ".join(f"{kind}Tensor {kind}Storage" for kind in _KINDS),
    "torch.sparse": " ".join(f"{kind}Tensor" for kind in _KINDS),
    "torch.cuda.sparse": " ".join(f"{kind}Tensor" for kind in _KINDS),
    "torch.nn.parameter": "Parameter Buffer",
    "torch._tensor": "_rebuild_from_type_v2",
    "torch._utils": "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter"
    " _rebuild_parameter_with_state _rebuild_qtensor _rebuild_sparse_tensor _rebuild_sparse_csr_tensor"
    " _rebuild_nested_tensor _rebuild_meta_tensor_no_storage _rebuild_wrapper_subclass"
    " _rebuild_device_tensor_from_numpy"
    " _rebuild_device_tensor_from_cpu_tensor",
    "torch.serialization": "_get_layout",
    "torch.storage": "TypedStorage UntypedStorage _load_from_bytes",
    "torch.torch_version": "TorchVersion",
    "torch.distributed.checkpoint.metadata": "Metadata TensorStorageMetadata BytesStorageMetadata ChunkStorageMetadata"
    " TensorProperties MetadataIndex StorageMeta _MEM_FORMAT_ENCODING",
    "torch.distributed.checkpoint.filesystem": "_StorageInfo _StoragePrefix",
}
_MOVED = {"numpy._core.multiarray": "_reconstruct scalar", "numpy._core.numeric": "_frombuffer"}


def _pairs() -> Iterator[tuple[str, str]]:
    for module, listed in _TABLE.items():
        yield from ((module, name) for name in listed.split())
    for module, listed in _MOVED.items():
        # numpy 2 moved `numpy.core` to `numpy._core`; files of both ages are about.
        for written in (module, module.replace("._core.", ".core.")):
            yield from ((written, name) for name in listed.split())


# INVARIANT I18: an import that is not on this list, or on the operator's, is never clean.
ALLOWED: frozenset[tuple[str, str]] = frozenset(_pairs())
"""Every pair of module and name that a clean pickle may import."""

CARRIERS = names("""
    torch torchvision torchaudio torchgen functorch numpy joblib safetensors scipy pip setuptools pkg_resources
    distutils cloudpickle dill jsonpickle pandas tensorflow keras jax flax transformers accelerate diffusers
    huggingface_hub sklearn IPython ipykernel six requests urllib3 httpx aiohttp paramiko fabric invoke sh webbrowser
    win32api pytest _pytest numba cffi ctypes yaml jinja2 mako lib2to3 nose django flask celery fsspec datasets triton
    deepspeed lightning pytorch_lightning test wheel virtualenv conda psutil boto3 google azure kubernetes ray dask
""")
"""Packages on most training machines with functions that run code: their unlisted functions are hostile."""

_STANDARD = sys.stdlib_module_names | names("""
    __builtin__ __builtins__ commands popen2 cPickle httplib urllib2 nt posix ce os2 imp asyncore asynchat smtpd binhex
    formatter macpath parser symbol dummy_threading _bootlocale aifc audioop cgi cgitb chunk crypt imghdr mailcap msilib
    nis nntplib ossaudiodev pipes sndhdr spwd sunau telnetlib uu xdrlib _crypt _pyrepl _android_support _apple_support
    _ios_support _aix_support _osx_support _colorize annotationlib compression _interpreters _interpqueues
    _interpchannels _xxsubinterpreters _zstd _sysconfig _suggestions _winapi winreg _wmi msvcrt _overlapped
""")
"""The standard library of all Pythons from 2.7 to 3.14, so that the verdict does not depend on ours."""

_PLAIN_CLASSES = (
    "torch.nn.modules.",
    "torch.optim.",
    "sklearn.",
    "transformers.",
    "accelerate.utils.",
    "accelerate.state",
    "scipy.sparse.",
    "pandas.core.",
    "lightning.fabric.",
    "lightning.pytorch.",
    "pytorch_lightning.",
    "torchvision.",
    "torchaudio.",
    "keras.",
    "diffusers.",
    "joblib.numpy_pickle_compat.",
)
"""Packages whose unlisted *classes* are usually models or settings: unknown, not hostile."""


def modern(module: str, name: str) -> tuple[str, str]:
    """Return the Python 3 name of an import that protocols 0 to 2 write with its Python 2 name."""
    if (module, name) in NAME_MAPPING:
        mapped: tuple[str, str] = NAME_MAPPING[(module, name)]
        return mapped
    return IMPORT_MAPPING.get(module, module), name


def judged(module: str, name: str, extra: frozenset[tuple[str, str]] = frozenset()) -> Verdict:
    """Return the verdict on an import: clean if listed, hostile if it can run code, else unknown.

    `extra` are pairs an operator adds for classes of their own. A Python 2 name counts as its Python 3 name only if
    both are harmless: which one is imported depends on the protocol that the file claims.

    Args:
        module: the module.
        name: the qualified name in it.
        extra: imports that the operator lists.
    """
    pair = (module, name)
    if pair in ALLOWED or pair in extra:
        return Verdict.CLEAN
    if module in ("__builtin__", "copy_reg", "UserDict") and modern(module, name) in ALLOWED:
        return Verdict.CLEAN
    return Verdict.HOSTILE if _runs_code(*modern(module, name)) or _runs_code(module, name) else Verdict.UNKNOWN


def is_standard(module: str) -> bool:
    """Return True for a module of the standard library of any Python from 2.7 to 3.14."""
    return module.partition(".")[0] in _STANDARD


def _runs_code(module: str, name: str) -> bool:
    top = module.partition(".")[0]
    if "." in name or not module or not name:
        return True
    if module.startswith(_PLAIN_CLASSES) and name[:1].isupper():
        return False
    return (top in _STANDARD and top != "__main__") or top in CARRIERS
