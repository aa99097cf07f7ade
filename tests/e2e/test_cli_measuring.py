"""`env`, `scan` and `manifest` on the command line, with real files, keys and an installed package."""

from __future__ import annotations

import json
import os
import py_compile
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from policyguard.attest.keys import PrivateKey
from policyguard.cli.group import group, run
from policyguard.demo.incident.lab import Lab
from policyguard.demo.incident.weights import write_hostile, write_weights
from policyguard.keyfiles import write_private_key, write_public_key
from tests.e2e.cli_lab import operator_words

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a key and a small installed environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POLICYGUARD_CONFIG", raising=False)
    key = PrivateKey.generate(b"\5" * 32)
    write_private_key(tmp_path / "build.key", key)
    write_public_key(tmp_path / "build.pub", key.public)
    site = tmp_path / "env" / "lib" / "python3" / "site-packages"
    (site / "torchy").mkdir(parents=True)
    (site / "torchy" / "optim.py").write_text("def step(): ...\n")
    return tmp_path


def said(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = run(words)
    ended = capsys.readouterr()
    return code, ended.out + ended.err


def edit(home: Path, text: str = "def step(): 1\n") -> None:
    (home / "env" / "lib" / "python3" / "site-packages" / "torchy" / "optim.py").write_text(text)


def verify_env(*more: str) -> Sequence[str]:
    return ("env", "verify", "env", "--baseline", "base.json", "--signer", "build.pub", *more)


def test_an_edited_package_is_named_with_owner_and_time(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A clean environment is clean; one edited file is a finding with who and when."""
    assert run(["env", "baseline", "env", "--key", "build.key", "--out", "base.json"]) == 0
    assert said(*verify_env(), capsys=capsys)[0] == 0
    edit(home)
    code, text = said(*verify_env(), capsys=capsys)
    assert code == 1
    assert "torchy/optim.py  (owned by " in text
    assert "modified 20" in text


def test_a_path_file_and_a_missing_file_are_findings(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What runs by itself, and what is gone, are said in the JSON, too."""
    assert run(["env", "baseline", "env", "--key", "build.key", "--out", "base.json"]) == 0
    site = home / "env" / "lib" / "python3" / "site-packages"
    (site / "zz.pth").write_text("import os\n")
    (site / "torchy" / "optim.py").unlink()
    capsys.readouterr()
    code, text = said(*verify_env("--json"), capsys=capsys)
    report = json.loads(text)
    assert (code, report["clean"]) == (1, False)
    assert [Path(name).name for name in report["autorun"]] == ["zz.pth"]
    assert [Path(name).name for name in report["removed"]] == ["optim.py"]


def cached(home: Path) -> Path:
    """Let Python compile the package, and return the byte code."""
    source = home / "env" / "lib" / "python3" / "site-packages" / "torchy" / "optim.py"
    return Path(py_compile.compile(str(source), doraise=True) or "")


def test_byte_code_unlike_its_source_is_named_with_owner_and_time(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Written later it is no finding; exchanged behind its header it is, also for machines and by its own word."""
    assert run(["env", "baseline", "env", "--key", "build.key", "--out", "base.json"]) == 0
    path = cached(home)
    assert said(*verify_env(), capsys=capsys)[0] == 0
    path.write_bytes(path.read_bytes().replace(b"step", b"stop"))
    code, text = said(*verify_env(), capsys=capsys)
    assert code == 1
    assert f"{path.name}: runs other code than its source  (owned by " in text
    code, text = said(*verify_env("--json"), capsys=capsys)
    report = json.loads(text)
    assert (code, report["clean"], report["compared"]) == (1, False, 1)
    assert [(Path(each["name"]).name, each["code"]) for each in report["bytecode"]] == [(path.name, "unlike")]
    assert said("env", "verify", "env", "--record-only", capsys=capsys)[0] == 1


def test_a_baseline_lists_byte_code_and_names_what_it_does_not(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal to its source: listed, and not compared again. Unlike: named, and a finding at every look."""
    path = cached(home)
    (path.parent / path.name.replace("optim", "gone")).write_bytes(path.read_bytes())
    code, text = said("env", "baseline", "env", "--key", "build.key", "--out", "base.json", capsys=capsys)
    assert (code, "1 of byte code like their source" in text) == (0, True)
    assert "has no source beside it; it is listed now" in text
    code, text = said(*verify_env(), capsys=capsys)
    assert (code, "0 compared" in text) == (0, True)
    path.write_bytes(path.read_bytes().replace(b"step", b"stop"))
    code, text = said("env", "baseline", "env", "--key", "build.key", "--out", "two.json", capsys=capsys)
    assert (code, "runs other code than its source; it is not listed" in text) == (0, True)
    assert said("env", "verify", "env", "--baseline", "two.json", "--signer", "build.pub", capsys=capsys)[0] == 1


def test_a_cache_with_a_key_is_believed_only_with_its_seal(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Written without the key it is not believed, and that is said once; then it is sealed."""
    assert run(["env", "baseline", "env", "--key", "build.key", "--out", "base.json"]) == 0
    assert "not believed" not in said(*verify_env("--cache", "cache"), capsys=capsys)[1]
    (home / "cache").write_bytes(b"policyguard environment-digests 2 unsealed\n\x80")
    (home / "cache").chmod(0o600)
    sealed = verify_env("--cache", "cache", "--key", "build.key")
    code, text = said(*sealed, capsys=capsys)
    assert (code, "cache: not believed, everything is hashed again: it has no seal" in text) == (0, True)
    assert "not believed" not in said(*sealed, capsys=capsys)[1]
    assert said(*verify_env("--cache", "cache", "--key", "gone.key"), capsys=capsys)[0] == 78


@pytest.mark.parametrize("python", ["gone", "build.pub", "/bin/true"])
def test_an_interpreter_that_is_none_is_reported(home: Path, capsys: pytest.CaptureFixture[str], python: str) -> None:
    """One line, and nothing is called clean."""
    assert run(["env", "baseline", "env", "--key", "build.key", "--out", "base.json"]) == 0
    cached(home)
    capsys.readouterr()
    code, text = said(*verify_env("--interpreter", python), capsys=capsys)
    assert (code, text.count("\n")) == (69, 1)
    assert "found no Python 3.11 or newer to compile with" in text


def test_only_the_builds_key_makes_a_baseline(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A baseline that somebody else signed says nothing, whatever it lists."""
    edit(home)
    write_private_key(home / "other.key", PrivateKey.generate(b"\6" * 32))
    assert run(["env", "baseline", "env", "--key", "other.key", "--out", "base.json"]) == 0
    code, text = said(*verify_env(), capsys=capsys)
    assert code == 69
    assert "0 of the trusted keys" in text


def test_nothing_is_clean_without_a_baseline_and_its_signer(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """I20: without them the verb refuses; what an environment says of itself must be asked for by name."""
    assert said("env", "verify", "env", capsys=capsys)[0] == 78
    assert said("env", "verify", "env", "--baseline", "base.json", capsys=capsys)[0] == 78
    assert said("env", "verify", "env", "--record-only", capsys=capsys)[0] == 0
    assert said("env", "verify", "nowhere", "--record-only", capsys=capsys)[0] == 78


def test_scan_leaves_with_one_unless_all_is_clean(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """I20: hostile, unknown, missing and nothing at all are no success."""
    write_weights(home / "good.pt", (1.0, 2.0))
    code, text = said("scan", "good.pt", capsys=capsys)
    assert (code, text.splitlines()[0]) == (0, "CLEAN    torch_zip    good.pt")
    assert text.endswith("1 clean, 0 unknown, 0 hostile\n")
    write_hostile(home / "bad.pt", home / "marker")
    code, text = said("scan", ".", "-q", capsys=capsys)
    assert code == 1
    assert "HOSTILE" in text
    assert "posix.system" in text
    assert not (home / "marker").exists()
    (home / "empty").mkdir()
    assert said("scan", "empty", capsys=capsys)[0] == 1
    assert said("scan", "nothing.pt", capsys=capsys)[0] == 1
    assert said("scan", capsys=capsys)[0] == 64


def test_scan_speaks_to_machines_without_a_bar(home: Path) -> None:
    """`--json` is one object with a verdict, the paths and the files; no progress bar where there is no terminal."""
    write_hostile(home / "bad.pt", home / "marker")
    (home / "config.json").write_text('{"m": {"_target_": "os.system"}}')
    result = CliRunner().invoke(group, ["scan", "bad.pt", "config.json", "--json"])
    data = json.loads(result.stdout)
    assert (data["verdict"], [row["hostile"] for row in data["paths"]]) == ("hostile", [1, 1])
    pickle, settings = (file["reasons"] for file in data["files"])
    assert ("ckpt.pickle_global", "posix.system") in {(reason["code"], reason["detail"]) for reason in pickle}
    assert [reason["where"] for reason in settings] == ["$.m._target_"]
    assert all(reason["does"] and reason["accept"] for reason in (*pickle, *settings))
    assert "hashing" not in result.output


def test_scan_of_a_folder_ends_with_a_table(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder is as bad as its worst file, and the table says how many there are of which verdict."""
    (home / "model").mkdir()
    (home / "model" / "config.json").write_text('{"model_type": "llama"}')
    (home / "model" / "a.yaml").write_text("m: {_target_: os.system}\n")
    code, text = said("scan", "model", "-q", capsys=capsys)
    assert code == 1
    assert "(at $.m._target_)" in text
    assert "       hostile      1        0        1  model\n" in text


def test_scan_explains_a_code(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a loader does, and what makes such a file acceptable; an unknown code is answered with similar ones."""
    code, text = said("scan", "--explain", "ckpt.target_call", capsys=capsys)
    assert (code, text.splitlines()[0]) == (0, "ckpt.target_call: hostile")
    assert said("scan", "--explain", "target", capsys=capsys)[0] == 64


def test_a_chain_of_manifests(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Signed step by step; a changed file, a left-out step and an unknown producer are refused at their steps."""
    sign = ("--key", "build.key", "--producer", "service:run-1", "--run", "run-1")
    previous: tuple[str, ...] = ()
    for step in (1, 2, 3):
        (home / f"step-{step}").mkdir()
        write_weights(home / f"step-{step}" / "w.pt", (float(step),))
        assert run(["manifest", "sign", f"step-{step}", *sign, "--step", str(step), *previous]) == 0
        previous = ("--previous", f"step-{step}")
    capsys.readouterr()
    known = ("--producer-key", "service:run-1=build.pub")
    assert said("manifest", "verify", "step-1", "step-2", "step-3", *known, capsys=capsys)[0] == 0
    code, text = said("manifest", "verify", "step-1", "step-3", *known, capsys=capsys)
    assert (code, "V7: previous is" in text) == (77, True)
    code, text = said("manifest", "verify", "step-1", "--producer-key", "service:run-2=build.pub", capsys=capsys)
    assert (code, "V4" in text) == (77, True)
    write_weights(home / "step-2" / "w.pt", (9.0,))
    code, text = said("manifest", "verify", "step-2", *known, capsys=capsys)
    assert (code, "V7: `w.pt`" in text) == (77, True)
    assert said("manifest", "verify", "step-2", capsys=capsys)[0] == 78


def test_nothing_hostile_is_signed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A producing run does not vouch for code."""
    write_hostile(home / "bad.pt", home / "marker")
    code, text = said(
        "manifest",
        "sign",
        "bad.pt",
        "--key",
        "build.key",
        "--producer",
        "service:run-1",
        "--run",
        "r",
        "--step",
        "1",
        capsys=capsys,
    )
    assert code == 69
    assert "expected nothing hostile" in text
    assert not (home / "bad.pt.dsse.json").exists()


def test_the_worker_measures_as_the_launcher_did(tmp_path: Path) -> None:
    """Checkpoints and environment are bound: `verify --job` holds, and no longer once either is touched."""
    lab = Lab(tmp_path / "lab")
    lab.close()
    weights = lab.root / "shared" / "w.safetensors"
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    weights.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")
    job = lab.root / "job.yaml"
    job.write_text(
        f"subject: user:bob\nresource: job:team/vision/r\nproperties: {{gpus: 16}}\ncheckpoints: [{weights}]\n"
    )
    until = str(lab.root / "out" / "r")
    Path(until).touch()
    words = ("--job", str(job), "--", lab.python, "train.py", until)
    started = process(lab, "run", "--out", str(lab.root / "d.json"), *words)
    assert started.returncode == 0, started.stderr
    check = ("verify", str(lab.root / "d.json"), "--audience", "local", *words)
    assert process(lab, *check).returncode == 0
    clean = lab.optimizer.read_bytes()
    lab.optimizer.write_bytes(clean + b"# slow\n")
    assert "V7" in process(lab, *check).stderr
    lab.optimizer.write_bytes(clean)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert "V7" in process(lab, *check).stderr


def process(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from policyguard.cli.main import main; main()"
    words = tuple(operator_words(words, lab.root / "policyguard.yaml", "user:bob"))
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, "-P", "-c", start, *words],
        cwd=lab.code,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_launcher_seals_what_it_remembers(tmp_path: Path) -> None:
    """With the guard's key: a cache without its seal is said, and replaced; a worker has no key, and reads it."""
    lab = Lab(tmp_path / "lab")
    lab.close()
    settings = lab.root / "policyguard.yaml"
    settings.write_text(settings.read_text().replace("{baseline: b", "{cache: env.cache, baseline: b"))
    cache = lab.root / "env.cache"
    cache.write_bytes(b"policyguard environment-digests 2 unsealed\n\x80")
    cache.chmod(0o600)
    job, until = lab.root / "job.yaml", str(lab.root / "out" / "r")
    job.write_text("subject: user:bob\nresource: job:team/vision/r\nproperties: {gpus: 16}\n")
    Path(until).touch()
    words = ("--job", str(job), "--", lab.python, "train.py", until)
    first, second = (process(lab, "run", "--out", str(lab.root / "d.json"), *words) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "env.cache: not believed, everything is hashed again: it has no seal" in first.stderr
    assert "not believed" not in second.stderr
    assert re.match(rb"policyguard environment-digests 2 [0-9a-f]{64}\n", cache.read_bytes())
    check = process(lab, "verify", str(lab.root / "d.json"), "--audience", "local", *words)
    assert check.returncode == 0, check.stderr
