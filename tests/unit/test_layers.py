"""Imports point downwards and in no circle, each dependency has one owner, and pure rooms do no I/O."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "policyguard"

FLOORS = (
    {"values"},
    {"errors", "text"},
    {"model"},
    {"patterns", "fs", "exit_codes", "yaml_events"},
    {"conditions", "attest"},
    {"decide", "git", "keyfiles", "revocation_file"},
    {"policy", "audit", "scan", "environment", "confinement", "program"},
    {"casbin_compat", "lint", "evidence"},
    {"policy_store"},
    {"config", "verify", "analysis", "testing"},
    {"assembly", "issuer"},
    {"guard"},
    {"hooks"},
    {"cli"},
    {"demo"},
    {"__main__"},
)
"""The house from the ground up; `docs/architecture.md` draws it."""

HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}

SIDEWAYS = {
    # The verb starts the demo, and the demo runs other verbs; no two files import each other.
    ("cli", "demo"),
}
"""(from, to) of the imports that do not point downwards."""

OWNERS = {
    "yaml": {"yaml_events.py"},
    "casbin": {"casbin_compat/"},
    "cryptography": {"attest/keys.py"},
    "cel_expr_python": {"conditions/check.py"},
    "google": {"conditions/check.py"},
    "re2": {"conditions/functions.py"},
    "click": {"cli/"},
    "sqlalchemy": {"casbin_compat/"},
    "picklescan": {"scan/picklescan.py"},
    "pyarrow": {"cli/verbs/audit_/parquet.py"},
}
"""The only modules that import a dependency."""

PURE_ROOMS = (
    "model/",
    "patterns/",
    "conditions/",
    "decide/",
    "attest/",
    "lint/",
    "verify.py",
    "audit/merkle.py",
    "audit/checkpoint.py",
    "audit/receipt.py",
    "values.py",
    "errors.py",
    "exit_codes.py",
    "text.py",
)
IMPURE_MODULES = {
    *("os", "socket", "subprocess", "pathlib", "tempfile", "shutil", "time", "random", "secrets", "sqlite3"),
    *("urllib", "http", "glob", "io", "sqlalchemy", "casbin", "fcntl", "mmap", "signal", "threading", "asyncio"),
}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "breakpoint"}


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    """No module imports a package on its own floor or above; the import at fault is named."""
    here = room(path)
    if here == "__init__":
        return
    assert here in HEIGHT, f"{here} is on no floor of the house; add it to FLOORS"
    for name in imports(ast.parse(path.read_text())):
        if name.startswith("policyguard."):
            there = name.split(".")[1]
            if there in HEIGHT and there != here and (here, there) not in SIDEWAYS:
                arrow = f"{path.relative_to(PACKAGE)} -> {name}"
                assert HEIGHT[there] < HEIGHT[here], f"{arrow} does not point downwards"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_each_dependency_has_one_owner(path: Path) -> None:
    """A dependency is imported by the modules that own it and by no other."""
    relative = str(path.relative_to(PACKAGE))
    for name in imports(ast.parse(path.read_text())):
        owners = OWNERS.get(name.split(".")[0])
        if owners is not None:
            assert any(relative.startswith(owner) for owner in owners), f"{relative} imports {name}, which {owners} own"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_pure_rooms_open_nothing(path: Path) -> None:
    """Rooms that promise to be pure import nothing that reaches the machine, the clock or randomness."""
    relative = str(path.relative_to(PACKAGE))
    if not relative.startswith(PURE_ROOMS):
        return
    tree = ast.parse(path.read_text())
    for name in imports(tree):
        assert name.split(".")[0] not in IMPURE_MODULES, f"{relative} imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_CALLS, f"{relative}:{node.lineno} calls {node.func.id}"


def test_no_circle_of_files() -> None:
    """No module imports itself through others, annotations included."""
    names = {
        str(path.relative_to(PACKAGE).with_suffix("")).replace("/", ".").removesuffix(".__init__"): path
        for path in modules()
    }
    graph = {
        name: {
            there
            for full in imports(ast.parse(path.read_text()))
            if full.startswith("policyguard.")
            and (there := full.removeprefix("policyguard.")) in names
            and there != name
        }
        for name, path in names.items()
    }
    assert circles(graph) == []


def circles(graph: dict[str, set[str]]) -> list[frozenset[str]]:
    """List the strongly connected components with more than one member: those that reach each other."""
    reach = {name: reachable(graph, name) for name in graph}
    components = {
        frozenset(other for other in reach[name] if name in reach[other]) for name in graph if name in reach[name]
    }
    return sorted(components, key=sorted)


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Collect what can be reached from `start` in one step or more."""
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(graph[name])
    return seen


def test_a_circle_is_found() -> None:
    """The twin: two files that import each other through a third are one circle, and a chain is none."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [frozenset("abc")]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
