"""The shape of the package: short functions, folders that fit on a screen, packages that say what they promise."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import policyguard

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "policyguard"
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = sorted(file for folder in ("policyguard", "tests", "bench") for file in (ROOT / folder).rglob("*.py"))

MAX_FUNCTION_LINES = 40
"""Lines of a function with its docstring, from `def` to the end; decorators do not count."""

LONG_FUNCTIONS: dict[str, str] = {
    "attest/statement.py:decision_statement": "a table: the fields of the predicate in their order",
    "decide/admission.py:FactAdmission.admit": "the hot path: a call for each fact costs more than the step",
    "decide/evaluate.py:evaluate": "steps 2 and 3 on the hot path: a call for each rule costs more than a step",
}
"""`file:function` -> why it reads better whole."""

MAX_FILES = 40
LARGE_FOLDERS = {"lint/rules": "one file for each rule, named by its id"}


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield each function and method of a module with its dotted name."""

    def below(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield prefix + child.name, child
                yield from below(child, f"{prefix}{child.name}.")
            else:
                yield from below(child, f"{prefix}{child.name}." if isinstance(child, ast.ClassDef) else prefix)

    yield from below(ast.parse(path.read_text()), "")


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function, its docstring included."""
    return (function.end_lineno or 0) - function.lineno + 1


def test_functions_are_short() -> None:
    """No function is longer than 40 lines; those of the list are, each for its reason."""
    long = {
        f"{path.relative_to(PACKAGE)}:{name}"
        for path in MODULES
        for name, function in functions(path)
        if length(function) > MAX_FUNCTION_LINES
    }
    assert long == set(LONG_FUNCTIONS)


def test_a_docstring_counts() -> None:
    """The twin: 40 lines with the docstring pass, 41 do not."""
    text = 'def f():\n    """One.\n\n    Two.\n    """\n' + "    x = 1\n" * 35
    accepted, refused = (ast.parse(source).body[0] for source in (text, text + "    x = 1\n"))
    assert isinstance(accepted, ast.FunctionDef)
    assert isinstance(refused, ast.FunctionDef)
    assert (length(accepted), length(refused)) == (MAX_FUNCTION_LINES, MAX_FUNCTION_LINES + 1)


def test_a_folder_fits_on_a_screen() -> None:
    """No folder holds more than 40 files, but for the lint rules."""
    files = Counter(str(path.parent.relative_to(PACKAGE)) for path in MODULES)
    assert {folder for folder, count in files.items() if count > MAX_FILES} == set(LARGE_FOLDERS)


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=lambda path: path.name)
def test_a_package_says_what_it_promises(folder: Path) -> None:
    """Each package has a docstring, and a module besides `__init__.py` or code in it."""
    init = folder / "__init__.py"
    assert init.is_file(), f"{folder}: `__init__.py` is missing"
    tree = ast.parse(init.read_text())
    assert ast.get_docstring(tree), f"{init}: a docstring is missing, expected what the package promises"
    assert len(tree.body) > 1 or any(path != init for path in folder.rglob("*.py")), f"{folder}: an empty package"


ORDERS_BY_THEMSELVES = {"cli/verbs", "lint/rules", "scan/formats", "scan/pickles", "scan/settings"}
"""Folders with one file for each verb, rule or format: the recipe in the docstring says how they are named."""


def reading_order(init: Path) -> str:
    """Return what a package's docstring says from `Read` on, if it proposes an order."""
    text = ast.get_docstring(ast.parse(init.read_text())) or ""
    return text[at:] if (at := text.find("Read ")) >= 0 else ""


@pytest.mark.parametrize("init", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_a_reading_order_names_every_file(init: Path) -> None:
    """Who reads a package in the order that it proposes has read all of it."""
    order = reading_order(init)
    if order and str(init.parent.relative_to(PACKAGE)) not in ORDERS_BY_THEMSELVES:
        files = {path.name for path in init.parent.glob("*.py") if path != init}
        assert {name for name in files if f"`{name}`" not in order} == set()


def test_the_unit_tests_mirror_the_package() -> None:
    """Each package has a folder with unit tests, and each such folder is that of a package, or of the benchmarks."""
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    tested = {path.parent.name for path in (ROOT / "tests" / "unit").glob("*/test_*.py")}
    assert tested - {"bench"} == packages


def test_the_formatter_decides() -> None:
    """No comment switches the formatter off."""
    switches = ["# fmt: " + word for word in ("skip", "off")]
    assert [str(path) for path in SOURCES if any(switch in path.read_text() for switch in switches)] == []


ONE_OF_EACH = {
    "the state of a file": (r"st_size, (?:\w+\.)?st_mtime_ns, (?:\w+\.)?st_ctime_ns", {"fs/safe_open.py"}),
    "a SHA-256 digest as text": (r"""compile\(r?b?["'](?:\(\?:)?\[0-9a-f\]\{64\}""", set()),
    "an object id of git": (r"""["(]\[0-9a-f\]\{40\}\|""", {"values.py", "evidence/push/nonce.py"}),
    "opening a file that others may have placed": (
        r"O_NONBLOCK|REGULAR_FLAGS",
        {"fs/safe_open.py", "fs/job_folder.py", "fs/private_files.py"},
    ),
    "discarding a closed stream": (r"os\.open\(os\.devnull, os\.O_WRONLY", {"fs/write.py"}),
    "base64 that must be ASCII": (r"decode_base64\([^)]*\.encode\(", set()),
}
"""What is written once -> a pattern of its text, and the files that have it."""


@pytest.mark.parametrize(("pattern", "places"), ONE_OF_EACH.values(), ids=ONE_OF_EACH)
def test_one_of_each_thing(pattern: str, places: set[str]) -> None:
    """A rule that is written twice drifts apart: one copy checks what the other forgets."""
    assert {str(path.relative_to(PACKAGE)) for path in MODULES if re.search(pattern, path.read_text())} == places


def test_a_renamed_file_is_durable() -> None:
    """A module that renames files syncs their folder; after a crash the old name would be back."""
    renames = {str(path.relative_to(PACKAGE)): path.read_text() for path in MODULES if "demo" not in path.parts}
    undurable = {
        path
        for path, text in renames.items()
        if re.search(r"os\.(?:rename|replace|link)\b|\)\.rename\(", text) and "sync_folder(" not in text
    }
    assert undurable == set()


COLLECT = ["request", "inputs", "now"]
"""The parameters of every collector's `collect`; `evidence/collector.py` documents them."""


def is_verb(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Check whether a function is a verb of the command line, whose docstring is the help that click prints."""
    return any("click." in ast.unparse(item) or "command" in ast.unparse(item) for item in function.decorator_list)


def raised(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Yield the name of what each `raise` of a function itself raises."""
    nodes: list[ast.AST] = list(function.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            nodes += ast.iter_child_nodes(node)


EXPORTED = {
    *(f"{home.removeprefix('policyguard.').replace('.', '/')}.py:{name}" for name, home in policyguard._HOMES.items()),
    "verify.py:verify",
}
"""`file:name` of what hosts import."""


def unnamed(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """List the parameters that the `Args:` section of a function leaves out; none if it has no such section."""
    _, _, section = (ast.get_docstring(function) or "").partition("Args:\n")
    heads = re.findall(r"^    ([\w, ]+):", section.partition("\n\n")[0], re.MULTILINE)
    named = {name.strip() for head in heads for name in head.split(",")}
    arguments = function.args
    names = [item.arg for item in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return [name for name in names if name not in named and name not in ("self", "cls")] if section else []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_hosts_call_documents_every_parameter(path: Path) -> None:
    """An `Args:` section of a function that hosts import, or of a method of such a class, leaves no parameter out."""
    relative = path.relative_to(PACKAGE)
    public = {
        name: unnamed(function)
        for name, function in functions(path)
        if f"{relative}:{name.partition('.')[0]}" in EXPORTED and not name.rpartition(".")[2].startswith("_")
    }
    assert {name: names for name, names in public.items() if names} == {}


def test_an_argument_that_is_left_out_is_noticed() -> None:
    """The twin: both parameters named, in one line or two, and one of them not."""
    source = 'def f(a, b):\n    """Do.\n\n    Args:\n        %s: x.\n    """'
    found, complete = (ast.parse(source % names).body[0] for names in ("a", "a, b"))
    assert isinstance(found, ast.FunctionDef)
    assert isinstance(complete, ast.FunctionDef)
    assert (unnamed(found), unnamed(complete)) == (["b"], [])


def undocumented(name: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Yield what the docstring of a public function does not say."""
    text = ast.get_docstring(function)
    if text is None or is_verb(function) or any(part.startswith("_") for part in name.split(".")):
        return
    arguments = function.args
    names = [item.arg for item in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    names = [item for item in names if item not in ("self", "cls")]
    if len(names) >= 3 and names != COLLECT and "Args:" not in text:
        yield f"{name}: Args"
    errors = [item for item in raised(function) if not item.startswith("_") and item.rpartition(".")[2] not in text]
    if errors and "Raises:" not in text:
        yield f"{name}: Raises {', '.join(errors)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_functions_document_their_arguments_and_errors(path: Path) -> None:
    """A public function with three parameters or a `raise` says in `Args:` and `Raises:` what they are."""
    assert [line for name, function in functions(path) for line in undocumented(name, function)] == []
