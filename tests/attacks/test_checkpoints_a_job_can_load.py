"""Poisoned checkpoints that a job loads without an argument that is their path: each is scanned, and is `hostile`."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from policyguard.confinement.landlock import abi_version
from policyguard.evidence.checkpoint import CHECKPOINTS, JobCheckpoints
from policyguard.evidence.collector import JobInputs, gather
from policyguard.evidence.confinement import confinement_record
from policyguard.model.facts import Facts
from policyguard.model.request import Request


class Poison:
    """A pickle that runs a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("true",)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A job's folder; beside it `store`, with a poisoned file deep inside, and one of harmless text."""
    (tmp_path / "job" / "conf" / "model").mkdir(parents=True)
    (tmp_path / "job" / "train.py").write_text("print(1)\n")
    deep = tmp_path / "store" / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "evil.pt").write_bytes(pickle.dumps(Poison()))
    (tmp_path / "store" / "model").write_bytes(pickle.dumps(Poison()))
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "notes.txt").write_text("nothing to load\n")
    return tmp_path


def measured(lab: Path, *arguments: str, program: tuple[str, ...] = (sys.executable, "train.py"), **more: str) -> Facts:
    inputs = JobInputs(
        argv=(*program, *arguments),
        directory=str(lab / "job"),
        environment={"PATH": os.defpath, "HOME": str(lab / "home"), **more},
    )
    return gather(Request.of("user:ivan", "job:submit", "job:team/v/x"), [JobCheckpoints()], inputs, lambda: 1)


def verdicts(lab: Path, *arguments: str, **options: Any) -> dict[str, str]:
    facts = measured(lab, *arguments, **options)
    value: Any = facts.entries[CHECKPOINTS].value
    return {record["path"]: record["verdict"] for record in value}


def check(lab: Path, text: str, **more: str) -> None:
    """Expect a hostile file for `{evil}` in this argument, and nothing for the harmless twin."""
    evil, good = str(lab / "store" / "a" / "b" / "c" / "evil.pt"), str(lab / "good" / "notes.txt")
    assert "hostile" in verdicts(lab, text.replace("{evil}", evil), **more).values(), text
    assert not verdicts(lab, text.replace("{evil}", good), **more), text


ARGUMENTS = [
    "{evil}",
    "ckpt={evil}",
    "+ckpt={evil}",
    "++model.init_from={evil}",
    "--resume={evil}",
    "--resume='{evil}'",
    'ckpt="{evil}"',
    "ckpts=/nonexistent/a.pt,{evil}",
    "ckpts=[/nonexistent/a.pt,{evil}]",
    "model={name: x, path: {evil}}",
    '{"ckpt": "{evil}"}',
    "file://{evil}",
    "--init=file:{evil}",
    "--init=file://localhost{evil}",
    "load {evil} now",
    "a:{evil}",
    "key=a:{evil}:b",
]


@pytest.mark.parametrize("text", ARGUMENTS)
def test_a_path_inside_an_argument_is_scanned(lab: Path, text: str) -> None:
    check(lab, text)


def test_folders_are_searched_to_the_end(lab: Path) -> None:
    assert "hostile" in verdicts(lab, "--resume", str(lab / "store" / "a")).values()
    assert "hostile" in verdicts(lab, f"dir={lab / 'store' / 'a'}").values()
    assert "hostile" in verdicts(lab, "--resume", "../store/a/b").values()
    assert not verdicts(lab, "--resume", str(lab / "good"))
    # Without a name that says so.
    (lab / "store" / "a" / "b" / "c" / "evil.pt").unlink()
    assert "hostile" in verdicts(lab, "--resume", str(lab / "store")).values()


def test_a_link_to_a_folder_is_searched_where_it_leads(lab: Path) -> None:
    (lab / "good" / "link").symlink_to(lab / "store" / "a")
    assert "hostile" in verdicts(lab, "--resume", str(lab / "good")).values()
    (lab / "store" / "a" / "back").symlink_to(lab / "good")
    assert "hostile" in verdicts(lab, "--resume", str(lab / "good")).values()


def test_home_folders_variables_and_patterns_are_replaced(lab: Path) -> None:
    (lab / "home").symlink_to(lab / "store" / "a")
    store = str(lab / "store")
    for text in ("~/b/c/evil.pt", "ckpt=~/b", "$STORE/a/b/c/evil.pt", "ckpt=${STORE}/a", "${X:-" + store + "/a}"):
        assert "hostile" in verdicts(lab, text, STORE=store).values(), text
    for text in (f"{store}/a/*/c/*.pt", f"shards={store}/a/b/c/e*"):
        assert "hostile" in verdicts(lab, text).values(), text
    assert not verdicts(lab, "~root/nonexistent", "~nobody-of-this-name/x", "$UNSET", f"{lab}/good/*.txt", "*")


def test_a_command_in_a_text_is_read(lab: Path) -> None:
    evil = lab / "store" / "a" / "b" / "c" / "evil.pt"
    spaced = lab / "store" / "with space.pt"
    spaced.write_bytes(evil.read_bytes())
    for text in (f"CKPT={evil} python train.py", f"python train.py --resume '{spaced}'", f"python t.py < {evil}"):
        assert "hostile" in verdicts(lab, "-c", text, program=("/bin/bash",)).values(), text
    assert not verdicts(lab, "-c", f"python train.py --notes {lab}/good/notes.txt", program=("/bin/bash",))


def test_a_variable_that_names_a_checkpoint_is_scanned(lab: Path) -> None:
    evil, store = str(lab / "store" / "a" / "b" / "c" / "evil.pt"), str(lab / "store" / "a")
    assert "hostile" in verdicts(lab, CKPT=evil).values()
    assert "hostile" in verdicts(lab, MODEL_DIR=store).values()
    assert "hostile" in verdicts(lab, PATHS=f"/nonexistent:{evil}").values()
    assert "hostile" in verdicts(lab, HF_HOME=evil).values()
    # Places are not inputs, nor is what holds the job itself, nor a program.
    assert not verdicts(
        lab,
        TORCH_HOME=store,
        PYENV_ROOT=store,
        MODEL_ROOT=str(lab),
        EDITOR="/bin/true",
        NOTES=str(lab / "good" / "notes.txt"),
    )


SETTINGS = {
    "run.yaml": "model:\n  ckpt: {evil}  # the best\n",
    "anchor.yaml": "a: &a {evil}\nmodel: *a\n",
    "escaped.yaml": 'ckpt: "\\x2f{evil}"\n',
    "joined.yaml": "root: {folder}\nckpt: ${root}/evil.pt\n",
    "nested.yaml": "paths: {root: {folder}}\nckpt: ${paths.root}/evil.pt\n",
    "computed.yaml": "ckpt: {folder}/$ANY.pt\n",
    "variable.yaml": "ckpt: ${oc.env:STORE}/a/b/c/evil.pt\n",
    "folder.yaml": "dir: {folder}\nname: evil\n",
    "run.json": '{"ckpt": "{escaped}"}',
    "broken.json": '{"ckpt": "{evil}",}',
    "run.toml": '[model]\nckpt = "{evil}"\n',
    "run.ini": "[model]\nckpt = {evil}\n",
    "args.txt": "--resume\n{evil}\n",
    "args": "--lr 0.1 --resume={evil}\n",
    "run.sh": "exec python train.py --resume {evil}\n",
    "settings.py": "load_from = '{evil}'\n",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_the_command_names_are_read(lab: Path, name: str) -> None:
    folder = str(lab / "store" / "a" / "b" / "c")

    def write(evil: str, folder: str) -> None:
        text = SETTINGS[name].replace("{evil}", evil).replace("{folder}", folder)
        (lab / "job" / name).write_text(text.replace("{escaped}", evil.replace("/", "\\u002f")))

    write(f"{folder}/evil.pt", folder)
    for arguments in (("--config", name), (f"--config={name}",), (f"@{name}",), (f"cfg={name}",)):
        assert "hostile" in verdicts(lab, *arguments, STORE=str(lab / "store")).values(), arguments
    assert "hostile" in verdicts(lab, CONFIG=name, STORE=str(lab / "store")).values()
    write(str(lab / "good" / "notes.txt"), str(lab / "good"))
    # A shell script is itself a file that the scanner does not know as data.
    assert set(verdicts(lab, "--config", name, STORE="/nonexistent")) <= {"run.sh"}


def test_settings_that_settings_include_are_read(lab: Path) -> None:
    evil, job = lab / "store" / "a" / "b" / "c" / "evil.pt", lab / "job"
    (job / "conf" / "config.yaml").write_text("defaults:\n  - model: big\n  - _self_\n")
    (job / "conf" / "exp.yaml").write_text("defaults: [/model/big]\n")
    (job / "conf" / "model" / "big.yaml").write_text("base: other.yaml\n")
    (job / "conf" / "model" / "other.yaml").write_text(json.dumps({"ckpt": str(evil)}))
    for arguments in (
        ("--config", "conf/config.yaml"),
        ("--config-path", "conf", "--config-name", "config"),
        ("--config-name=exp",),
        ("model=big",),
        ("+model=big", "lr=0.1"),
        ("lr=0.1",),
    ):
        assert "hostile" in verdicts(lab, *arguments).values(), arguments
    assert not verdicts(lab, "--lr", "0.1")


def test_a_model_in_the_cache_of_the_hub_is_scanned(lab: Path) -> None:
    snapshot = lab / "hub" / "models--mallory--net" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "pytorch_model.bin").write_bytes(pickle.dumps(Poison()))
    assert "hostile" in verdicts(lab, "--model", "mallory/net", HF_HUB_CACHE=str(lab / "hub")).values()
    assert not verdicts(lab, "--model", "mallory/other", HF_HUB_CACHE=str(lab / "hub"))


def test_what_is_not_searched_to_its_end_is_named(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poisoned file behind many others is not overlooked in silence."""
    monkeypatch.setattr("policyguard.evidence.checkpoint_folders.MAX_ENTRIES", 5)
    many = lab / "many"
    for name in "abcdef":
        (many / name).mkdir(parents=True)
    value: Any = measured(lab, "--data", str(many)).entries[CHECKPOINTS].value
    assert [(record["verdict"], record["reasons"]) for record in value] == [("unknown", ("ckpt.not_searched",))]
    assert not verdicts(lab, "--data", str(lab / "good"))


def test_a_link_is_scanned_where_it_leads(lab: Path) -> None:
    """`latest` is a link to a file, and to a folder; its record was of size 0, which the example policies allowed."""
    store = lab / "store" / "a" / "b" / "c"
    (lab / "job" / "latest.pt").symlink_to(store / "evil.pt")
    (lab / "job" / "latest").symlink_to(store)
    (lab / "job" / "last").symlink_to("latest")
    for argument in ("latest.pt", "--resume=latest", "last"):
        assert "hostile" in verdicts(lab, argument).values(), argument
    inputs = JobInputs(argv=("/bin/true",), directory=str(lab / "job"), checkpoints=("latest",))
    request = Request.of("user:ivan", "job:submit", "job:team/v/x")
    value: Any = gather(request, [JobCheckpoints()], inputs, lambda: 1).entries[CHECKPOINTS].value
    assert [record["verdict"] for record in value] == ["hostile"]
    (lab / "job" / "notes").symlink_to(lab / "good")
    assert not verdicts(lab, "notes")


def test_a_device_is_no_checkpoint_and_a_pipe_may_be_one(lab: Path) -> None:
    os.mkfifo(lab / "job" / "pipe")
    assert not verdicts(lab, "--log", "/dev/null", "--out=/dev/null")
    assert verdicts(lab, "pipe") == {"pipe": "unknown"}


def test_settings_that_are_too_large_are_named(lab: Path) -> None:
    with open(lab / "job" / "big.yaml", "wb") as file:
        file.truncate((64 << 20) + 1)
    assert verdicts(lab, "--config", "big.yaml") == {"big.yaml": "unknown"}


def test_names_of_checkpoints_in_a_long_list_are_seen(lab: Path) -> None:
    evil = lab / "store" / "a" / "b" / "c" / "evil.pt"
    (lab / "job" / "list.txt").write_text("word\n" * 60_000 + f"{evil}\n")
    assert "hostile" in verdicts(lab, "--list", "list.txt").values()


def test_variables_of_the_guard_are_none_of_the_job(lab: Path) -> None:
    """The configuration that the launcher's variable names is not loaded by the job, which never gets it."""
    settings = lab / "policyguard.yaml"
    settings.write_text(f"repositories: {{team/v/trainer: {{path: {lab / 'store'}}}}}\n")
    assert verdicts(lab, POLICYGUARD_CONFIG=str(settings)) == {}
    assert verdicts(lab, TRAINER_CONFIG=str(settings)) != {}


def test_an_ordinary_command_has_no_checkpoints(lab: Path) -> None:
    assert not verdicts(lab, "--lr", "0.1", "--epochs", "90", "--name=run/17", "-v", "a,b;c", "", "{", "'", "\\")


def test_settings_of_the_job_file_are_read(lab: Path) -> None:
    (lab / "job" / "run.yaml").write_text(f"ckpt: {lab / 'store' / 'a'}\n")
    inputs = JobInputs(argv=("/bin/true",), directory=str(lab / "job"), files=("run.yaml",))
    request = Request.of("user:ivan", "job:submit", "job:team/v/x")
    value: Any = gather(request, [JobCheckpoints()], inputs, lambda: 1).entries[CHECKPOINTS].value
    assert [record["verdict"] for record in value] == ["hostile"]


def test_a_confined_job_reads_what_was_measured_and_nothing_else_that_it_names(lab: Path) -> None:
    """Text that is named in an argument has no record, so naming it opens nothing."""
    evil, notes = str(lab / "store" / "a" / "b" / "c"), str(lab / "good" / "notes.txt")
    argv = ("/bin/true", f"ckpt={lab / 'store' / 'a'}", notes)
    inputs = JobInputs(argv=argv, directory=str(lab / "job"), environment={"PATH": os.defpath}, confine=True)
    if abi_version()[0] < 1:
        pytest.skip("this kernel confines nothing")
    paths: Any = confinement_record(inputs, {})["paths"]
    assert evil in str(paths)
    assert notes not in str(paths)
    assert str(lab / "good") not in str(paths)


@pytest.mark.parametrize("mark", ["pyvenv.cfg", "conda-meta", "", "lib/python3.11/os.py"])
def test_a_folder_that_is_called_an_environment_is_searched(lab: Path, mark: str) -> None:
    """A colleague's weights with `bin/python` beside them: an environment, and for a loader a folder as any other."""
    team = lab / "team"
    (team / "bin").mkdir(parents=True)
    (team / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    if mark:
        (team / mark).parent.mkdir(parents=True, exist_ok=True)
        (team / mark).touch()
    program = (str(team / "bin" / "python"), "train.py")
    notes = str(lab / "good" / "notes.txt")
    for folder in (team, team / "share", team / "lib" / "python3.11"):
        folder.mkdir(parents=True, exist_ok=True)
        evil = folder / "colleague.pt"
        evil.write_bytes(pickle.dumps(Poison()))
        (lab / "job" / "run.yaml").write_text(f"ckpt: {folder}\n")
        for arguments in (("--resume", str(team)), ("--resume", str(evil)), (f"dir={folder}",), ("-c", "run.yaml")):
            assert "hostile" in verdicts(lab, *arguments, program=program).values(), (folder, arguments)
        assert "hostile" in verdicts(lab, program=program, CKPT_DIR=str(folder)).values()
        assert not verdicts(lab, "--notes", notes, program=program)
        evil.unlink()


def test_an_environment_on_the_way_is_searched_beside_its_packages(lab: Path) -> None:
    env = lab / "job" / ".venv"
    packages = env / "lib" / "python3.11" / "site-packages" / "net"
    for folder in (packages, env / "bin", env / "share" / "runs"):
        folder.mkdir(parents=True)
    (env / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    (env / "pyvenv.cfg").touch()
    (packages / "test_data.pt").write_bytes(pickle.dumps(Poison()))
    program = (str(env / "bin" / "python"), "train.py")
    assert not verdicts(lab, "--root", ".", program=program)
    for folder in (env, env / "share" / "runs"):
        (folder / "evil.pt").write_bytes(pickle.dumps(Poison()))
        assert "hostile" in verdicts(lab, "--root", ".", program=program).values(), folder
        (folder / "evil.pt").unlink()


def test_the_script_that_a_shell_runs_is_no_checkpoint(lab: Path) -> None:
    """`bash run.sh` on one GPU was denied, `ckpt.unknown`; a script that begins as a model, or another file, is one."""
    for name in ("run.sh", "other.sh", "run"):
        (lab / "job" / name).write_text("#!/bin/sh\npython3 train.py\n")
        (lab / "job" / name).chmod(0o755)
    for program in (("bash", "run.sh"), ("timeout", "60", "./run.sh"), ("nohup", "bash", "run"), ("sh", "-e", "run")):
        assert verdicts(lab, program=program) == {}
    assert set(verdicts(lab, "other.sh", program=("bash", "run.sh"))) == {"other.sh"}
    (lab / "job" / "run.sh").write_bytes(pickle.dumps(Poison()))
    assert verdicts(lab, program=("bash", "run.sh")) == {"run.sh": "hostile"}
