"""Text in settings that a loader evaluates: Python after `$`, Python in a string, a shell command.

The text is parsed and never run. An expression without a call, an import or a function only reads existing values, and
does nothing.

Source: MONAI 1.5 `bundle/config_item.py` (`$`), yolov7 `models/yolo.py` (`eval` of module and arguments), ultralytics
`data/utils.py` (`download:`), OmegaConf 2.3 resolvers.
"""

from __future__ import annotations

import ast
import re
import threading
import unicodedata
import warnings

from policyguard.scan.fact_sheets import names
from policyguard.scan.findings import Verdict

MAX_PROGRAM_CHARS = 2**20
MAX_CHARS = 2**16
"""No known loader evaluates longer text; if it begins as an expression, the verdict is unknown."""

_REFERENCE = re.compile(r"@(?:\w+|::|#)+|%[\w:#./]+")
_CALLED = re.compile(
    r"\b(?:__import__|eval|exec|execfile|compile|getattr|setattr|open|system|popen|Popen|check_output|check_call|spawn\w*|"
    r"exec[lv]\w*|import_module|globals|locals|vars|breakpoint)\s*\(|\.\s*(?:loads?|run|call)\s*\(|__\w{1,40}__\s*[.(\[]"
    r"|\.\s*__\w{1,40}__"
)
_REACHED = re.compile(
    r"\b(?:os|posix|subprocess|pty|runpy|commands|popen2|builtins|__builtins__|importlib|ctypes|pickle|marshal|shutil|"
    r"socket|urllib|webbrowser|multiprocessing|hub|cpp_extension|sys\s*\.\s*modules)\s*\.\s*\w"
)
"""A module that runs commands, or takes code from elsewhere, also where a function of it is passed on uncalled."""

_LAMBDA = re.compile(r"\s*lambda\b[^\n]*:")
_SHELL = re.compile(r";\s*(?:rm|curl|wget|bash|sh|python\d?|nc)\b|[|&]\s*(?:ba)?sh\b|\A\s*(?:bash |pipe:)")
_RESOLVER = re.compile(r"\$\{\s*(?!oc\.|now:|hydra:|env:)[A-Za-z_][\w.]*:(?![-=?+/])", re.ASCII)
"""An OmegaConf resolver that the loading program registered."""

_STATEMENT = re.compile(
    r"(?:^|;)[^\S\n]*(?:import\s+[\w.]+|from\s+[\w.]+\s+import\s|(?:async\s+)?def\s+\w+\s*\(|class\s+\w+)", re.MULTILINE
)
_COMMANDS = names("""
    system popen popen2 popen3 popen4 Popen run call check_call check_output getoutput getstatusoutput execl execle
    execlp execlpe execv execve execvp execvpe spawnl spawnle spawnlp spawnlpe spawnv spawnve spawnvp spawnvpe spawn
    posix_spawn posix_spawnp startfile fork forkpty run_path run_module run_code
""")
_OWNERS = names("os posix nt subprocess commands pty runpy asyncio popen2")
_GADGETS = names("""
    __globals__ __builtins__ __subclasses__ __import__ __mro__ __bases__ __base__ __code__ __loader__ __dict__
    __reduce__ __reduce_ex__ __getattribute__ f_globals f_builtins gi_frame tb_frame
""")
_CHAIN = re.compile(r"\b(?:\w++[\s\\]*+\.[\s\\]*+){200}")
"""CPython's parser makes a text of each part of a dotted name with all before it."""

_TOO_LONG = ast.Pass()
_LOCK = threading.Lock()
_EVALUATORS = names("eval exec execfile compile __import__")
_ACTIVE = (
    ast.Call,
    ast.Import,
    ast.ImportFrom,
    ast.Lambda,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Await,
    ast.ListComp,
    ast.GeneratorExp,
    ast.SetComp,
    ast.DictComp,
    ast.JoinedStr,
)


def judge_expression(text: str) -> Verdict:
    """Judge the Python after a `$`, or another text that a loader is known to evaluate."""
    if len(text) > MAX_CHARS:
        return Verdict.UNKNOWN
    return _judge(_parsed(_REFERENCE.sub("_reference", text)))


def judge_value(text: str) -> Verdict:
    """Judge a text under any key; not clean if it is Python with a telling call, or has a shell command."""
    text = _normal(text.lstrip())
    if text.startswith("$") and (verdict := judge_expression(text[1:])) is not Verdict.CLEAN:
        return verdict
    if _RESOLVER.search(text):
        return Verdict.UNKNOWN
    is_called = _CALLED.search(text) or _LAMBDA.match(text)
    if not is_called and not _REACHED.search(text):
        return Verdict.CLEAN
    tree = _parsed(text.strip())
    if not is_called and not (isinstance(tree, ast.Module) and len(tree.body) == 1):
        # Several sentences may parse as Python; what evaluates a value takes one expression.
        return Verdict.CLEAN
    return min(_judge(tree), Verdict.UNKNOWN, key=_ORDER.index)


_ORDER = list(Verdict)


def _normal(text: str) -> str:
    """Normalize names as Python does: letters of other widths and styles become the plain ones."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def is_shell(text: str) -> bool:
    """Return True for a text that runs something when a shell gets it."""
    start = text.find("$(")
    is_substitution = start >= 0 and text[start + 2 : max(text.rfind(")"), start)].strip() != ""
    return is_substitution or _SHELL.search(text) is not None


def is_program(text: str) -> bool:
    """Return True for text that parses as Python and imports, defines or runs something."""
    text = _normal(text)
    if len(text) > MAX_PROGRAM_CHARS or not (_STATEMENT.search(text) or _CALLED.search(text)):
        return False
    verdict = _judge(_parsed(text))
    return verdict is Verdict.HOSTILE or (verdict is Verdict.UNKNOWN and _STATEMENT.search(text) is not None)


def _parsed(text: str) -> ast.AST | None:
    if _CHAIN.search(text):
        return _TOO_LONG
    try:
        # The filters of warnings belong to the process, and files are scanned in several threads.
        with _LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _judge(tree: ast.AST | None) -> Verdict:
    if tree is None or tree is _TOO_LONG:
        return Verdict.CLEAN if tree is None else Verdict.UNKNOWN
    try:
        active = [node for node in ast.walk(tree) if isinstance(node, _ACTIVE) or _is_hidden(node)]
    except RecursionError:
        return Verdict.UNKNOWN
    if not active:
        return Verdict.CLEAN
    return Verdict.HOSTILE if any(map(_runs, active)) else Verdict.UNKNOWN


def _is_hidden(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in _GADGETS


def _runs(node: ast.AST) -> bool:
    """Return True for a call that runs a command or text as code, or an import of such a function."""
    if isinstance(node, ast.ImportFrom):
        return node.module in _OWNERS and any(alias.name in _COMMANDS for alias in node.names)
    if not isinstance(node, ast.Call):
        return _is_hidden(node)
    function = node.func
    if isinstance(function, ast.Name):
        return function.id in _EVALUATORS
    if not isinstance(function, ast.Attribute):
        return isinstance(function, ast.Call)
    if function.attr not in _COMMANDS:
        return False
    owner = function.value
    name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
    return name in _OWNERS or _runs(owner)
