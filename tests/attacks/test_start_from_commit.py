"""Attacks on a job that starts from its commit: what runs is what was committed, whatever the work tree says.

Each has a twin one step away that is allowed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from policyguard.audit.receipt import SignedDecision
from policyguard.confinement.landlock import abi_version
from policyguard.errors import EvidenceError, PolicyGuardError, RequestError, VerificationError
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.confinement import ConfinementCollector
from policyguard.evidence.from_commit import FROM_COMMIT, FromCommitCollector, export_job, exported
from policyguard.evidence.identity import IdentityCollector
from policyguard.evidence.job import JobCollector
from policyguard.evidence.program import ProgramCollector
from policyguard.evidence.repository import CODE, RepositoryCollector
from policyguard.exit_codes import DENIED
from policyguard.fs import job_folder as job_folders
from policyguard.guard import Guard
from policyguard.hooks.launcher.launch import WatchOptions, launch
from policyguard.values import FrozenMap, canonical
from tests.attacks.git_lab import git
from tests.e2e.launcher_lab import Lab, commit_all, make_lab, request
from tests.e2e.test_refusals_logged import entries

TRAIN = "import sys, helper\nopen(sys.argv[1], 'w').write(helper.WORDS)\n"
EVIL = "import sys\nopen(sys.argv[1], 'w').write('evil')\n"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = make_lab(tmp_path)
    (lab.job / "train.py").write_text(TRAIN)
    (lab.job / "helper.py").write_text("WORDS = 'committed'\n")
    commit_all(lab.job)
    temporary = tmp_path / "tmp"
    temporary.mkdir(mode=0o700)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    return lab


def guard_of(lab: Lab) -> Guard:
    return Guard.open(
        lab.folder / "policies",
        key=lab.folder / "guard.key",
        log=lab.folder / "audit.db",
        audience="node-1",
        collectors=(
            IdentityCollector(),
            JobCollector(),
            RepositoryCollector(),
            ProgramCollector(),
            ConfinementCollector(),
            FromCommitCollector(),
        ),
    )


def asked(lab: Lab, *argv: str, from_commit: bool = True, **fields: Any) -> JobInputs:
    inputs = lab.inputs(argv)
    return structs.replace(inputs, from_commit=from_commit, **fields)


def ran(lab: Lab, *argv: str, gpus: int = 8, options: Mapping[str, Any] | None = None, **fields: Any) -> str:
    """Start the job, and return what it wrote."""
    lab.ran.unlink(missing_ok=True)
    with guard_of(lab) as guard:
        inputs = asked(lab, *argv, **fields)
        code = launch(guard, request(gpus=gpus), inputs, lab.trust, audience="node-1", **(options or {}))
    assert code == 0
    return lab.ran.read_text()


def refused(lab: Lab, text: str, *argv: str, **fields: Any) -> None:
    """Assert that the start is refused with one line that says this, logged, and that nothing ran."""
    with pytest.raises(EvidenceError, match=text) as caught:
        ran(lab, *argv, **fields)
    assert "\n" not in str(caught.value)
    assert reasons(lab)[-1:] == [["start.refused"]]
    assert not lab.ran.exists()
    assert leftovers(lab) == []


def reasons(lab: Lab) -> list[list[str]]:
    """List the reasons of each entry of the log."""
    return [list(entry.reason_codes) for entry in entries(lab)]


def leftovers(lab: Lab) -> list[str]:
    return sorted(path.name for path in (lab.folder / "tmp").iterdir())


def code_of(lab: Lab, **fields: Any) -> FrozenMap:
    with guard_of(lab) as guard, exported(asked(lab, **fields)) as inputs:
        value = guard.gather(request(), inputs).entries[CODE].value
    assert isinstance(value, FrozenMap)
    return value


def replaces(lab: Lab) -> Callable[[object], None]:
    """A callback that replaces what runs, as an attacker does who waits for the decision."""

    def replace(_: object) -> None:
        (lab.job / "train.py").write_text(EVIL)

    return replace


@pytest.mark.parametrize("moment", ["on_decision", "on_start"])
def test_a_program_replaced_after_the_decision_does_not_run(lab: Lab, moment: str) -> None:
    """Ten of ten won this race; now the work tree is not what runs."""
    for _ in range(10):
        (lab.job / "train.py").write_text(TRAIN)
        assert ran(lab, options={moment: replaces(lab)}) == "committed"
    assert leftovers(lab) == []


def test_the_same_race_in_the_work_tree_is_refused_or_ended(lab: Lab) -> None:
    """The twin: without `--from-commit` an edit before the verification is refused, one after it ends the job."""
    with pytest.raises(VerificationError, match="V7"):
        ran(lab, from_commit=False, options={"on_decision": replaces(lab)})
    (lab.job / "train.py").write_text(TRAIN)
    with guard_of(lab) as guard:
        inputs = asked(lab, from_commit=False)
        code = launch(guard, request(), inputs, lab.trust, audience="node-1", on_start=replaces(lab))
        assert code == DENIED


def test_an_uncommitted_module_does_not_run(lab: Lab) -> None:
    """The work tree may be dirty: nothing of it runs, so the record of the code says clean, by measuring the export."""
    (lab.job / "helper.py").write_text("WORDS = 'edited'\n")
    (lab.job / "json.py").write_text("raise SystemExit('shadowed')\n")
    assert code_of(lab, from_commit=False)["dirty"] is True
    assert code_of(lab)["dirty"] is False
    assert ran(lab) == "committed"


def test_a_changed_export_is_found(lab: Lab, tmp_path: Path) -> None:
    """In self form the account of the job can change the export: every measurement hashes it again."""
    inputs = export_job(asked(lab), str(new_folder(tmp_path)))
    assert inputs.export is not None
    with guard_of(lab) as guard:
        assert code(guard, inputs)["dirty"] is False
        path = Path(inputs.export.folder, "train.py")
        path.chmod(0o644)
        path.write_text(EVIL)
        assert code(guard, inputs)["dirty_files"] == ("train.py",)


def code(guard: Guard, inputs: JobInputs) -> FrozenMap:
    value = guard.gather(request(), inputs).entries[CODE].value
    assert isinstance(value, FrozenMap)
    return value


def new_folder(folder: Path, name: str = "export") -> Path:
    path = folder / name
    path.mkdir(mode=0o700)
    return path


def test_the_export_cannot_be_written(lab: Lab, tmp_path: Path) -> None:
    (lab.job / "run.sh").write_text("#!/bin/sh\n")
    (lab.job / "run.sh").chmod(0o755)
    (lab.job / "package").mkdir()
    (lab.job / "package" / "x.py").write_text("")
    commit_all(lab.job)
    folder = new_folder(tmp_path)
    export_job(asked(lab), str(folder))
    modes = {str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    assert modes == {
        "run.sh": 0o555,
        "train.py": 0o444,
        "helper.py": 0o444,
        "package": 0o555,
        "package/x.py": 0o444,
    }
    assert folder.stat().st_mode & 0o777 == 0o555


ATTRIBUTES = {
    "a smudge filter": "helper.py filter=evil\n",
    "an export that substitutes": "helper.py export-subst\n",
    "an export that leaves out": "helper.py export-ignore\n",
    "another encoding": "helper.py working-tree-encoding=UTF-16\n",
    "other line ends": "helper.py text eol=crlf\n",
}


@pytest.mark.parametrize("attributes", ATTRIBUTES.values(), ids=list(ATTRIBUTES))
def test_attributes_do_not_change_what_is_exported(lab: Lab, tmp_path: Path, attributes: str) -> None:
    """The commit is exported as it is; no filter of the repository runs."""
    text = "WORDS = 'committed' #$Format:%H$\n"
    (lab.job / "helper.py").write_text(text)
    commit_all(lab.job)
    (lab.job / ".gitattributes").write_text(attributes)
    git(lab.job, "add", ".gitattributes")
    git(lab.job, "commit", "-qm", "attributes")
    for direction in ("smudge", "clean", "process"):
        git(lab.job, "config", f"filter.evil.{direction}", f"sh -c 'touch {tmp_path / 'marker'}; echo evil'")
    folder = new_folder(tmp_path)
    export_job(asked(lab), str(folder))
    assert (folder / "helper.py").read_text() == text
    assert not (tmp_path / "marker").exists()


def test_neither_a_replaced_object_nor_a_graft_nor_a_hook_counts(lab: Lab, tmp_path: Path) -> None:
    commit = git(lab.job, "rev-parse", "HEAD")
    original = git(lab.job, "rev-parse", "HEAD:helper.py")
    other = git(lab.job, "hash-object", "-w", "--stdin", stdin=b"WORDS = 'replaced'\n")
    git(lab.job, "replace", original, other)
    (lab.job / ".git" / "info").mkdir(exist_ok=True)
    (lab.job / ".git" / "info" / "grafts").write_text(f"{commit}\n")
    (lab.job / ".git" / "info" / "attributes").write_text("* filter=evil\n")
    hook = lab.job / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path / 'marker'}\n")
    hook.chmod(0o755)
    assert ran(lab) == "committed"
    assert not (tmp_path / "marker").exists()
    assert code_of(lab)["history"] != ()


def test_a_damaged_object_is_not_exported(lab: Lab) -> None:
    """A store that answers with other bytes than those of the id is found out before anything is written."""
    oid = git(lab.job, "rev-parse", "HEAD:helper.py")
    other = git(lab.job, "hash-object", "-w", "--stdin", stdin=b"WORDS = 'replaced'\n")
    objects = lab.job / ".git" / "objects"
    path = objects / oid[:2] / oid[2:]
    path.chmod(0o644)
    path.write_bytes((objects / other[:2] / other[2:]).read_bytes())
    refused(lab, f"`helper.py`: object `{oid}`: its content does not have this id")


def test_a_file_that_is_too_large_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyguard.git.objects.MAX_OBJECT_BYTES", 300)
    (lab.job / "weights").write_bytes(b"x" * 301)
    commit_all(lab.job)
    refused(lab, "`weights`: object `[0-9a-f]{40}`: found a blob of 301 bytes")


LEAVING = {
    "an absolute link": "/etc/passwd",
    "a link upwards": "../outside.py",
    "a link through a folder that is missing": "missing/../../outside.py",
    "a link through another link": "inner/../../outside.py",
}


@pytest.mark.parametrize("target", LEAVING.values(), ids=list(LEAVING))
def test_a_link_that_leaves_the_tree_is_refused(lab: Lab, target: str) -> None:
    (lab.folder / "outside.py").write_text("")
    (lab.job / "folder").mkdir()
    (lab.job / "folder" / "x").write_text("")
    (lab.job / "inner").symlink_to("folder")
    (lab.job / "link.py").symlink_to(target)
    commit_all(lab.job)
    refused(lab, "`link.py`: is a link to")


def test_a_link_inside_the_tree_works(lab: Lab) -> None:
    (lab.job / "helper.py").rename(lab.job / "real.py")
    (lab.job / "helper.py").symlink_to("real.py")
    (lab.job / "nowhere").symlink_to("gone/away")
    commit_all(lab.job)
    assert ran(lab) == "committed"


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12\n"


def test_an_lfs_pointer_is_refused(lab: Lab) -> None:
    (lab.job / "weights.bin").write_text(POINTER.format("0" * 64))
    commit_all(lab.job)
    refused(lab, "`weights.bin`: is a Git LFS pointer")
    (lab.job / "weights.bin").write_text(POINTER.format("0" * 63))
    commit_all(lab.job)
    assert ran(lab) == "committed"


def test_a_submodule_is_refused(lab: Lab) -> None:
    commit = git(lab.job, "rev-parse", "HEAD")
    git(lab.job, "update-index", "--add", "--cacheinfo", f"160000,{commit},third_party/x")
    git(lab.job, "commit", "-qm", "a submodule")
    refused(lab, "`third_party/x`: is a submodule")


@pytest.mark.parametrize("name", [".git", ".GIT", "..", "a/b"])
def test_a_name_that_no_work_tree_has_is_refused(lab: Lab, name: str) -> None:
    blob = git(lab.job, "hash-object", "-w", "--stdin", stdin=b"x")
    entry = f"100644 {name}\0".encode() + bytes.fromhex(blob)
    tree = git(lab.job, "hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=entry)
    commit = git(lab.job, "commit-tree", tree, "-m", "names")
    git(lab.job, "update-ref", "refs/heads/main", commit)
    refused(lab, "found a tree with the entry")


def environment(folder: Path) -> Path:
    """A virtual environment of this interpreter; return its `site-packages`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return next(folder.glob("lib/python*/site-packages"))


EDITABLE: dict[str, Callable[[Path, Path], object]] = {
    "a .pth file": lambda site, job: (site / "job.pth").write_text(f"# editable\n{job}\n"),
    "a relative .pth file": lambda site, job: (site / "job.pth").write_text(os.path.relpath(job, site)),
    "a .pth file that runs code": lambda site, job: (site / "a.pth").write_text(
        f"import sys; sys.path.append('{job}')"
    ),
    "a finder": lambda site, job: finder(site, f"MAPPING = {{'job': '{job}/train'}}\n"),
    "direct_url.json": lambda site, job: direct_url(site, f"file://{job}", editable=True),
    "a link": lambda site, job: (site / "job").symlink_to(job),
    "old setuptools": lambda site, job: (site / "easy-install.pth").write_text(f"{job}\n"),
}


def finder(site: Path, text: str) -> None:
    (site / "__editable___job_finder.py").write_text(text + "def install():\n    pass\n")
    (site / "__editable__.job-1.pth").write_text("import __editable___job_finder; __editable___job_finder.install()")


def direct_url(site: Path, url: str, *, editable: bool) -> None:
    folder = site / "job-1.dist-info"
    folder.mkdir()
    (folder / "direct_url.json").write_text(json.dumps({"url": url, "dir_info": {"editable": editable}}))


@pytest.mark.parametrize("install", EDITABLE.values(), ids=list(EDITABLE))
def test_an_editable_install_of_the_work_tree_is_refused(
    lab: Lab, tmp_path: Path, install: Callable[[Path, Path], object]
) -> None:
    """The environment would import the work tree instead of the commit."""
    install(environment(tmp_path / "environment"), lab.job)
    python = str(tmp_path / "environment" / "bin" / "python")
    refused(lab, "of the work tree, expected an installed package", python, "train.py", str(lab.ran))


def test_an_editable_install_of_the_account_is_refused_where_the_interpreter_would_see_it(
    lab: Lab, tmp_path: Path
) -> None:
    """`pip install --user -e`: seen by the system's interpreter, not by a virtual environment."""
    environment(tmp_path / "environment")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = lab.folder / ".local" / "lib" / version / "site-packages"
    site.mkdir(parents=True)
    (site / "job.pth").write_text(str(lab.job))
    assert ran(lab, str(tmp_path / "environment" / "bin" / "python"), "train.py", str(lab.ran)) == "committed"
    refused(lab, "of the work tree, expected an installed package", "/bin/sh", "-c", f"touch {lab.ran}")


def test_other_installs_and_an_environment_in_the_work_tree_are_fine(lab: Lab, tmp_path: Path) -> None:
    site = environment(lab.job / ".venv")
    (lab.job / ".gitignore").write_text(".venv/\n")
    commit_all(lab.job)
    direct_url(site, f"file://{lab.job}", editable=False)
    (site / "other.pth").write_text(f"{tmp_path}\n{site}/vendored\n")
    for python in (str(lab.job / ".venv" / "bin" / "python"), ".venv/bin/python"):
        assert ran(lab, python, "train.py", str(lab.ran)) == "committed"
    with guard_of(lab) as guard, exported(asked(lab, ".venv/bin/python", "train.py", "x")) as inputs:
        facts = guard.gather(request(), inputs).bound
    assert facts["resource.argv"] == ("{env}/bin/python", "train.py", "x")


def test_a_file_that_is_not_in_the_commit_is_refused(lab: Lab) -> None:
    (lab.job / "other.py").write_text(EVIL)
    for name in ("other.py", "./other.py", str(lab.job / "other.py"), "sub/../other.py"):
        refused(lab, "is in the work tree and not in the commit", sys.executable, name, str(lab.ran))
    refused(lab, "other.py", sys.executable, "train.py", str(lab.ran), "--config=other.py")
    refused(lab, "other.py", sys.executable, "train.py", str(lab.ran), files=("other.py",))
    commit_all(lab.job)
    for name in ("other.py", str(lab.job / "other.py")):
        assert ran(lab, sys.executable, name, str(lab.ran)) == "evil"


def test_a_program_from_elsewhere_is_refused(lab: Lab, tmp_path: Path) -> None:
    """Also if it is declared as data, or an output: what runs is in the commit, the environment or the system."""
    data = new_folder(lab.job, "data")
    for folder in (data, new_folder(tmp_path, "elsewhere")):
        (folder / "x.py").write_text(EVIL)
        argv = (sys.executable, str(folder / "x.py"), str(lab.ran))
        refused(lab, "expected a (program|file) of the commit", *argv)
        refused(lab, "would run, and is not in the commit", *argv, data={"d": str(folder)})
    refused(lab, "contains the work tree", data={"all": str(lab.folder)})


def test_a_declared_folder_of_the_work_tree_is_no_way_back(lab: Lab) -> None:
    """Data of the work tree stay where they are; code is not loaded from there."""
    (lab.job / "src").mkdir()
    (lab.job / "src" / "extra.py").write_text("")
    (lab.job / ".gitignore").write_text("src/\n")
    commit_all(lab.job)
    argv = (sys.executable, "train.py", str(lab.ran))
    src = str(lab.job / "src")
    refused(lab, "leads out of the commit", *argv, data={"d": "src"}, environment={"PYTHONPATH": src})
    refused(lab, "leads out of the commit", *argv, data={"d": "src"}, environment={"LD_PRELOAD": f"/x.so {src}/y.so"})
    assert ran(lab, *argv, data={"d": "src"}, environment={"PATH": os.defpath, "DATA": src}) == "committed"
    for fields in ("outputs", "data"):
        declared: dict[str, Any] = {fields: {"o": "nosuch"}}
        refused(lab, "found no such", *argv, **declared)


def test_a_confined_job_writes_neither_its_export_nor_the_repository(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every confined job may write shared memory, so an export there would be its own to change."""
    if abi_version()[0] < 1:
        pytest.skip(f"needs Landlock: {abi_version()}")
    refused(lab, "would let the job change", outputs={"o": ".git"}, confine=True)
    refused(lab, "would let the job change", outputs={"o": str(lab.job / ".git" / "hooks")}, confine=True)
    out = {"o": str(new_folder(lab.folder, "out"))}
    object.__setattr__(lab, "ran", lab.folder / "out" / "ran")
    assert ran(lab, outputs=out, confine=True) == "committed"
    lab.ran.unlink()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as shared_memory, monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", shared_memory)
        refused(lab, "every confined job may write `/dev/shm`", outputs=out, confine=True)


def test_a_link_to_the_work_tree_leads_no_argument_and_no_variable_back(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(lab.job)
    (lab.job / "train.py").write_text(EVIL)
    assert ran(lab, sys.executable, str(tmp_path / "alias" / "train.py"), str(lab.ran)) == "committed"
    argv = (sys.executable, "train.py", str(lab.ran))
    for value in (str(tmp_path / "alias"), "../alias", "/elsewhere:.."):
        refused(lab, "`PYTHONPATH`: leads out of the commit", *argv, environment={"PYTHONPATH": value})


def test_variables_and_texts_that_name_the_work_tree_name_the_export(lab: Lab, tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    job = str(lab.job)
    inputs = asked(
        lab,
        *("sh", "-c", f"cd {job} && exec python train.py --x={job}-old"),
        environment={"PATH": os.defpath, "PYTHONPATH": f"{job}:{job}/src:/elsewhere", "URL": f"file://{job}/x"},
    )
    moved = export_job(inputs, str(folder))
    assert moved.argv[2] == f"cd {folder} && exec python train.py --x={job}-old"
    assert moved.environment["PYTHONPATH"] == f"{folder}:{folder}/src:/elsewhere"
    assert moved.environment["URL"] == f"file://{folder}/x"
    assert moved.recorded(moved.argv[2]) == f"cd {{tree}} && exec python train.py --x={job}-old"


def test_a_worker_with_another_export_folder_measures_the_same(lab: Lab, tmp_path: Path) -> None:
    out = new_folder(tmp_path, "out")
    inputs = asked(
        lab,
        *(sys.executable, str(lab.job / "train.py"), f"--out={out}/x", "{output:weights}/y", "../job/helper.py"),
        outputs={"weights": str(out)},
        confine=abi_version()[0] > 0,
    )
    bound = []
    with guard_of(lab) as guard:
        for name in ("one", "another-and-longer"):
            started = export_job(inputs, str(new_folder(tmp_path, name)))
            bound.append(guard.gather(request(), started).bound)
    assert canonical(bound[0]) == canonical(bound[1])
    argv = bound[0]["resource.argv"]
    assert isinstance(argv, tuple)
    assert argv[1:] == ("{tree}/train.py", "--out={output:weights}/x", "{output:weights}/y", "../job/helper.py")
    record = bound[0][FROM_COMMIT]
    assert isinstance(record, FrozenMap)
    assert record["commit"] == git(lab.job, "rev-parse", "HEAD")
    assert record["tree"] == git(lab.job, "rev-parse", "HEAD^{tree}")


def test_outputs_data_and_checkpoints_of_the_work_tree_stay_there(lab: Lab) -> None:
    for name in ("out", "data", "weights"):
        new_folder(lab.job, name)
    (lab.job / ".gitignore").write_text("out/\ndata/\nweights/\n")
    (lab.job / "train.py").write_text("import sys\nopen(sys.argv[1] + '/x', 'w').write(sys.argv[2] + sys.argv[3])\n")
    commit_all(lab.job)
    (lab.job / "weights" / "w.txt").write_text("w")
    with guard_of(lab) as guard:
        inputs = asked(
            lab,
            *(sys.executable, "train.py", "out", "--data=data/new", "weights/w.txt"),
            outputs={"o": "out"},
            data={"d": "data"},
            checkpoints=("weights/w.txt",),
        )
        assert launch(guard, request(), inputs, lab.trust, audience="node-1") == 0
    assert (lab.job / "out" / "x").read_text() == f"--data={lab.job}/data/new{lab.job}/weights/w.txt"


def test_outputs_and_data_without_either_start_are_refused(lab: Lab) -> None:
    """They were accepted and ignored."""
    out = str(new_folder(lab.folder, "out"))
    for name in ("outputs", "data"):
        fields: dict[str, Any] = {name: {"o": out}}
        with pytest.raises(RequestError, match="confined or from its commit"):
            ran(lab, from_commit=False, **fields)
    assert reasons(lab) == [["start.refused"]] * 2
    assert ran(lab, outputs={"o": out}) == "committed"


OBLIGING = """\
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: from-commit, owner: platform}
rules:
  - id: large-jobs-start-from-the-commit
    effect: allow
    subjects: ["user:alice"]
    actions: [job:submit]
    resources: {type: job}
    when: resource.gpus > 8 && resource.gpus <= 64 && !resource.code.dirty
    obligations: [OBLIGATIONS]
"""


@pytest.mark.parametrize("obligations", ["run.from_commit", "run.confined, run.from_commit"])
def test_a_policy_that_obliges_to_the_commit_is_obeyed_without_the_submitter_asking(lab: Lab, obligations: str) -> None:
    if "confined" in obligations and abi_version()[0] < 1:
        pytest.skip(f"needs Landlock: {abi_version()}")
    with (lab.folder / "policies" / "jobs.yaml").open("a") as file:
        file.write(OBLIGING.replace("OBLIGATIONS", obligations))
    out = new_folder(lab.folder, "out")
    object.__setattr__(lab, "ran", out / "ran")
    options = {"on_decision": replaces(lab)}
    assert ran(lab, from_commit=False, gpus=64, options=options, outputs={"o": str(out)}) == "committed"
    assert reasons(lab) == [["rule.allow"]]


def test_a_guard_that_does_not_measure_it_starts_nothing(lab: Lab) -> None:
    with lab.guard() as guard, pytest.raises(EvidenceError, match="this guard does not measure it"):
        launch(guard, request(), asked(lab), lab.trust, audience="node-1")
    assert reasons(lab) == [["start.refused"]]
    assert not lab.ran.exists()


def test_a_watched_job_is_compared_with_its_export(lab: Lab) -> None:
    """The work tree may be edited while the job runs; a changed export is drift."""
    alerts: list[SignedDecision] = []
    (lab.job / "train.py").write_text(
        "import os, sys, time\nopen(sys.argv[1], 'w').write(os.getcwd())\n"
        "if len(sys.argv) > 2:\n    os.chmod('.', 0o755)\n    open('new.py', 'w').close()\ntime.sleep(0.5)\n"
    )
    commit_all(lab.job)
    (lab.job / "train.py").write_text(EVIL)
    watch = {"watch": WatchOptions(period_s=0.1, on_alert=alerts.append)}
    ran(lab, options=watch)
    assert alerts == []
    ran(lab, sys.executable, "train.py", str(lab.ran), "change", options=watch)
    assert "drift.code" in alerts[0].decision.reason_codes


def unwritable(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(lab.folder / "missing"))


def full(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("policyguard.git.export.os.write", write)


def full_from_the_start(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: str, text: str) -> None:
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr("policyguard.git.objects._write", write)


def noexec(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.statvfs("/")
    flags = type("Status", (), {"f_flag": status.f_flag | os.ST_NOEXEC})
    monkeypatch.setattr("policyguard.git.export.os.statvfs", lambda _: flags)


def inside(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(new_folder(lab.job, "tmp")))


def shared(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    (lab.folder / "tmp").chmod(0o777)


@pytest.mark.parametrize(
    ("break_it", "text"),
    [
        (unwritable, "no folder can be made for the job: no such file"),
        (full, "cannot be exported to .*: no space left"),
        (full_from_the_start, "the commit cannot be exported: .*: no space left"),
        (inside, "is in the work tree, expected a folder for the export elsewhere"),
        (noexec, "executes nothing"),
        (shared, "the commit cannot be exported"),
    ],
)
def test_a_file_system_that_cannot_be_exported_to_starts_nothing(
    lab: Lab,
    monkeypatch: pytest.MonkeyPatch,
    break_it: Callable[[Lab, pytest.MonkeyPatch], None],
    text: str,
) -> None:
    """One line, logged; there is no allow for it in the log."""
    with monkeypatch.context() as patch:
        break_it(lab, patch)
        with pytest.raises(EvidenceError, match=text) as caught:
            ran(lab)
    assert "\n" not in str(caught.value)
    assert reasons(lab) == [["start.refused"]]
    (lab.folder / "tmp").chmod(0o700)
    assert leftovers(lab) == []
    assert ran(lab) == "committed"


def test_a_confinement_that_cannot_be_made_is_refused_before_an_allow_is_logged(lab: Lab) -> None:
    """A path that the operator's configuration shares and that is not there: it was ALLOW, then exit 69."""
    if abi_version()[0] < 1:
        pytest.skip(f"needs Landlock: {abi_version()}")
    guard = Guard.open(
        lab.folder / "policies",
        key=lab.folder / "guard.key",
        log=lab.folder / "audit.db",
        audience="node-1",
        collectors=(JobCollector(), RepositoryCollector(), ConfinementCollector({"/nonexistent/cuda": "rx"})),
    )
    with guard, pytest.raises(EvidenceError, match="`/nonexistent/cuda`: cannot be opened"):
        launch(guard, request(), asked(lab, from_commit=False, confine=True), lab.trust, audience="node-1")
    assert reasons(lab) == [["start.refused"]]


def abandoned(lab: Lab, name: str, *, age_s: float = 3600, lock: bool = True) -> Path:
    """What a killed launcher left: a folder with a read-only tree."""
    top = lab.folder / "tmp" / f"{job_folders.PREFIX}{name}"
    tree = top / "tree" / "package"
    tree.mkdir(parents=True)
    (tree / "x.py").write_text("")
    if lock:
        (top / "lock").write_text("")
    for folder in (tree, tree.parent):
        folder.chmod(0o555)
    top.chmod(0o700)
    os.utime(top, (time.time() - age_s,) * 2)
    return top


def test_what_a_killed_launcher_left_is_removed_by_the_next_one(lab: Lab) -> None:
    """Only folders of this account with a lock that nobody holds; nothing is followed out of them."""
    gone = abandoned(lab, "gone")
    outside = lab.folder / "outside"
    outside.mkdir(mode=0o555)
    young = abandoned(lab, "young", age_s=1)
    foreign = abandoned(lab, "foreign", lock=False)
    open_to_others = abandoned(lab, "open")
    open_to_others.chmod(0o755)
    (lab.folder / "tmp" / f"{job_folders.PREFIX}link").symlink_to(outside)
    held = abandoned(lab, "held")
    with subprocess.Popen(["flock", str(held / "lock"), "sleep", "60"]) as holder:
        time.sleep(0.3)
        assert ran(lab) == "committed"
        holder.terminate()
    assert not gone.exists()
    assert all(path.exists() for path in (young, foreign, open_to_others, held, outside))
    assert outside.stat().st_mode & 0o777 == 0o555


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_the_job_and_leaves_no_export(lab: Lab, number: signal.Signals) -> None:
    """After SIGKILL the guardian ends the job, and the next launcher removes the folder."""
    (lab.job / "train.py").write_text("import sys, time\nopen(sys.argv[1], 'w').write('x')\ntime.sleep(60)\n")
    commit_all(lab.job)
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(lab.folder), str(lab.job), str(lab.ran)],
        env={**os.environ, "TMPDIR": str(lab.folder / "tmp")},
    )
    wait_until(lab.ran.exists)
    (name,) = leftovers(lab)
    launcher.send_signal(number)
    launcher.wait()
    if number != signal.SIGKILL:
        assert leftovers(lab) == []
        return
    top = lab.folder / "tmp" / name
    wait_until(lambda: not holders(top))
    os.utime(top, (time.time() - 3600,) * 2)
    (lab.job / "train.py").write_text(TRAIN)
    commit_all(lab.job)
    assert ran(lab) == "committed"
    assert leftovers(lab) == []


LAUNCHER = """\
import sys
from pathlib import Path
from tests.attacks.test_start_from_commit import Lab, asked, guard_of, launch, request
from policyguard.attest.trust import Trust, TrustedKey
folder, job, ran = map(Path, sys.argv[1:])
lab = Lab(folder, job, ran, None)
with guard_of(lab) as guard:
    trust = Trust(
        keys=(TrustedKey(key=guard.public_key),), logs=(guard.log_key,), audiences=frozenset({"node-1"}), min_epoch=1
    )
    launch(guard, request(), asked(lab), trust, audience="node-1")
"""


def holders(top: Path) -> list[int]:
    """List the processes that run in the exported tree."""
    pids = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "cwd").startswith(str(top)):
                pids.append(int(entry.name))
        except OSError:
            continue
    return pids


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_error_while_deciding_leaves_no_export(lab: Lab) -> None:
    def fails(_: object) -> None:
        raise PolicyGuardError("stopped")

    with pytest.raises(PolicyGuardError, match="stopped"):
        ran(lab, options={"on_decision": fails})
    assert leftovers(lab) == []
