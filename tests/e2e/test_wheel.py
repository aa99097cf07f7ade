"""The wheel: installed with its declared dependencies and nothing else, it gives a working `policyguard` command."""

from __future__ import annotations

import ast
import email
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from policyguard.exit_codes import DENIED, OK

ROOT = Path(__file__).parents[2]

OPTIONAL = {"pyarrow": "parquet", "sqlalchemy": "db", "picklescan": "scan", "py7zr": "scan"}
"""What is imported only where it is installed, with the extra that brings it."""

FLOORS = {"simpleeval"}
"""Declared and not imported by us: a floor for a dependency of pycasbin."""

_BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
_COMMAND = "import sys; from policyguard.cli.main import main; sys.exit(main())"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked as an installer does."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-c", _BUILD, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(folder / built.stdout.split()[-1]) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def described(wheel: Path) -> tuple[list[Requirement], set[str]]:
    """Return the requirements and the extras that the wheel declares."""
    text = next(wheel.glob("*.dist-info/METADATA")).read_text(encoding="utf-8")
    fields = email.message_from_string(text)
    return (
        [Requirement(line) for line in fields.get_all("Requires-Dist", [])],
        set(fields.get_all("Provides-Extra", [])),
    )


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(requirements: list[Requirement], extra: str = "") -> set[str]:
    """Return the distributions that these requirements name for this machine."""
    return {plain(r.name) for r in requirements if r.marker is None or r.marker.evaluate({"extra": extra})}


def with_their_own(names: set[str]) -> set[str]:
    """Return the distributions with everything that they require in turn."""
    complete: set[str] = set()
    while names:
        complete |= names
        needs = [Requirement(line) for name in names for line in metadata.requires(name) or ()]
        names = wanted(needs) - complete
    return complete


@pytest.fixture(scope="module")
def plain_install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the declared dependencies, which a process sees beside the wheel and the standard library."""
    folder = tmp_path_factory.mktemp("dependencies")
    requirements, _ = described(wheel)
    for name in with_their_own(wanted(requirements)):
        files = metadata.files(name) or []
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(str(metadata.distribution(name).locate_file(top))))
    return folder


def run(wheel: Path, dependencies: Path, code: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python without site-packages: what is not declared is not there."""
    environment = {"PYTHONPATH": f"{wheel}:{dependencies}", "PATH": "/usr/bin:/bin", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-S", "-c", code, *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_plain_install_has_a_working_command(wheel: Path, plain_install: Path, tmp_path: Path) -> None:
    """Without any extra: help, a folder to begin with, an allow and a deny."""
    place = run(wheel, plain_install, "import policyguard; print(policyguard.__file__)", cwd=tmp_path)
    assert place.stdout.startswith(str(wheel))
    undeclared = run(wheel, plain_install, "import pytest", cwd=tmp_path)
    assert "No module named 'pytest'" in undeclared.stderr
    helped = run(wheel, plain_install, _COMMAND, "--help", cwd=tmp_path)
    assert (helped.returncode, helped.stderr) == (OK, "")
    assert "decide" in helped.stdout
    laid_down = run(wheel, plain_install, _COMMAND, "init", "lab", cwd=tmp_path)
    assert (laid_down.returncode, laid_down.stderr) == (OK, "")
    lab = tmp_path / "lab"
    for verb, end in (("allowed", OK), ("denied", DENIED)):
        requests = sorted((lab / "requests").glob(f"{verb}*.json"))
        assert requests
        decided = run(wheel, plain_install, _COMMAND, "decide", str(requests[0]), cwd=lab)
        assert (decided.returncode, decided.stderr) == (end, "")


def test_the_console_script_is_the_command(wheel: Path) -> None:
    """What the test above calls is what the script of the wheel calls."""
    scripts = next(wheel.glob("*.dist-info/entry_points.txt")).read_text()
    assert "policyguard = policyguard.cli.main:main" in scripts


def imports(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (name.name for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module


def test_every_import_is_declared_and_every_dependency_imported(wheel: Path) -> None:
    """A package that is imported belongs to a declared distribution; one that is declared is imported or a floor."""
    ours = {name for name in imports(wheel / "policyguard") if name.partition(".")[0] not in sys.stdlib_module_names}
    owners = metadata.packages_distributions()
    tops = {name.partition(".")[0] for name in ours} - {"policyguard"} - set(OPTIONAL)
    found = {plain(owner) for top in tops for owner in owners.get(top, [f"nothing installed: {top}"])}
    requirements, _ = described(wheel)
    assert found == wanted(requirements) - FLOORS


def test_optional_imports_have_their_extra(wheel: Path) -> None:
    """What is imported only where it is installed is brought by the extra that the message names."""
    requirements, extras = described(wheel)
    for package, extra in OPTIONAL.items():
        assert extra in extras
        assert package in wanted(requirements, extra) - wanted(requirements)


def test_the_wheel_is_whole_and_has_no_empty_package(wheel: Path) -> None:
    """Licence, type marker and example policies are in it; each package has more than an empty `__init__.py`."""
    assert (wheel / "policyguard" / "py.typed").exists()
    assert (wheel / "policyguard" / "policies" / "jobs.yaml").exists()
    assert next(wheel.glob("*.dist-info/licenses/LICENSE")).read_text().strip().startswith("Apache License")
    empty = [
        str(init.parent.relative_to(wheel))
        for init in wheel.rglob("__init__.py")
        if not init.read_text().strip() and len(list(init.parent.rglob("*.py"))) == 1
    ]
    assert empty == []
    assert {path.name.partition("-")[0] for path in wheel.iterdir()} == {"policyguard", "policyguard_engine"}
