"""Dotted names in settings: which ones a loader may build, which run commands, and which are unknown.

A loader resolves `a.b.c` by import and attributes, so a harmless module that imports `os` leads to `os.system`. So
every part of a name is checked, and a name is harmless only if it is listed as a whole.

Source: hydra 1.3 `_internal/utils.py` (`_locate`), jsonargparse `import_object`, sentence-transformers
`import_from_string`, torchtune `_component_`.
"""

from __future__ import annotations

import re

from policyguard.scan.fact_sheets import names
from policyguard.scan.findings import Verdict
from policyguard.scan.pickles.allowlist import is_standard

_RUNNERS = names("""
    os posix nt ce subprocess _posixsubprocess commands popen2 builtins __builtin__ __builtins__ sys importlib runpy imp
    pty code codeop ctypes _ctypes cffi pickle cPickle _pickle pickletools dill cloudpickle marshal shelve shutil socket
    pdb bdb timeit trace cProfile profile webbrowser pkgutil zipimport site multiprocessing _xxsubinterpreters
    _interpreters ensurepip venv pip distutils setuptools pydoc platform operator types inspect gc asyncio jsonpickle
    idlelib lib2to3 _pyrepl doctest unittest telnetlib ftplib smtplib tempfile antigravity
""")
"""Modules through which a name reaches commands, imports, files or unpickling."""

_INSIDE = names("os sys subprocess builtins __builtins__ posix importlib shutil ctypes pickle marshal socket runpy pty")
"""The same as parts of a longer name, without short words that are also names of layers."""

_BARE = names("""
    eval exec compile __import__ open input breakpoint getattr setattr delattr vars globals locals execfile file
""")
_HARMLESS = names("""
    datetime.datetime datetime.date datetime.time datetime.timedelta datetime.timezone decimal.Decimal
    fractions.Fraction uuid.UUID pathlib.Path pathlib.PurePath pathlib.PosixPath pathlib.PurePosixPath
    pathlib.WindowsPath pathlib.PureWindowsPath collections.OrderedDict collections.Counter collections.deque
    argparse.Namespace types.SimpleNamespace builtins.dict builtins.list builtins.set builtins.tuple builtins.int
    builtins.float builtins.str builtins.bool builtins.complex builtins.frozenset builtins.slice torch.Size torch.device
    torch.optim.lr_scheduler.ReduceLROnPlateau
""")
_BUILDERS = names("setuptools.build_meta setuptools.build_meta:__legacy__")
"""What `pip` imports to build a package: it runs the code of that package, which is no secret and no accusation."""

_CALLBACKS = (
    "ModelCheckpoint|EarlyStopping|LearningRateMonitor|RichProgressBar|TQDMProgressBar|ModelSummary|RichModelSummary|"
    "DeviceStatsMonitor|GradientAccumulationScheduler|StochasticWeightAveraging|Timer|ThroughputMonitor"
)
_FLAVOURS = (
    "sklearn|pytorch|xgboost|lightgbm|catboost|tensorflow|keras|transformers|sentence_transformers|onnx|statsmodels|"
    "prophet|spacy|paddle|pmdarima|h2o|diviner"
)
_LISTED = re.compile(
    r"torch\.nn\.(?:modules\.\w+\.)?[A-Z]\w*|torch\.optim\.(?:\w+\.)?[A-Z]\w*"
    r"|sentence_transformers\.(?:(?:models|base|modules|sparse_encoder|sentence_transformer|cross_encoder|util)\.)+"
    r"(?:[a-z_]\w*\.)?[A-Z]\w*"
    rf"|(?:lightning\.pytorch|pytorch_lightning)\.callbacks\.(?:\w+\.)?(?:{_CALLBACKS})|mlflow\.(?:{_FLAVOURS})"
    r"|jax\.Array|(?:np|numpy)\.ndarray"
    r"|torch\.(?:float(?:16|32|64)|bfloat16|half|float|double|u?int(?:8|16|32|64)|bool|float8_\w+)",
    re.ASCII,
)
"""Names of one library that build a layer, an optimizer or a callback from plain arguments."""

_DOTTED = re.compile(r"[^\W\d]\w*+(?:[.:/][^\W\d]\w*+)++", re.ASCII)
_CLASS = re.compile(r"(?!v\d)[a-z_]\w++(?:[.:][^\W\d]\w*+)*[.:][A-Z]\w*", re.ASCII)
_SUFFIX = re.compile(
    r"\.(?:json|txt|md|ya?ml|csv|tsv|bin|pt|pth|ckpt|safetensors|model|onnx|gguf|h5|npz?|parquet|arrow|jsonl|zip|gz|tar|"
    r"png|jpe?g|wav|mp[34]|flac|log|html?|pdf|vocab|tiktoken|toml|cfg|ini|pkl|pickle|joblib|keras|weight|bias)$"
)
_DOMAIN = re.compile(r"\.(?:com|org|net|io|ai|co)$")


def judge_name(name: str) -> Verdict:
    """Return the verdict on a loader that imports this name and calls it.

    Returns:
        Hostile for a name that reaches commands, files or imports; clean for a listed class; else unknown.
    """
    name = name.strip()
    parts = re.split(r"[.:/]", name)
    if name in _HARMLESS or (_LISTED.fullmatch(name) and not _INSIDE.intersection(parts)):
        return Verdict.CLEAN
    if name in _BUILDERS:
        return Verdict.UNKNOWN
    if len(parts) == 1:
        return Verdict.HOSTILE if name in _BARE else Verdict.UNKNOWN
    if parts[0] in _RUNNERS or _INSIDE.intersection(parts[:-1]) or (parts[-1] in _BARE and is_standard(parts[0])):
        return Verdict.HOSTILE
    return Verdict.HOSTILE if any(part.startswith("__") and part != "__main__" for part in parts) else Verdict.UNKNOWN


def reaches_code(text: str) -> bool:
    """Return True for a dotted name that reaches commands or imports, under any key."""
    if not _DOTTED.fullmatch(text) or _SUFFIX.search(text) or _DOMAIN.search(text) or "/" in text:
        return False
    parts = re.split(r"[.:]", text)
    return parts[0] in _INSIDE or bool(_INSIDE.intersection(parts[1:-1])) or ".__" in text


def is_dotted_class(text: str) -> bool:
    """Return True for the dotted name of a class: only the last part begins with a capital."""
    return _CLASS.fullmatch(text) is not None and not _SUFFIX.search(text)


def is_dotted(text: str) -> bool:
    """Return True for a dotted name that is not a file name."""
    return _DOTTED.fullmatch(text) is not None and not _SUFFIX.search(text) and "/" not in text


def is_listed(text: str) -> bool:
    """Return True for a name that a loader may build without harm."""
    return judge_name(text) is Verdict.CLEAN
