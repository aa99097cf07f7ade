"""Attacks by a job that was allowed, and that the kernel refuses because it was started confined.

Each has a twin one step away that is allowed: the job's own outputs, data, processes and temporary files.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from policyguard.confinement.landlock import abi_version
from policyguard.errors import EvidenceError, PolicyGuardError
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.confinement import CONFINEMENT, ConfinementCollector
from policyguard.evidence.identity import IdentityCollector
from policyguard.evidence.job import JobCollector
from policyguard.evidence.repository import RepositoryCollector
from policyguard.guard import Guard
from policyguard.hooks.launcher.launch import launch
from policyguard.values import FrozenMap
from tests.attacks.git_lab import git
from tests.e2e.launcher_lab import Lab, make_lab, request

pytestmark = pytest.mark.skipif(abi_version()[0] < 6, reason=f"Landlock ABI 6 is needed: {abi_version()}")

TRY = """
import resource, json, os, signal, socket, subprocess, sys
from multiprocessing import shared_memory
def attempt(action):
    try:
        return str(action())
    except OSError as problem:
        return type(problem).__name__
    except subprocess.CalledProcessError as problem:
        return f"exit {problem.returncode}"
out, wanted = sys.argv[1], json.loads(sys.argv[2])
ACTIONS = {
    "read": lambda: open(argument).read(),
    "write": lambda: open(argument, "w").write("changed"),
    "append": lambda: open(argument, "a").write("changed"),
    "truncate": lambda: os.truncate(argument, 0),
    "remove": lambda: os.remove(argument),
    "rename": lambda: os.rename(argument, argument + ".old"),
    "link": lambda: os.link(argument, os.path.join(out, "link")),
    "list": lambda: os.listdir(argument),
    "execute": lambda: subprocess.run([argument], check=True).returncode,
    "kill": lambda: os.kill(int(argument), signal.SIGTERM),
    "abstract": lambda: socket.socket(socket.AF_UNIX).connect("\\0" + argument),
    "memory": lambda: open(f"/proc/{argument}/mem", "rb").close(),
    "device": lambda: os.mknod(os.path.join(out, "sda"), 0o60600, os.makedev(8, 0)),
    "temporary": lambda: __import__("tempfile").NamedTemporaryFile().write(b"x"),
    "shared memory": lambda: shared_memory.SharedMemory(create=True, size=9).unlink(),
    "limits": lambda: resource.prlimit(int(argument), resource.RLIMIT_CORE, (0, 0)) and None,
    "limits read": lambda: resource.prlimit(int(argument), resource.RLIMIT_CORE) and None,
    "own limits": lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    "own child": lambda: subprocess.Popen(["sleep", "60"]).terminate(),
}
results = []
for name, argument in wanted:
    results.append(attempt(ACTIONS[name]))
with open(os.path.join(out, "result"), "w") as file:
    json.dump(results, file)
"""

REFUSED = ("PermissionError", "OSError")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = make_lab(tmp_path)
    (lab.job / "try.py").write_text(TRY)
    git(lab.job, "add", ".")
    git(lab.job, "commit", "-qm", "tries")
    (tmp_path / "out").mkdir()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "weights").write_text("weights of a colleague")
    return lab


def confined_guard(lab: Lab) -> Guard:
    return Guard.open(
        lab.folder / "policies",
        key=lab.folder / "guard.key",
        log=lab.folder / "audit.db",
        audience="node-1",
        collectors=(IdentityCollector(), JobCollector(), RepositoryCollector(), ConfinementCollector()),
    )


def tried(
    lab: Lab,
    *actions: tuple[str, object],
    confine: bool = True,
    gpus: int = 8,
    python: str = sys.executable,
    **inputs: Any,
) -> list[str]:
    """Start a job that tries these actions, each with an argument, and return what came of each."""
    out = lab.folder / "out"
    job = JobInputs(
        argv=(python, "try.py", str(out), json.dumps([(name, str(about)) for name, about in actions])),
        directory=str(lab.job),
        environment={"PATH": os.defpath},
        confine=confine,
        outputs={"out": str(out)} if confine or gpus > 8 else {},
        **inputs,
    )
    with confined_guard(lab) as guard:
        assert launch(guard, request(gpus=gpus), job, lab.trust, audience="node-1") == 0
    return list(json.loads((out / "result").read_text()))


def all_refused(results: list[str]) -> bool:
    return all(result in REFUSED for result in results)


def test_a_colleagues_weights_are_out_of_reach(lab: Lab) -> None:
    weights = lab.folder / "shared" / "weights"
    ways = [(way, weights) for way in ("read", "append", "write", "truncate", "link", "rename", "remove")]
    assert all_refused(tried(lab, *ways))
    assert weights.read_text() == "weights of a colleague"
    assert not set(tried(lab, *ways[:-1], confine=False)) & set(REFUSED)


def test_weights_beside_an_interpreter_are_out_of_reach(lab: Lab) -> None:
    """With `pyvenv.cfg` the folder is an environment, and the confined job gets no more of it than Python needs."""
    team = lab.folder / "shared"
    (team / "bin").mkdir()
    (team / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    (team / "pyvenv.cfg").write_text(f"home = {os.path.dirname(os.path.realpath(sys.executable))}\n")
    program = executable(team / "tool.sh")
    reads = [("read", team / "weights"), ("list", team), ("execute", program)]
    *refused, settings, runs = tried(
        lab, *reads, ("read", team / "pyvenv.cfg"), ("execute", "/bin/true"), python=str(team / "bin" / "python")
    )
    assert all_refused(refused)
    assert settings.startswith("home = ")
    assert runs == "0"


def test_data_that_the_decision_names_is_read_and_not_written(lab: Lab) -> None:
    shared = lab.folder / "shared"
    results = tried(lab, ("read", shared / "weights"), ("append", shared / "weights"), data={"weights": str(shared)})
    assert results[0] == "weights of a colleague"
    assert all_refused(results[1:])


def executable(path: Path) -> Path:
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    return path


def test_a_script_from_elsewhere_does_not_execute_nor_one_that_the_job_wrote(lab: Lab) -> None:
    """A file among the outputs is data; the system's programs run."""
    scripts = [executable(lab.folder / "elsewhere.sh"), executable(lab.folder / "out" / "dropped.sh")]
    ways = [("execute", script) for script in scripts]
    *results, system = tried(lab, *ways, ("execute", "/bin/true"))
    assert all_refused(results)
    assert system == "0"
    assert tried(lab, *ways, confine=False) == ["0", "0"]


def test_a_colleagues_process_is_not_signalled_and_not_read(lab: Lab) -> None:
    with subprocess.Popen(["sleep", "60"]) as colleague:
        signalled, read, own = tried(lab, ("kill", colleague.pid), ("memory", colleague.pid), ("own child", ""))
        assert all_refused([signalled, read])
        assert own == "None"
        assert colleague.poll() is None
        colleague.send_signal(signal.SIGKILL)


def test_the_limits_of_other_processes_stay_as_they_are(lab: Lab) -> None:
    """A job set the launcher's limit of CPU time and its guardian's of open files, and went on alone."""
    with subprocess.Popen(["sleep", "60"]) as colleague:
        for pid in (colleague.pid, os.getpid()):
            changed, read, own = tried(lab, ("limits", pid), ("limits read", pid), ("own limits", ""))
            assert all_refused([changed])
            assert (read, own) == ("None", "None")
        assert tried(lab, ("limits", colleague.pid), confine=False) == ["None"]
        colleague.send_signal(signal.SIGKILL)


def test_a_service_on_an_abstract_socket_is_out_of_reach(lab: Lab) -> None:
    name = f"policyguard-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as service:
        service.bind("\0" + name)
        service.listen()
        assert all_refused(tried(lab, ("abstract", name)))
        assert tried(lab, ("abstract", name), confine=False) == ["None"]


def test_a_job_makes_no_device_file_and_does_not_change_its_own_code(lab: Lab) -> None:
    assert all_refused(tried(lab, ("device", ""), ("append", lab.job / "train.py")))


def test_temporary_files_and_shared_memory_work(lab: Lab) -> None:
    assert not set(tried(lab, ("temporary", ""), ("shared memory", ""))) & set(REFUSED)


@pytest.mark.parametrize("output", ["{tree}", "{above}", "/usr/lib", "/etc", "{environment}"])
def test_an_output_never_opens_the_code_for_writing(lab: Lab, output: str) -> None:
    names = {"tree": lab.job, "above": lab.folder, "environment": sys.prefix}
    inputs = JobInputs(
        argv=(sys.executable, "try.py"),
        directory=str(lab.job),
        environment={"PATH": os.defpath},
        confine=True,
        outputs={"out": output.format(**names)},
    )
    with pytest.raises(EvidenceError, match="would let the job change"):
        ConfinementCollector().collect(request(), inputs, 1)


@pytest.mark.parametrize("program", ["/bin/sh", "/usr/bin/sort", "/bin/true"])
def test_a_program_of_the_system_does_not_open_the_whole_disk(lab: Lab, program: str) -> None:
    """`/bin/sh` lies in `/bin`, and above that is everything."""
    inputs = JobInputs(argv=(program, "x"), directory=str(lab.job), environment={}, confine=True)
    record = ConfinementCollector().collect(request(), inputs, 1).entries[CONFINEMENT].value
    assert isinstance(record, FrozenMap)
    assert record["paths"] == FrozenMap({"{private}": "rw", "{tree}": "rx"})


def test_a_job_that_hands_its_work_to_another_process_is_not_called_confined(lab: Lab) -> None:
    """A container's engine and a scheduler start it outside; the wrapper belongs inside of them."""
    docker = executable(lab.folder / "docker")
    inputs = JobInputs(argv=(str(docker), "run", "x"), directory=str(lab.job), environment={}, confine=True)
    with pytest.raises(EvidenceError, match="hands it to a process outside"):
        ConfinementCollector().collect(request(), inputs, 1)


def test_the_profile_is_part_of_what_was_decided(lab: Lab) -> None:
    """The record names the job's own folders by placeholders; the system's are named once, by the kernel's ABI."""
    inputs = JobInputs(
        argv=(sys.executable, "try.py"),
        directory=str(lab.job),
        environment={"PATH": os.defpath},
        confine=True,
        outputs={"out": str(lab.folder / "out")},
        data={"weights": str(lab.folder / "shared")},
    )
    fact = ConfinementCollector().collect(request(), inputs, 1).entries[CONFINEMENT]
    assert fact.bound
    record = fact.value
    assert isinstance(record, FrozenMap)
    assert record["abi"] == 6
    assert record["paths"] == FrozenMap(
        {"{data:weights}": "r", "{output:out}": "rw", "{private}": "rw", "{tree}": "rx"} | environment_of(record)
    )


def environment_of(record: FrozenMap) -> dict[str, str]:
    """Select the paths of the interpreter, which differ from machine to machine; all may only be read and executed."""
    paths = record["paths"]
    assert isinstance(paths, FrozenMap)
    chosen = {
        str(path): str(rights) for path, rights in paths.items() if not str(path).startswith("{") or "{env}" in path
    }
    assert set(chosen.values()) <= {"rx"}
    return chosen


OBLIGING = """\
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: confined, owner: platform}
rules:
  - id: large-jobs-are-confined
    effect: allow
    subjects: ["user:alice"]
    actions: [job:submit]
    resources: {type: job}
    when: resource.gpus > 8 && resource.gpus <= 64
    obligations: [run.confined]
"""


def test_a_policy_that_obliges_to_confinement_is_obeyed_without_the_submitter_asking(lab: Lab) -> None:
    """The one logged decision is about the confined job; the kernel then refuses what it would have done."""
    with (lab.folder / "policies" / "jobs.yaml").open("a") as file:
        file.write(OBLIGING)
    weights = lab.folder / "shared" / "weights"
    assert all_refused(tried(lab, ("read", weights), confine=False, gpus=64))
    assert tried(lab, ("read", weights), confine=False, gpus=8) == ["weights of a colleague"]


def test_a_job_is_not_started_where_the_kernel_cannot_confine_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """No silent downgrade: the denial names the reason."""
    monkeypatch.setattr("policyguard.confinement.landlock.abi_version", lambda: (0, "the kernel is older than 5.13"))
    with pytest.raises(PolicyGuardError, match=r"older than 5\.13"):
        tried(lab, ("temporary", ""))
    assert not (lab.folder / "out" / "result").exists()


def test_a_job_is_not_started_where_the_kernel_only_claims_to_confine(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canary: after restricting itself, the starter tries what must be refused."""
    monkeypatch.setattr("policyguard.confinement.start.restrict_self", lambda _descriptor: None)
    with pytest.raises(EvidenceError, match="can still be read after restricting"):
        tried(lab, ("temporary", ""))
    assert not (lab.folder / "out" / "result").exists()
