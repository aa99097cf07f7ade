"""Attempts to run code that lies outside of a measured environment, with a real interpreter that really runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.cli.group import run
from policyguard.environment.bytecode import check_bytecode
from policyguard.environment.listing import list_files
from policyguard.environment.outside import outside_of, user_sites
from policyguard.environment.report import Baseline, EnvironmentReport, make_baseline, read_baseline, verify_environment
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.environment_collector import ENVIRONMENT, EnvironmentCollector
from policyguard.keyfiles import write_private_key, write_public_key
from policyguard.model.request import Request

KEY = PrivateKey.generate(b"\x11" * 32)
HARMLESS, EVIL = "pass\n", "print('evil')\n"

Plant = Callable[[Path, Path, str], str]
"""Puts a module `extra` with this text where the environment loads it from; returns the statement that imports it."""


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A real virtual environment."""
    made = tmp_path / "env"
    venv.EnvBuilder(symlinks=True, with_pip=False).create(made)
    return made


def site_of(prefix: Path) -> Path:
    return next(prefix.glob("lib/python3*/site-packages"))


def signed(prefix: Path) -> Baseline:
    listing = list_files(str(prefix))
    equal = check_bytecode(listing, {}, {}).equal
    return read_baseline(make_baseline(listing, [KEY], equal), [KEY.public])


def said(prefix: Path, statement: str, **variables: str) -> str:
    """Run the environment's interpreter."""
    words = [str(prefix / "bin" / "python"), "-B", "-c", statement]
    return subprocess.run(words, env=variables, capture_output=True, text=True, check=True).stdout


def module(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "extra.py").write_text(text)
    return folder


def by_path_file(prefix: Path, elsewhere: Path, text: str) -> str:
    (site_of(prefix) / "extra.pth").write_text(f"# comment\n\n{module(elsewhere, text)}\n")
    return "import extra"


def by_relative_path_file(prefix: Path, elsewhere: Path, text: str) -> str:
    (site_of(prefix) / "extra.pth").write_text(os.path.relpath(module(elsewhere, text), site_of(prefix)))
    return "import extra"


def by_old_line_end(prefix: Path, elsewhere: Path, text: str) -> str:
    (site_of(prefix) / "extra.pth").write_bytes(b"# comment\r" + os.fsencode(module(elsewhere, text)) + b"\r")
    return "import extra"


def by_archive(prefix: Path, elsewhere: Path, text: str) -> str:
    elsewhere.mkdir(exist_ok=True)
    with zipfile.ZipFile(elsewhere / "extra.whl", "w") as archive:
        archive.writestr("extra.py", text)
    (site_of(prefix) / "extra.pth").write_text(f"{elsewhere / 'extra.whl'}\n")
    return "import extra"


def by_linked_folder(prefix: Path, elsewhere: Path, text: str) -> str:
    module(elsewhere, text)
    (site_of(prefix) / "linked").unlink(missing_ok=True)
    (site_of(prefix) / "linked").symlink_to(elsewhere)
    return "import linked.extra"


def by_two_links(prefix: Path, elsewhere: Path, text: str) -> str:
    module(elsewhere / "deep", text)
    step = elsewhere.parent / "step"
    step.mkdir(exist_ok=True)
    for link, target in ((step / "to", elsewhere / "deep"), (site_of(prefix) / "linked", step)):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    return "import linked.to.extra"


def by_finder(prefix: Path, elsewhere: Path, text: str) -> str:
    """As setuptools writes it: the path has no suffix."""
    finder = f"""
import importlib.util, sys
MAPPING: dict[str, str] = {{'extra': {str(module(elsewhere, text) / "extra")!r}}}
class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, MAPPING[name] + ".py") if name in MAPPING else None
def install(): sys.meta_path.append(Finder)
"""
    (site_of(prefix) / "__editable___extra_1_0_finder.py").write_text(finder)
    line = "import __editable___extra_1_0_finder; __editable___extra_1_0_finder.install()\n"
    (site_of(prefix) / "__editable__.extra-1.0.pth").write_text(line)
    return "import extra"


def by_line_of_code(prefix: Path, elsewhere: Path, text: str) -> str:
    line = f"import sys; exec('sys.path.append(\"{module(elsewhere, text)}\")')\n"
    (site_of(prefix) / "extra.pth").write_text(line)
    return "import extra"


def by_folder_of_git(prefix: Path, elsewhere: Path, text: str) -> str:
    """The work tree is listed without `.git`; a path that leads into it is listed all the same."""
    module(elsewhere, HARMLESS).joinpath("extra.py").unlink()
    (site_of(prefix) / "extra.pth").write_text(f"{elsewhere}\n{module(elsewhere / '.git' / 'hidden', text)}\n")
    return "import extra"


def by_namespace(prefix: Path, elsewhere: Path, text: str) -> str:
    """A folder without `__init__.py` has parts in several places."""
    (site_of(prefix) / "lab").mkdir(exist_ok=True)
    (site_of(prefix) / "lab" / "inside.py").write_text("")
    module(elsewhere / "lab", text)
    (site_of(prefix) / "extra.pth").write_text(f"{elsewhere}\n")
    return "import lab.inside, lab.extra"


PLANTS: dict[str, Plant] = {
    "a path file": by_path_file,
    "a relative path file": by_relative_path_file,
    "a path file with old line ends": by_old_line_end,
    "an archive of a path file": by_archive,
    "a linked folder": by_linked_folder,
    "a link below a linked folder": by_two_links,
    "the finder of an editable install": by_finder,
    "a line of code that has its folder as a text": by_line_of_code,
    "a folder of git": by_folder_of_git,
    "one part of a namespace package": by_namespace,
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS.keys())
def test_code_elsewhere_is_measured_where_it_lies(prefix: Path, tmp_path: Path, plant: Plant) -> None:
    """The build had it, nobody changes a file of the environment, and the interpreter runs other code."""
    elsewhere = tmp_path / "elsewhere"
    statement = plant(prefix, elsewhere, HARMLESS)
    baseline = signed(prefix)
    assert verify_environment(str(prefix), baseline).is_clean
    assert said(prefix, statement) == ""
    for path in [path for path in elsewhere.rglob("*") if path.is_file()]:
        path.unlink()
    plant(prefix, elsewhere, EVIL)
    assert said(prefix, statement) == "evil\n"
    report = verify_environment(str(prefix), baseline)
    assert [name for name in report.changed if name.startswith(str(elsewhere))]


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS.keys())
def test_code_elsewhere_that_the_build_did_not_have_is_named(prefix: Path, tmp_path: Path, plant: Plant) -> None:
    """An editable install on top of the build: its folder is named once, and is a changed file for rules."""
    (tmp_path / "baseline").write_bytes(make_baseline(list_files(str(prefix)), [KEY]))
    plant(prefix, tmp_path / "elsewhere", EVIL)
    inputs = JobInputs(argv=(str(prefix / "bin" / "python"),), directory="/", environment={"HOME": "/nonexistent"})
    collector = EnvironmentCollector(str(tmp_path / "baseline"), [KEY.public])
    value = collector.collect(Request.of("user:a", "job:submit", "job:x"), inputs, 1).entries[ENVIRONMENT].value
    assert isinstance(value, Mapping)
    assert isinstance(value["changed_files"], tuple)
    named = [name for name in value["changed_files"] if str(name).startswith(str(tmp_path / "elsewhere"))]
    assert len(named) == 1


def test_a_folder_elsewhere_gets_one_more_module(prefix: Path, tmp_path: Path) -> None:
    """What is added to a folder of the build is named by its file."""
    by_path_file(prefix, tmp_path / "elsewhere", HARMLESS)
    baseline = signed(prefix)
    (tmp_path / "elsewhere" / "torch.py").write_text(EVIL)
    assert verify_environment(str(prefix), baseline).added == (str(tmp_path / "elsewhere" / "torch.py"),)


def test_byte_code_elsewhere_is_compared_with_its_source(prefix: Path, tmp_path: Path) -> None:
    """And what Python writes there later is no difference."""
    by_path_file(prefix, tmp_path / "elsewhere", "x = 'harmless'\n")
    baseline = signed(prefix)
    words = [str(prefix / "bin" / "python"), "-c", "import extra"]
    subprocess.run(words, env={}, check=True)
    assert verify_environment(str(prefix), baseline).is_clean
    path = next((tmp_path / "elsewhere" / "__pycache__").iterdir())
    path.write_bytes(path.read_bytes().replace(b"harmless", b"harmful!"))
    assert [finding.name for finding in verify_environment(str(prefix), baseline).bytecode] == [str(path)]


def test_git_may_work_in_a_linked_work_tree(prefix: Path, tmp_path: Path) -> None:
    """The twin: a fetch changes no module."""
    by_path_file(prefix, tmp_path / "elsewhere", HARMLESS)
    baseline = signed(prefix)
    (tmp_path / "elsewhere" / ".git").mkdir()
    (tmp_path / "elsewhere" / ".git" / "FETCH_HEAD").write_text("x")
    assert verify_environment(str(prefix), baseline).is_clean


def a_computed_path(prefix: Path) -> str:
    (site_of(prefix) / "extra.pth").write_text("import os, sys; sys.path.insert(0, os.environ.get('X', ''))\n")
    return "extra.pth"


def a_computed_finder(prefix: Path) -> str:
    (site_of(prefix) / "finder.py").write_text("import os\nMAPPING = dict(x=os.environ['X'])\n")
    (site_of(prefix) / "extra.pth").write_text("import finder\n")
    return "extra.pth"


def a_pipe(prefix: Path) -> str:
    os.mkfifo(prefix.parent / "pipe")
    (site_of(prefix) / "extra.pth").write_text(f"{prefix.parent / 'pipe'}\n")
    return "pipe"


@pytest.mark.parametrize("plant", [a_computed_path, a_computed_finder, a_pipe])
def test_a_place_that_cannot_be_determined_is_never_clean(prefix: Path, plant: Callable[[Path], str]) -> None:
    """Even if the build signed it: nobody can say what comes from there tomorrow."""
    name = plant(prefix)
    report = verify_environment(str(prefix), signed(prefix))
    assert not report.is_clean
    assert len(report.unmeasured) == 1
    assert name in report.unmeasured[0]


ORDINARY = {
    "coverage": "import sys; exec('import os\\n\\nif os.getenv(\"COVERAGE_PROCESS_START\"):\\n import coverage')",
    "setuptools": "import os; var = 'SETUPTOOLS_USE_DISTUTILS'; enabled = os.environ.get(var, 'local') == 'local'; "
    "enabled and __import__('_distutils_hack').add_shim();",
    "old setuptools": "import sys; sys.__plen = len(sys.path)",
    "a folder that does not exist": "/nonexistent/src",
    "a folder of the environment": "./inside",
}


@pytest.mark.parametrize("line", ORDINARY.values(), ids=ORDINARY.keys())
def test_ordinary_path_files_are_clean(prefix: Path, line: str) -> None:
    """The twin: what installers write."""
    (site_of(prefix) / "inside").mkdir()
    (site_of(prefix) / "extra.pth").write_text(f"{line}\n")
    listing = list_files(str(prefix))
    assert (listing.outside, listing.unmeasured) == ((), {})
    assert verify_environment(str(prefix), signed(prefix)).is_clean


@pytest.fixture
def borrowed(tmp_path: Path, prefix: Path) -> Path:
    """A standard library elsewhere that others than root may write; the environment says that it borrows it."""
    library = tmp_path / "base" / "lib" / site_of(prefix).parent.name
    (library / "site-packages").mkdir(parents=True)
    (library / "os.py").write_text(HARMLESS)
    (tmp_path / "base" / "bin").mkdir()
    library.chmod(0o777)
    for path in prefix.glob("bin/python*"):
        path.unlink()
        path.write_text("no link to another installation")
    settings = (prefix / "pyvenv.cfg").read_text().splitlines()
    others = [line for line in settings if not line.startswith("home")]
    (prefix / "pyvenv.cfg").write_text("\n".join([f"home = {tmp_path / 'base' / 'bin'}", *others]))
    return library


def test_a_standard_library_that_others_may_write_is_measured(prefix: Path, borrowed: Path) -> None:
    """The interpreter's own modules lie outside of a virtual environment."""
    baseline = signed(prefix)
    (borrowed / "site-packages" / "unused.py").write_text(EVIL)
    assert verify_environment(str(prefix), baseline).is_clean
    (borrowed / "os.py").write_text(EVIL)
    assert verify_environment(str(prefix), baseline).changed == (str(borrowed / "os.py"),)


def test_a_standard_library_of_root_is_the_systems(prefix: Path, borrowed: Path) -> None:
    """The twin: nobody but its owner, root or the guard's account, may write it."""
    borrowed.chmod(0o755)
    assert list_files(str(prefix)).outside == ()
    assert (str(borrowed) in list_files(str(prefix), owners=()).outside) == (os.geteuid() != 0)


def test_packages_of_the_base_count_where_the_environment_includes_them(prefix: Path, borrowed: Path) -> None:
    """`include-system-site-packages = true`."""
    settings = prefix / "pyvenv.cfg"
    settings.write_text(settings.read_text().replace("site-packages = false", "site-packages = TRUE"))
    baseline = signed(prefix)
    (borrowed / "site-packages" / "extra.py").write_text(EVIL)
    assert verify_environment(str(prefix), baseline).added == (str(borrowed / "site-packages" / "extra.py"),)


def test_the_user_site_counts_unless_the_job_goes_without(prefix: Path, tmp_path: Path) -> None:
    """An environment that is not a virtual one loads from the home folder, `.pth` files included."""
    (prefix / "pyvenv.cfg").unlink()
    baseline = signed(prefix)
    home = tmp_path / "home"
    site = module(home / ".local" / "lib" / site_of(prefix).parent.name / "site-packages", EVIL)

    def report(**variables: str) -> EnvironmentReport:
        return verify_environment(str(prefix), baseline, users=user_sites({"HOME": str(home), **variables}))

    assert report().added == (f"{site}/",)
    assert report(PYTHONNOUSERSITE="1").is_clean
    elsewhere = report(HOME="/nonexistent", PYTHONUSERBASE=str(home / ".local"))
    assert elsewhere.added == (f"{site}/",)


@pytest.fixture
def home(prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a build, with its key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POLICYGUARD_CONFIG", raising=False)
    write_private_key(tmp_path / "build.key", KEY)
    write_public_key(tmp_path / "build.pub", KEY.public)
    return tmp_path


def baseline_says(capsys: pytest.CaptureFixture[str], *more: str) -> str:
    code = run(["env", "baseline", "env", "--key", "build.key", "--out", "base.json", *more])
    assert code == 0
    return capsys.readouterr().out


def test_a_shipped_path_file_goes_into_no_baseline_without_a_word(
    home: Path, prefix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """B35b: each line that runs by itself is listed, and what the previous baseline did not have is new."""
    (site_of(prefix) / "old.pth").write_text("import os\n")
    (site_of(prefix) / "extra-1.0.dist-info").mkdir()
    points = "[torch.backends]\nx = x:y\n[pytest11]\np = p\n"
    (site_of(prefix) / "extra-1.0.dist-info" / "entry_points.txt").write_text(points)
    first = baseline_says(capsys)
    assert "there is no previous baseline" in first
    assert "new " in next(line for line in first.splitlines() if "old.pth: import os" in line)
    assert "entry_points.txt: torch.backends: x = x:y" in first
    assert "pytest11" not in first
    (site_of(prefix) / "shipped.pth").write_text("import sys; print('evil', file=sys.stderr)\n")
    (site_of(prefix) / "sitecustomize.py").write_text("import os\n")
    lines = baseline_says(capsys, "--force").splitlines()
    new = {line.split()[1].rpartition("/")[2].rstrip(":") for line in lines if line.strip().startswith("new ")}
    assert new == {"shipped.pth", "sitecustomize.py"}
    assert any("old.pth: import os" in line for line in lines)
    again = baseline_says(capsys, "--force")
    assert "0 of them new" in again


def test_a_previous_baseline_of_another_key_says_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise its writer decides what is not new."""
    other = make_baseline(list_files("env"), [PrivateKey.generate(b"\x22" * 32)])
    (home / "other.json").write_bytes(other)
    words = ["env", "baseline", "env", "--key", "build.key", "--out", "base.json", "--previous", "other.json"]
    assert run(words) == 69
    assert not (home / "base.json").exists()
    assert "0 of the trusted keys" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--record-only", "--own-word"])
def test_an_environment_compared_with_its_own_record_is_never_called_clean(
    home: Path, prefix: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    """B35b: the shipped file is listed, in RECORD or not, and the last word is no verdict."""
    (site_of(prefix) / "x.pth").write_text("import os\n")
    record = site_of(prefix) / "x-1.0.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("x.pth,,\nx-1.0.dist-info/RECORD,,\n")
    assert run(["env", "verify", "env", option]) == 0
    text = capsys.readouterr().out
    assert "CLEAN" not in text
    assert "UNKNOWN" in text
    assert "x.pth: import os" in text
    assert run(["env", "verify", "env", option, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clean"] is False


def test_the_interpreter_of_this_run_has_nothing_undetermined() -> None:
    """An ordinary environment, with an editable install."""
    assert outside_of(os.path.realpath(sys.prefix), (), ()).unmeasured == {}
