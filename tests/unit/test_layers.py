"""Imports point downwards, one door per dependency, and pure rooms open nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "policyguard"

LAYERS = (
    {"values"},
    {"errors"},
    {"model"},
    {"conditions"},
    {"decide", "policy", "attest"},
    {"evidence", "audit", "lint"},
    {"guard", "once", "verify", "keyfiles", "config", "config_looks", "snapshots", "sources"},
    {"server", "hooks", "testing", "analysis"},
    {"cli", "__main__"},
)
HEIGHT = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}

DOORS = {
    "yaml": {"policy/reader.py"},
    "casbin": {"casbin_compat/role_graph.py", "decide/casbin_"},
    "cryptography": {"attest/keys.py"},
    "cel_expr_python": {"conditions/check.py"},
    "google": {"conditions/check.py"},
    "re2": {"conditions/functions.py"},
    "click": {"cli/"},
    "rich": {"cli/"},
    "sqlalchemy": {"decide/casbin_"},
    "picklescan": {"scan/picklescan.py"},
}

PURE_ROOMS = (
    "model/",
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
)
IMPURE_MODULES = {
    "os",
    "socket",
    "subprocess",
    "pathlib",
    "tempfile",
    "shutil",
    "time",
    "random",
    "secrets",
    "sqlite3",
    "urllib",
    "http",
    "glob",
    "io",
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
    """No module imports a room above its own; the arrow that offends is named."""
    here = room(path)
    if here == "__init__":
        return
    assert here in HEIGHT, f"{here} has no place in the house; add it to LAYERS"
    for name in imports(ast.parse(path.read_text())):
        if name.startswith("policyguard."):
            there = name.split(".")[1]
            if there in HEIGHT and there != here:
                arrow = f"{path.relative_to(PACKAGE)} -> {name}"
                assert HEIGHT[there] <= HEIGHT[here], f"{arrow} points upwards"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_each_dependency_has_one_door(path: Path) -> None:
    """Only the door's module imports the dependency behind it."""
    relative = str(path.relative_to(PACKAGE))
    for name in imports(ast.parse(path.read_text())):
        doors = DOORS.get(name.split(".")[0])
        if doors is not None:
            assert any(relative.startswith(door) for door in doors), f"{relative} imports {name}, the door is {doors}"


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
