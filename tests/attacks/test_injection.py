"""Attempts to run other code than the measured program by a variable or an option."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from policyguard.evidence.collector import Collected, JobInputs
from policyguard.evidence.injected import INJECTED_FILES, TREATMENT, InjectionCollector
from policyguard.evidence.injection import injection_variables
from policyguard.evidence.job import injected_by
from policyguard.model.request import Request
from policyguard.values import FrozenMap


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A repository beside a folder of somebody else."""
    for folder in ("job/.git", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "elsewhere" / "lib.so").write_text("harmless")
    return tmp_path / "job"


def measured(job: Path, *argv: str, **variables: str) -> Collected:
    inputs = JobInputs(argv=argv or ("/usr/bin/env",), directory=str(job), environment=variables)
    return InjectionCollector().collect(Request.of("user:a", "job:submit", "job:x"), inputs, 1)


def treatment(job: Path, *argv: str, **variables: str) -> dict[str, object]:
    value = measured(job, *argv, **variables).entries[TREATMENT].value
    assert isinstance(value, FrozenMap)
    return dict(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LD_PRELOAD", "/usr/lib/libx.so"),
        ("LD_AUDIT", "x.so"),
        ("OPENSSL_CONF", "{elsewhere}/openssl.cnf"),
        ("OPENSSL_MODULES", "{elsewhere}"),
        ("CUDA_INJECTION64_PATH", "/usr/lib/libx.so"),
        ("OMP_TOOL_LIBRARIES", "x.so"),
        ("HSA_TOOLS_LIB", "x.so"),
        ("PYTHONPYCACHEPREFIX", "/usr/lib"),
    ],
)
def test_a_variable_that_no_job_needs_is_refused(job: Path, name: str, value: str) -> None:
    """Whatever it points to."""
    value = value.format(elsewhere=job.parent / "elsewhere")
    assert treatment(job, **{name: value}) == {name: "refused"}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("LD_LIBRARY_PATH", "/usr/lib:{elsewhere}", "restricted"),
        ("LD_LIBRARY_PATH", "/usr/lib:../elsewhere", "restricted"),
        ("LD_LIBRARY_PATH", "/usr/lib/../../{elsewhere}", "restricted"),
        ("LD_LIBRARY_PATH", "link", "restricted"),
        ("LD_LIBRARY_PATH", "./link", "restricted"),
        ("LD_LIBRARY_PATH", "/usr/lib:/usr/lib/not/there", "measured"),
        ("LD_LIBRARY_PATH", "./lib", "measured"),
        ("NCCL_NET_PLUGIN", "{elsewhere}/lib.so", "restricted"),
        ("NCCL_NET_PLUGIN", "ofi", "measured"),
        ("NCCL_TUNER_PLUGIN", "/usr/lib/libtuner.so", "measured"),
        ("XLA_FLAGS", "--xla_gpu_cuda_data_dir={elsewhere}", "restricted"),
        ("XLA_FLAGS", "--xla_dump_to=/usr/lib --xla_gpu_autotune_level=4", "measured"),
        ("OPENSSL_CONF", "/usr/lib/ssl/openssl.cnf", "measured"),
        ("MPLBACKEND", "Agg", "measured"),
        ("TORCHINDUCTOR_CACHE_DIR", "{elsewhere}", "measured"),
        ("NUMBA_CACHE_DIR", "{elsewhere}", "measured"),
        ("CUPY_CACHE_DIR", "{elsewhere}", "measured"),
        ("SLURM_CONF", "{elsewhere}/slurm.conf", "restricted"),
        ("SLURM_CONF", "/etc/slurm/slurm.conf", "measured"),
        ("DS_ENV_FILE", "{elsewhere}/env", "restricted"),
        ("COVERAGE_PROCESS_START", "{elsewhere}/rc", "restricted"),
        ("COVERAGE_RCFILE", "{elsewhere}/rc", "restricted"),
        ("COVERAGE_RCFILE", "setup.cfg", "measured"),
    ],
)
def test_where_a_path_leads_decides(job: Path, name: str, value: str, expected: str) -> None:
    """To system, environment and repository it is measured; elsewhere it is not what was decided."""
    (job / "link").symlink_to(job.parent / "elsewhere")
    assert treatment(job, **{name: value.format(elsewhere=job.parent / "elsewhere")}) == {name: expected}


@pytest.mark.parametrize(
    "name", ["PYTHONFUTURE", "LD_FUTURE", "NCCL_FUTURE_PLUGIN", "NCCL_NET_PLUGIN2", "GIT_CONFIG_KEY_7"]
)
def test_an_unknown_member_of_a_family_is_not_ignored(job: Path, name: str) -> None:
    """A variable of next year's release."""
    assert treatment(job, **{name: "x"}) == {name: "restricted"}


@pytest.mark.parametrize(
    "name",
    [
        "PYTHONUNBUFFERED",
        "PYTHONHASHSEED",
        "PYTHON_VERSION",
        "LD_BIND_NOW",
        "NCCL_DEBUG",
        "GIT_AUTHOR_NAME",
        "OMP_NUM_THREADS",
    ],
)
def test_variables_of_ordinary_jobs_are_not_listed(job: Path, name: str) -> None:
    """The twin."""
    assert treatment(job, **{name: "1"}) == {}


OPTIONS = {
    "-X pycache_prefix": (("-X", "pycache_prefix=/tmp/x"), {"-X.pycache_prefix": "/tmp/x"}),
    "attached": (("-BXpycache_prefix=/tmp/x",), {"-X.pycache_prefix": "/tmp/x"}),
    "-X presite": (("-X", "presite=evil"), {"-X.presite": "evil"}),
    "-X of next year": (("-X", "future"), {"-X.future": "future"}),
    "-W": (("-W", "error::evil.Category"), {"-W.error::evil.Category": "error::evil.Category"}),
    "-i": (("-i",), {"-i": "set"}),
    "hashes": (("--check-hash-based-pycs", "never"), {"--check-hash-based-pycs": "never"}),
    "ordinary": (("-X", "dev", "-W", "ignore", "-u", "-I"), {}),
}


@pytest.mark.parametrize(("options", "expected"), OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("before", [(), ("env", "A=1"), ("timeout", "5", "nice")])
def test_options_of_the_interpreter_are_listed(
    options: tuple[str, ...], expected: dict[str, str], before: tuple[str, ...]
) -> None:
    """Behind wrappers, too."""
    assert injection_variables({}, (*before, "/opt/env/bin/python3", *options, "train.py")) == expected


def test_options_in_the_text_of_a_shell_are_listed() -> None:
    """One argument with several words."""
    argv = ("bash", "-c", "exec python3 -X pycache_prefix=/tmp/x train.py")
    assert injection_variables({}, argv) == {"-X.pycache_prefix": "/tmp/x"}


def started(job: Path, *argv: str) -> dict[str, str]:
    return injected_by(JobInputs(argv=argv, directory=str(job), environment={"PATH": os.defpath}))


def test_an_argument_with_a_space_hides_no_option_after_it(job: Path) -> None:
    """The words of one argument are not arguments."""
    argv = (sys.executable, "-W", "ignore foo", "-X", "pycache_prefix=/evil", "train.py")
    assert started(job, *argv) == {"-X.pycache_prefix": "/evil"}
    assert injection_variables({}, argv) == {"-X.pycache_prefix": "/evil"}
    assert started(job, sys.executable, "-W", "ignore foo", "train.py", "-X", "pycache_prefix=/evil") == {}


def test_a_link_to_python_takes_the_options_of_python(job: Path) -> None:
    """`./py`, alone and behind a wrapper."""
    (job / "py").symlink_to(sys.executable)
    for before in ((), ("/usr/bin/env", "A=1"), ("/usr/bin/nohup",)):
        options = started(job, *before, "./py", "-X", "pycache_prefix=/evil", "train.py")
        assert options == {"-X.pycache_prefix": "/evil"}
    (job / "tool").symlink_to("/usr/bin/true")
    assert started(job, "./tool", "-X", "pycache_prefix=/evil") == {}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"#!{sys.executable} -Xpycache_prefix=/evil", {"-X.pycache_prefix": "/evil"}),
        (f"#! {sys.executable}\t-X pycache_prefix=/evil  ", {"-X. pycache_prefix": "/evil"}),
        (f"#!/usr/bin/env -S {sys.executable} -X pycache_prefix=/evil", {"-X.pycache_prefix": "/evil"}),
        (f"#!{sys.executable} -u", {}),
        (f"#!/usr/bin/env {sys.executable}", {}),
    ],
)
def test_the_options_of_an_interpreter_line_are_those_of_the_command(
    job: Path, line: str, expected: dict[str, str]
) -> None:
    """The kernel gives them to the interpreter of a committed script."""
    script = job / "train.py"
    script.write_text(f"{line}\nprint(1)\n")
    script.chmod(0o755)
    for before in ((), ("/usr/bin/nohup",)):
        assert started(job, *before, "./train.py", "-X", "pycache_prefix=/own") == expected


def test_an_option_of_the_program_is_none_of_the_interpreter() -> None:
    """The twin: what comes after the script is its own."""
    assert injection_variables({}, ("python3", "train.py", "-X", "pycache_prefix=/tmp/x", "-i")) == {}


def test_byte_code_from_another_folder_really_runs(tmp_path: Path) -> None:
    """Why `-X pycache_prefix` is refused: the source is measured, and other code runs."""
    (tmp_path / "module.py").write_text("print('decided')\n")
    words = [sys.executable, "-X", f"pycache_prefix={tmp_path / 'cache'}", "-c", "import module"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run(words, cwd=tmp_path, env=environment, check=True, capture_output=True)
    path = next((tmp_path / "cache").rglob("module.*.pyc"))
    path.write_bytes(path.read_bytes().replace(b"decided", b"changed"))
    ended = subprocess.run(words, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert ended.stdout == "changed\n"


def test_a_file_that_a_variable_names_is_measured(job: Path) -> None:
    """One that is replaced later is another job."""
    library = job.parent / "elsewhere" / "lib.so"

    def digests(**variables: str) -> object:
        return measured(job, **variables).entries[INJECTED_FILES].value

    for path in (library, library.parent):
        before = digests(LD_LIBRARY_PATH=f"/usr/lib:{path}")
        assert isinstance(before, FrozenMap)
        assert set(before) == {str(path)}
        library.write_text(library.read_text() + "evil")
        assert digests(LD_LIBRARY_PATH=f"/usr/lib:{path}") != before
    assert digests(LD_PRELOAD=str(job / "none.so")) == {}
    assert digests(LD_PRELOAD=str(job.parent / "none.so")) == {str(job.parent / "none.so"): "absent"}


def test_a_folder_of_the_system_that_others_may_write_is_none(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`/opt/shared` with mode 777."""
    shared = job.parent / "opt"
    shared.mkdir()
    monkeypatch.setattr("policyguard.evidence.injected._SYSTEM", (str(shared),))
    assert treatment(job, LD_LIBRARY_PATH=str(shared)) == {
        "LD_LIBRARY_PATH": "measured" if os.geteuid() == 0 else "restricted"
    }
    shared.chmod(0o777)
    assert treatment(job, LD_LIBRARY_PATH=str(shared)) == {"LD_LIBRARY_PATH": "restricted"}


def test_passwords_in_settings_of_git_are_not_recorded() -> None:
    """The value is bound by its digest."""
    listed = injection_variables({"GIT_CONFIG_VALUE_0": "AUTHORIZATION: basic c2VjcmV0"})
    assert listed["GIT_CONFIG_VALUE_0"].startswith("sha256:")
