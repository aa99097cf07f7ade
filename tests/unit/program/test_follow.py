"""What a command line runs: every row is a command that people use, or one by which an attacker hides a program."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from pathlib import Path

import pytest

from policyguard.evidence.job import resolve_executable
from policyguard.program.follow import Program, follow
from policyguard.program.wrappers import MODULES
from policyguard.program.wrappers import WRAPPERS as WRAPPER_ROWS

FILES = {
    "train.py": "print(1)\n",
    "run.sh": "#!/bin/sh\npython train.py\n",
    "pkg/__init__.py": "",
    "pkg/train.py": "",
    "pkg/__main__.py": "",
    "app/__main__.py": "",
    "decoy.py": "",
}
WRAPPERS = ("torchrun", "accelerate", "deepspeed", "numactl", "srun")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job's folder, and a `bin` folder with wrappers, which is first on PATH."""
    for name, text in FILES.items():
        path = tmp_path / "job" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "bin").mkdir()
    for name in WRAPPERS:
        wrapper = tmp_path / "bin" / name
        wrapper.write_text(f"#!{sys.executable}\n")
        wrapper.chmod(0o755)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "bin" / "python3.11").symlink_to(sys.executable)
    return tmp_path / "job"


def followed(job: Path, command: str | list[str], **environment: str) -> Program:
    argv = command.split() if isinstance(command, str) else command
    variables = {"PATH": f"{job.parent / 'bin'}:{os.defpath}", **environment}
    return follow(argv, str(job), variables, resolve_executable)


SCRIPTS = [
    "python train.py",
    "python -u train.py --lr 1",
    "python -I -X dev -W ignore train.py",
    "python -Xdev -Wignore -OO train.py",
    "python --check-hash-based-pycs always train.py",
    "python -- train.py",
    "python3.11 -bb train.py -m decoy",
    "env python train.py",
    "env -i A=b {bin}/python train.py",
    "srun --export=ALL -D {job} python train.py",
    "env -u HOME FOO=1 python train.py",
    "nohup nice -n 5 python train.py",
    "timeout -k 5 1h python train.py",
    "timeout --signal=KILL 60 python train.py",
    "stdbuf -oL python train.py",
    "taskset -c 0-3 python train.py",
    "numactl --cpunodebind=0 --membind 0 python train.py",
    "srun -N 2 --gpus-per-node=8 python train.py",
    "srun --exclusive -K1 python train.py",
    "torchrun --nproc-per-node 8 train.py --nproc-per-node 2",
    "torchrun --nproc_per_node=8 --nnodes 2 train.py",
    "torchrun --standalone --nproc 8 train.py",
    "torchrun --no-python python train.py",
    "accelerate launch --multi_gpu --num_processes 8 train.py",
    "deepspeed --num_gpus 8 train.py --deepspeed ds.json",
    "python -m torch.distributed.run --nnodes=2 train.py",
    "python -m cProfile -o out.prof train.py",
    "python -m coverage run -p train.py",
]


@pytest.mark.parametrize("command", SCRIPTS)
def test_a_script_is_found_behind_options_and_wrappers(job: Path, command: str) -> None:
    program = followed(job, command.format(bin=job.parent / "bin", job=job))
    assert (program.kind, program.path, program.reason) == ("script", str(job / "train.py"), "")


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("python -m pkg.train", "pkg/train.py"),
        ("python -mpkg.train", "pkg/train.py"),
        ("python -um pkg", "pkg/__main__.py"),
        ("torchrun -m pkg.train", "pkg/train.py"),
        ("torchrun --module pkg.train", "pkg/train.py"),
        ("python -m cProfile -m pkg.train", "pkg/train.py"),
        ("python -m runpy pkg.train", "pkg/train.py"),
        ("python -m coverage run -m pkg.train", "pkg/train.py"),
    ],
)
def test_a_module_of_the_jobs_folder_is_found(job: Path, command: str, path: str) -> None:
    program = followed(job, command)
    assert (program.kind, program.path) == ("module", str(job / path))


def test_a_module_of_the_folder_shadows_a_known_runner(job: Path) -> None:
    """`python -m cProfile` starts `cProfile.py` of the current folder, if there is one; with -I it does not."""
    (job / "cProfile.py").write_text("")
    assert followed(job, "python -m cProfile train.py").path == str(job / "cProfile.py")
    assert followed(job, "python -I -m cProfile train.py").path == str(job / "train.py")
    assert followed(job, "python -m cProfile train.py", PYTHONSAFEPATH="1").path == str(job / "train.py")


def test_a_module_of_the_environment_has_no_file_here(job: Path) -> None:
    program = followed(job, "python -m json.tool")
    assert (program.kind, program.path, program.module) == ("module", "", "json.tool")
    # A debugger takes commands from elsewhere: it is itself what runs.
    program = followed(job, ["python", "-m", "pdb", "-c", "!import os", "train.py"])
    assert (program.kind, program.path, program.module) == ("module", "", "pdb")


def test_a_shell_script_and_a_plain_text_of_a_shell(job: Path) -> None:
    assert followed(job, "bash run.sh").kind == "shell"
    assert followed(job, "sh -eux run.sh").path == str(job / "run.sh")
    assert followed(job, ["bash", "-c", "exec python -u train.py"]).path == str(job / "train.py")
    assert followed(job, ["sh", "-ec", "python train.py --lr=1e-3"]).kind == "script"


def test_a_binary_and_a_script_with_an_interpreter_line(job: Path) -> None:
    assert followed(job, "/bin/true").kind == "binary"
    (job / "run.sh").chmod(0o755)
    program = followed(job, "./run.sh")
    assert (program.kind, program.path) == ("script", str(job / "run.sh"))
    assert "/bin/sh" in program.started


@pytest.mark.parametrize("command", [["python", "-c", "print(1)"], ["python", "-cprint(1)"], ["python", "-Ic", "1"]])
def test_text_on_the_command_line_is_inline(job: Path, command: list[str]) -> None:
    assert followed(job, command).kind == "inline"


@pytest.mark.parametrize(
    "command",
    [
        ["python"],
        ["python", "-"],
        ["python", "-J", "train.py"],
        ["python", "-Z", "train.py"],
        ["python", "-i", "train.py"],
        ["python", "-X", "pycache_prefix=/elsewhere", "train.py"],
        ["python", "-Xpresite=evil", "train.py"],
        ["python", "-W", "ignore::evil.Category", "train.py"],
        ["srun", "--export=ALL,PYTHONPATH=/elsewhere", "python", "train.py"],
        ["deepspeed", "--venv_script", "/elsewhere/activate", "train.py"],
        ["python", "--frobnicate", "train.py"],
        ["python", "-W"],
        ["python", "nowhere.py"],
        ["python", "-m", "pkg.nowhere"],
        ["python", "-m", "../x"],
        ["bash"],
        ["bash", "-c", "python train.py; rm x"],
        ["bash", "-c", "$CMD"],
        ["bash", "-c", ". ./run.sh"],
        ["bash", "-c", "PYTHONPATH=x python train.py"],
        ["bash", "--rcfile", "x", "run.sh"],
        ["bash", "-l", "run.sh"],
        ["env"],
        ["env", "-S", "python -c '1'"],
        ["torchrun", "--frobnicate", "train.py"],
        ["torchrun"],
        ["accelerate", "config"],
        ["accelerate", "launch", "--num_proc", "8", "train.py"],
        ["srun", "--multi-prog", "programs.conf"],
        ["timeout", "5"],
        ["nice"] * 20 + ["python", "train.py"],
    ],
    ids=str,
)
def test_what_cannot_be_followed_is_unknown_with_a_reason(job: Path, command: list[str]) -> None:
    program = followed(job, command)
    assert program.kind == "unknown"
    assert program.reason


def test_archives_and_byte_code_are_no_source(job: Path) -> None:
    with zipfile.ZipFile(job / "app.py", "w") as archive:
        archive.writestr("__main__.py", "print(1)")
    polyglot = job / "polyglot.py"
    polyglot.write_bytes(b"print(1)\n" + (job / "app.py").read_bytes())
    (job / "e.pyc").write_bytes(b"\xa7\x0d\r\n")
    (job / "named.py").write_bytes(b"\xa7\x0d\r\n")
    for name in ("app.py", "polyglot.py", "e.pyc", "named.py"):
        assert followed(job, ["python", name]).kind == "unknown"
    assert followed(job, "python app").path == str(job / "app" / "__main__.py")


def test_a_fifo_does_not_stop_the_guard(job: Path) -> None:
    os.mkfifo(job / "pipe.py", 0o755)
    assert followed(job, "python pipe.py").kind == "unknown"
    assert followed(job, "./pipe.py").kind == "unknown"


def test_a_link_named_like_a_wrapper_is_what_it_leads_to(job: Path) -> None:
    """`torchrun decoy.py` where torchrun is a link to env: the words mean something else then."""
    fake = job / "torchrun"
    fake.symlink_to("/usr/bin/env")
    program = followed(job, ["./torchrun", "python", "train.py"])
    assert program.path == str(job / "train.py")
    assert str(fake) in program.started


def test_every_option_of_a_grammar_is_one() -> None:
    """A line that was wrapped at a hyphen once made fragments of names into options."""
    grammars = [wrapper.options for wrapper in (*WRAPPER_ROWS.values(), *MODULES.values())]
    options = {option for rules in grammars for option in rules.flags | rules.values | rules.optional | rules.ending}
    assert all(re.fullmatch(r"-[A-Za-z0-9]|--[a-z0-9]+(-[a-z0-9]+)*", option) for option in options)


def test_long_options_of_accelerate_are_known(job: Path) -> None:
    command = "accelerate launch --num_machines 2 --log_dir x --use_megatron_lm --num-processes=8 train.py"
    assert followed(job, command).path == str(job / "train.py")
