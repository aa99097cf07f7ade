"""The job collector sees the command, the program text, the doors and the files, and binds them."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest

from policyguard.evidence.collector import Collected, JobInputs
from policyguard.evidence.injection import INJECTION_VARIABLES, injection_variables
from policyguard.evidence.job import JobCollector, installations, resolve_executable
from policyguard.model.facts import Assurance
from policyguard.model.request import Request, request_digest
from policyguard.text import printable_name
from policyguard.values import FrozenMap

REQUEST = Request.of("user:alice", "job:submit", "job:team/vision/run-17")


def collect(folder: Path, *argv: str, files: tuple[str, ...] = (), **environment: str) -> Collected:
    inputs = JobInputs(argv=argv, directory=str(folder), files=files, environment=environment)
    return JobCollector().collect(REQUEST, inputs, 1)


def value(found: Collected, path: str) -> object:
    return found.entries[path].value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("print('step')\n")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "vision.yaml").write_text("lr: 1\n")
    return tmp_path


def test_everything_is_measured_and_bound(folder: Path) -> None:
    """All five facts enter the request digest."""
    found = collect(folder, sys.executable, "train.py")
    assert not found.missing
    assert set(JobCollector.declares) == set(found.entries)
    assert {(Assurance.MEASURED, True)} == {(fact.assurance, fact.bound) for fact in found.entries.values()}


def test_the_program_text_is_measured_without_being_named(folder: Path) -> None:
    """A script among the arguments is a file of the job whether the job file says so or not."""
    files = value(collect(folder, sys.executable, "-u", "train.py", "--steps", "3"), "resource.files")
    digest = hashlib.sha256(b"print('step')\n").hexdigest()
    assert (FrozenMap(path="train.py", digest=digest, size=14),) == files


def test_named_files_are_measured_once_under_one_name(folder: Path) -> None:
    """Spellings of one file are one record, sorted by path."""
    names = ("configs/vision.yaml", "./configs/../configs/vision.yaml", str(folder / "train.py"))
    files = value(collect(folder, "sh", "train.py", files=names, PATH=os.environ["PATH"]), "resource.files")
    assert [record["path"] for record in files] == ["configs/vision.yaml", "train.py"]  # type: ignore[attr-defined]


def test_a_changed_file_changes_the_request_digest(folder: Path) -> None:
    """What the worker runs must be what was decided on."""

    def digest() -> str:
        entries = collect(folder, sys.executable, "train.py").entries
        return request_digest(REQUEST, {path: fact.value for path, fact in entries.items()})

    before = digest()
    assert digest() == before
    (folder / "train.py").write_text("print('sabo')\n")
    assert digest() != before


def test_the_executable_is_found_as_execvp_would_find_it(folder: Path) -> None:
    """A relative PATH entry means the job's folder; a path with a slash is taken from there, too."""
    tool = folder / "bin" / "tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    assert str(tool) == resolve_executable(("tool",), str(folder), {"PATH": "/nowhere:bin"})
    assert str(tool) == resolve_executable(("bin/tool",), str(folder), {})
    record = value(collect(folder, "tool", PATH="bin"), "resource.executable")
    assert record == FrozenMap(path=str(tool), digest=hashlib.sha256(b"#!/bin/sh\n").hexdigest(), size=10)


def test_a_command_that_does_not_exist_is_a_missing_fact(folder: Path) -> None:
    """The other facts are there all the same."""
    found = collect(folder, "no-such-program", PATH="/usr/bin:/bin")
    assert "found no executable program" in found.missing["resource.executable"]
    assert "resource.argv" in found.entries


@pytest.mark.parametrize("name", [n for n in INJECTION_VARIABLES if not n.startswith("GIT_CONFIG")])
def test_every_injection_variable_is_seen(name: str) -> None:
    """I17: a door that is set is listed with its value."""
    name = name.replace("*", "X")
    assert {name: "/tmp/x"} == injection_variables({name: "/tmp/x", "HOME": "/root", "PATH": "/bin"})


@pytest.mark.parametrize("name", ["BASH_FUNC_python%%", "DYLD_INSERT_LIBRARIES"])
def test_injection_variables_by_prefix_are_seen(name: str) -> None:
    """I17: exported shell functions and the macOS linker's variables are families."""
    assert {name: "() { evil; }"} == injection_variables({name: "() { evil; }"})


def test_an_empty_injection_variable_injects_nothing() -> None:
    """I17, the twin: variables that are empty or unknown are not listed."""
    assert injection_variables({"LD_PRELOAD": "", "PYTHONUNBUFFERED": "1", "ldpreload": "x"}) == {}


def test_code_injected_by_an_argument_is_seen(folder: Path) -> None:
    """I17: `env LD_PRELOAD=x.so python train.py` sets it just as well."""
    found = collect(
        folder, "env", "LD_PRELOAD=/tmp/x.so", "LANG=C", "python", "train.py", "--lr=1", PATH="/usr/bin:/bin"
    )
    assert value(found, "resource.code_injecting_env") == {"LD_PRELOAD": "/tmp/x.so"}


@pytest.mark.parametrize(
    ("argv", "seen"),
    [
        (("python3.11", "-u", "train", "data.bin"), ["train"]),
        (("/usr/bin/bash", "-x", "train"), ["train"]),
        (("python", "-m", "torch", "data.bin"), []),
        (("cat", "train"), []),
        (("python", "."), []),
        (("python", "train", "data.bin", "train.py"), ["train", "train.py"]),
    ],
    ids=["python", "a shell", "a module", "no interpreter", "a folder", "both kinds"],
)
def test_a_program_without_a_suffix_is_measured(folder: Path, argv: tuple[str, ...], seen: list[str]) -> None:
    """What an interpreter is given first is its program, whatever it is called; data is not hashed unasked."""
    (folder / "train").write_text("pass\n")
    (folder / "data.bin").write_text("x" * 1000)
    files = value(collect(folder, *argv, PATH="/usr/bin:/bin"), "resource.files")
    assert [record["path"] for record in files] == seen  # type: ignore[attr-defined]


def test_names_that_are_no_text_have_one_encoding_each() -> None:
    """Different names never look the same in a fact."""
    names = [b"a\nb", b"a\\nb", b"\xff", b"\\xff", "ÿ".encode(), "a\u202eb".encode(), b"plain"]
    assert len({printable_name(name) for name in names}) == len(names)
    assert all(printable_name(name).isprintable() for name in names)
    assert printable_name(b"plain") == "plain"


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A folder like a virtual environment, built on a second one like a Python."""
    for name in ("env/bin", "python/bin", "python/conda-meta"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "env" / "bin" / "tool").touch()
    return tmp_path / "env"


def test_an_environment_and_what_it_is_built_on_are_found(environment: Path) -> None:
    """By `home` in `pyvenv.cfg`, which may be a link."""
    real = environment.parent / "settings"
    real.write_text(f"version = 3.11\nhome = {environment.parent}/python/bin\n")
    (environment / "pyvenv.cfg").symlink_to(real)
    assert installations(str(environment / "bin" / "tool")) == (str(environment), str(environment.parent / "python"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("content", ["a FIFO", "a NUL byte", "no file"])
def test_settings_that_cannot_be_read_name_no_other_folder(environment: Path, content: str) -> None:
    """A FIFO was waited for, until the collector's time limit; a NUL byte in `home` raised."""
    settings = environment / "pyvenv.cfg"
    if content == "a FIFO":
        os.mkfifo(settings)
    elif content == "a NUL byte":
        settings.write_text(f"home = {environment.parent}/python\0/bin\n")
    else:
        (environment / "conda-meta").mkdir()
    assert installations(str(environment / "bin" / "tool")) == (str(environment),)
