"""Attempts to edit an installed environment unseen, and to be believed by RECORD, cache or baseline."""

from __future__ import annotations

import base64
import hashlib
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.attest.dsse import sign
from policyguard.attest.keys import PrivateKey
from policyguard.environment.cache import RACY_NS, FileCache
from policyguard.environment.listing import Listing, list_files
from policyguard.environment.report import (
    PAYLOAD_TYPE,
    Baseline,
    EnvironmentReport,
    make_baseline,
    read_baseline,
    verify_environment,
    who_changed,
)
from policyguard.errors import EvidenceError
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.environment_collector import ENVIRONMENT, EnvironmentCollector
from policyguard.model.request import Request
from policyguard.values import FrozenMap, canonical

KEY = PrivateKey.generate(b"\x11" * 32)
SITE = "lib/python3.11/site-packages"


def record_line(path: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(content)}\n"


def install(prefix: Path, name: str, files: dict[str, str], entry_points: str = "") -> None:
    """Install a distribution as an installer would: files, metadata, RECORD."""
    site = prefix / SITE
    lines = []
    everything = {**files, **({f"{name}-1.0.dist-info/entry_points.txt": entry_points} if entry_points else {})}
    for path, text in everything.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
        lines.append(record_line(path, text.encode()))
    record = site / f"{name}-1.0.dist-info" / "RECORD"
    record.parent.mkdir(exist_ok=True)
    record.write_text("".join(lines) + f"{name}-1.0.dist-info/RECORD,,\n")


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    made = tmp_path / "env"
    (made / "bin").mkdir(parents=True)
    (made / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    (made / "pyvenv.cfg").write_text("home = /usr/bin\n")
    install(made, "torch", {"torch/__init__.py": "import torch.optim\n", "torch/optim.py": "lr = 1\n"})
    install(made, "tool", {"tool.py": "pass\n", "tool.pth": "import tool\n"}, "[console_scripts]\ntool = tool:main\n")
    return made


@pytest.fixture
def baseline(prefix: Path) -> Baseline:
    return read_baseline(make_baseline(list_files(str(prefix)), [KEY]), [KEY.public])


def test_a_clean_environment_has_no_findings(prefix: Path, baseline: Baseline) -> None:
    """The twin of everything below."""
    report = verify_environment(str(prefix), baseline)
    starting = (f"{SITE}/tool.pth: import tool",)
    assert report == EnvironmentReport(read=report.read, starting=starting, digest=report.digest)
    assert report.is_clean
    assert verify_environment(str(prefix), None).unowned == ()


def edited(site: Path) -> None:
    (site / "torch/optim.py").write_text("lr = 2\n")


def edited_with_record(site: Path) -> None:
    edited(site)
    record = site / "torch-1.0.dist-info/RECORD"
    old, new = record_line("torch/optim.py", b"lr = 1\n"), record_line("torch/optim.py", b"lr = 2\n")
    record.write_text(record.read_text().replace(old, new))


def same_size_and_times(site: Path) -> None:
    path = site / "torch/optim.py"
    before = path.stat()
    edited(site)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def linked_away(site: Path) -> None:
    (site.parent / "optim.py").write_text("lr = 1\n")
    (site / "torch/optim.py").unlink()
    (site / "torch/optim.py").symlink_to("../../optim.py")


def other_interpreter(site: Path) -> None:
    python = site.parents[2] / "bin" / "python"
    python.unlink()
    python.write_text("x")


def usercustomize_package(site: Path) -> None:
    (site / "usercustomize").mkdir()
    (site / "usercustomize" / "__init__.py").write_text("x")


EDITS: dict[str, tuple[Callable[[Path], object], str]] = {
    "an edit": (edited, f"{SITE}/torch/optim.py"),
    "an edit with its RECORD line": (edited_with_record, f"{SITE}/torch/optim.py"),
    "an edit with old size and times": (same_size_and_times, f"{SITE}/torch/optim.py"),
    "a file replaced by a link": (linked_away, f"{SITE}/torch/optim.py"),
    "a file gone": (lambda site: (site / "torch/optim.py").unlink(), f"{SITE}/torch/optim.py"),
    "a file added": (lambda site: (site / "torch/evil.py").write_text(""), f"{SITE}/torch/evil.py"),
    "another interpreter": (other_interpreter, "bin/python"),
}


@pytest.mark.parametrize(("edit", "name"), EDITS.values(), ids=EDITS.keys())
def test_an_edited_environment_is_seen(
    prefix: Path, baseline: Baseline, tmp_path: Path, edit: Callable[[Path], object], name: str
) -> None:
    """With a warm cache, too: every edit shows, by the name of the file."""
    cache = str(tmp_path / "cache")
    time.sleep(0.01)
    assert verify_environment(str(prefix), baseline, cache=FileCache(cache)).is_clean
    edit(prefix / SITE)
    report = verify_environment(str(prefix), baseline, cache=FileCache(cache))
    assert name in {*report.changed, *report.added, *report.removed}
    assert not report.is_clean
    assert "owned by" in who_changed(str(prefix), name) or name in report.removed


AUTORUN: dict[str, tuple[Callable[[Path], object], str]] = {
    "an unowned .pth": (lambda site: (site / "zz_evil.pth").write_text("import os\n"), f"{SITE}/zz_evil.pth"),
    "sitecustomize": (lambda site: (site / "sitecustomize.py").write_text("x"), f"{SITE}/sitecustomize.py"),
    "usercustomize as a package": (usercustomize_package, f"{SITE}/usercustomize/__init__.py"),
    "a changed .pth": (lambda site: (site / "tool.pth").write_text("import evil\n"), f"{SITE}/tool.pth"),
    "a distribution that loads itself into trainers": (
        lambda site: install(
            site.parents[2], "evil", {"evil.py": "x"}, "[lightning.pytorch.callbacks_factory]\nevil = evil:callbacks\n"
        ),
        f"{SITE}/evil-1.0.dist-info/entry_points.txt: lightning.pytorch.callbacks_factory: evil = evil:callbacks",
    ),
}


@pytest.mark.parametrize(("plant", "name"), AUTORUN.values(), ids=AUTORUN.keys())
def test_what_would_run_by_itself_is_named(
    prefix: Path, baseline: Baseline, plant: Callable[[Path], object], name: str
) -> None:
    """Outside the baseline; whether a RECORD owns it does not matter."""
    plant(prefix / SITE)
    assert verify_environment(str(prefix), baseline).autorun == (name,)


def test_two_owners_and_no_owner_are_reported(prefix: Path) -> None:
    """Without any baseline: RECORD accuses."""
    install(prefix, "copy", {"torch/optim.py": "lr = 3\n"})
    (prefix / SITE / "stray.py").write_text("x")
    report = verify_environment(str(prefix), None)
    assert report.doubly_owned == (f"{SITE}/torch/optim.py",)
    assert report.unowned == (f"{SITE}/stray.py",)


def test_a_file_unlike_its_record_is_reported(prefix: Path) -> None:
    """Without any baseline."""
    edited(prefix / SITE)
    assert verify_environment(str(prefix), None).unlike_record == (f"{SITE}/torch/optim.py",)


def listed(prefix: Path, cache: Path) -> Listing:
    """List with a cache, and save it."""
    remembered = FileCache(str(cache))
    found = list_files(str(prefix), remembered)
    remembered.save()
    return found


def age(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the files be older than the racy window, as if the build had been yesterday."""
    later = time.time_ns() + RACY_NS + 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)


def test_a_warm_cache_reads_nothing(prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And gives the same listing."""
    age(prefix, monkeypatch)
    cache = tmp_path / "cache"
    cold, warm = listed(prefix, cache), listed(prefix, cache)
    assert (cold.read, warm.read) == (len(cold.files) - 1, 0)  # the interpreter is a link, and links are read each time
    assert cold.files == warm.files


def test_a_recent_file_is_read_again(prefix: Path, tmp_path: Path) -> None:
    """Its time stamps may not move with the next write."""
    cache = tmp_path / "cache"
    first, second = listed(prefix, cache), listed(prefix, cache)
    assert first.read == second.read > 0


@pytest.mark.parametrize("edit", [edited, same_size_and_times, edited_with_record])
def test_a_warm_cache_misses_no_edit(
    prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: Callable[[Path], object]
) -> None:
    """The change time is the kernel's."""
    cache = tmp_path / "cache"
    with monkeypatch.context() as patched:
        age(prefix, patched)
        before = listed(prefix, cache).files
    edit(prefix / SITE)
    after = listed(prefix, cache).files
    assert before[f"{SITE}/torch/optim.py"] != after[f"{SITE}/torch/optim.py"]


def test_a_write_through_a_memory_map_is_not_missed(
    prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is dirty when the file is hashed could be written again without a new time stamp."""
    cache, path = tmp_path / "cache", prefix / SITE / "torch/optim.py"
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as window:
        window[0:1] = b"L"
        with monkeypatch.context() as patched:
            age(prefix, patched)
            before = listed(prefix, cache).files
        time.sleep(0.02)
        window[0:1] = b"M"
        after = listed(prefix, cache).files
    assert before[f"{SITE}/torch/optim.py"] != after[f"{SITE}/torch/optim.py"]


def test_a_cache_that_others_may_write_is_refused(prefix: Path, tmp_path: Path) -> None:
    """Whoever writes the cache says what is clean."""
    cache = tmp_path / "cache"
    cache.write_bytes(b"")
    cache.chmod(0o600)
    listed(prefix, cache)
    cache.chmod(0o666)
    with pytest.raises(EvidenceError, match="others may write this cache"):
        listed(prefix, cache)


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x80", b"\x81\xa1a\x01"])
def test_a_damaged_cache_is_made_again(prefix: Path, tmp_path: Path, content: bytes) -> None:
    """It costs time, not truth."""
    cache = tmp_path / "cache"
    cache.write_bytes(content)
    cache.chmod(0o600)
    assert listed(prefix, cache).files == list_files(str(prefix)).files


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        sign(
            canonical({"files": {"a": "b"}, "version": 1}), PAYLOAD_TYPE, [PrivateKey.generate(b"\x22" * 32)]
        ).to_bytes(),
        sign(canonical({"files": {"a": "b"}, "version": 1}), "application/json", [KEY]).to_bytes(),
        sign(canonical({"files": {}, "version": 1}), PAYLOAD_TYPE, [KEY]).to_bytes(),
        sign(canonical({"files": {"a": "b"}, "version": 3}), PAYLOAD_TYPE, [KEY]).to_bytes(),
        sign(b"[]", PAYLOAD_TYPE, [KEY]).to_bytes(),
    ],
    ids=["nothing", "no envelope", "another key", "another type", "no files", "another version", "no map"],
)
def test_a_baseline_that_is_not_ours_is_refused(data: bytes) -> None:
    """An attacker who edits the environment brings a baseline along."""
    with pytest.raises(EvidenceError, match="the environment's baseline"):
        read_baseline(data, [KEY.public])


def test_the_collector_measures_the_environment_of_the_program(prefix: Path, tmp_path: Path) -> None:
    """A job that is started with this environment's interpreter, before and after an edit."""
    (tmp_path / "baseline").write_bytes(make_baseline(list_files(str(prefix)), [KEY]))
    collector = EnvironmentCollector(str(tmp_path / "baseline"), [KEY.public], cache=str(tmp_path / "cache"))
    inputs = JobInputs(argv=(str(prefix / "bin" / "python"), "-V"), directory="/", environment={})
    request = Request.of("user:a", "job:submit", "job:x")
    assert collector.collect(request, inputs, 1).entries[ENVIRONMENT].value == {
        "changed_files": (),
        "unlike_bytecode": (),
        "unowned_autorun": (),
    }
    (prefix / SITE / "zz.pth").write_text("import os\n")
    assert collector.collect(request, inputs, 1).entries[ENVIRONMENT].value == {
        "changed_files": (f"{SITE}/zz.pth",),
        "unlike_bytecode": (),
        "unowned_autorun": (f"{SITE}/zz.pth",),
    }


WRAPPED = (
    "timeout 60 {python} x.py",
    "nice {python} x.py",
    "bash run.sh",
    "./run.sh",
    "nohup ./run.sh",
    "sh -c {text}",
)
SCRIPTS = ("exec {python} x.py", '# a job\nset -euo pipefail\n\n{python} \\\n  x.py "$@"')


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("command", WRAPPED)
def test_the_environment_behind_a_wrapper_is_measured(prefix: Path, tmp_path: Path, command: str, script: str) -> None:
    """A user who writes `timeout 60 ENV/bin/python x.py` was denied, as `timeout` is in no environment."""
    (tmp_path / "baseline").write_bytes(make_baseline(list_files(str(prefix)), [KEY]))
    python = str(prefix / "bin" / "python")
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "x.py").write_text("")
    (folder / "run.sh").write_text("#!/bin/sh\n" + script.format(python=python) + "\n")
    (folder / "run.sh").chmod(0o755)
    argv = tuple(word.format(python=python, text=f"{python} x.py") for word in command.split())
    inputs = JobInputs(argv=argv, directory=str(folder), environment={"PATH": os.defpath})
    collector = EnvironmentCollector(str(tmp_path / "baseline"), [KEY.public])
    request = Request.of("user:a", "job:submit", "job:x")
    clean = collector.collect(request, inputs, 1).entries[ENVIRONMENT].value
    assert isinstance(clean, FrozenMap)
    assert clean["changed_files"] == ()
    (prefix / SITE / "zz.pth").write_text("import os\n")
    changed = collector.collect(request, inputs, 1).entries[ENVIRONMENT].value
    assert isinstance(changed, FrozenMap)
    assert changed["changed_files"] == (f"{SITE}/zz.pth",)


@pytest.mark.parametrize(
    "script",
    [
        "{python} x.py\n/elsewhere/bin/python y.py",
        "# a comment ends with its line \\\n/elsewhere/bin/python y.py\n{python} x.py",
        "{python} $(cat y)",
        "export PATH=/elsewhere/bin\n{python} x.py",
        'env {python} "$@"',
        "set -k\n{python} x.py",
        "./run.sh",
        "",
    ],
)
def test_a_script_of_more_than_one_command_has_no_measured_environment(
    prefix: Path, tmp_path: Path, script: str
) -> None:
    python = str(prefix / "bin" / "python")
    (tmp_path / "x.py").write_text("")
    (tmp_path / "run.sh").write_text("#!/bin/sh\n" + script.format(python=python) + "\n")
    (tmp_path / "run.sh").chmod(0o755)
    inputs = JobInputs(argv=("bash", "run.sh"), directory=str(tmp_path), environment={"PATH": os.defpath})
    with pytest.raises(EvidenceError, match="in no environment of its own"):
        EnvironmentCollector("x", [KEY.public]).collect(Request.of("user:a", "job:submit", "job:x"), inputs, 1)


def test_a_program_in_no_environment_is_a_reason(tmp_path: Path) -> None:
    """`/bin/sh` has no baseline."""
    inputs = JobInputs(argv=("/bin/sh",), directory="/", environment={})
    with pytest.raises(EvidenceError, match="in no environment of its own"):
        EnvironmentCollector("x", [KEY.public]).collect(Request.of("user:a", "job:submit", "job:x"), inputs, 1)


def test_a_real_virtual_environment_is_clean(tmp_path: Path) -> None:
    """As `python -m venv` makes it, run once, judged against its own listing: no false alarm."""
    made = tmp_path / "real"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(made)], check=True)
    baseline = read_baseline(make_baseline(list_files(str(made)), [KEY]), [KEY.public])
    subprocess.run([str(made / "bin/python"), "-c", "import json"], check=True, env={})
    assert verify_environment(str(made), baseline).is_clean
