"""Files, folders and options that are not what they should be: one line, the right code, nothing half-written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.cli.verbs.init_ import NAMES
from tests.e2e.cli_lab import CliLab, files_below

ALLOWED = "requests/allowed.json"
Spoil = Callable[[CliLab], object]


def put(name: str, text: str) -> Spoil:
    return lambda lab: lab.path(name).write_text(text)


def fifo(name: str) -> Spoil:
    def make(lab: CliLab) -> None:
        lab.path(name).unlink(missing_ok=True)
        os.mkfifo(lab.path(name))

    return make


def nothing(lab: CliLab) -> None:
    """Leave the lab as it is."""


CASES: dict[str, tuple[Spoil, tuple[str, ...], int, str]] = {
    # requests
    "a request that is not there": (nothing, ("decide", "none.json"), 65, "none.json: cannot be read: no such file"),
    "a folder as a request": (nothing, ("decide", "requests"), 65, "requests: found a folder, expected a regular file"),
    "a FIFO as a request": (fifo("pipe"), ("decide", "pipe"), 65, "pipe: found a FIFO, expected a regular file"),
    "an endless device as a request": (nothing, ("decide", "/dev/zero"), 65, "/dev/zero: found a device"),
    "a file below a file": (nothing, ("decide", "trust.yaml/x"), 65, "trust.yaml/x: cannot be read: not a directory"),
    "a name that is too long": (nothing, ("decide", "x" * 300), 65, "cannot be read: file name too long"),
    "a name that no system can have": (nothing, ("decide", "a\0b"), 65, "cannot be read: embedded null byte"),
    # policies
    "policies that are not there": (nothing, ("decide", "--policies", "none", ALLOWED), 78, "none: no policies there"),
    "policies in a FIFO": (fifo("pipe"), ("decide", "--policies", "pipe", ALLOWED), 78, "neither a folder nor a file"),
    "a folder without policies": (
        nothing,
        ("decide", "--policies", "requests", ALLOWED),
        78,
        "requests: found no policy file",
    ),
    "a policy that is a FIFO": (
        fifo("policies/pipe.yaml"),
        ("decide", ALLOWED),
        78,
        "policies/pipe.yaml: found a FIFO, expected a plain file",
    ),
    "a policy that links out of its folder": (
        lambda lab: lab.path("policies", "x.yaml").symlink_to("/etc/hostname"),
        ("decide", ALLOWED),
        78,
        "expected one within the folder",
    ),
    "a request as a compiled snapshot": (nothing, ("decide", "--policies", ALLOWED, ALLOWED), 78, ""),
    "an empty file as a compiled snapshot": (put("x", ""), ("decide", "--policies", "x", ALLOWED), 78, ""),
    # keys
    "a key that is not there": (
        nothing,
        ("decide", "--key", "none", ALLOWED),
        78,
        "/none` cannot be read: no such file",
    ),
    "a key that the group may read": (
        lambda lab: lab.path("guard.key").chmod(0o640),
        ("decide", ALLOWED),
        78,
        "has mode 0640, expected 0600",
    ),
    "a key that everybody may read": (
        lambda lab: lab.path("guard.key").chmod(0o604),
        ("decide", ALLOWED),
        78,
        "has mode 0604, expected 0600",
    ),
    "a public key as a private one": (
        lambda lab: lab.path("guard.key.pub").chmod(0o600),
        ("decide", "--key", "guard.key.pub", ALLOWED),
        78,
        "",
    ),
    "a folder as a key": (
        nothing,
        ("decide", "--key", "policies", ALLOWED),
        78,
        "found a folder, expected a regular file",
    ),
    "a FIFO as a key": (fifo("pipe"), ("decide", "--key", "pipe", ALLOWED), 78, "pipe"),
    "a link as a key": (
        lambda lab: lab.path("link").symlink_to("guard.key"),
        ("decide", "--key", "link", ALLOWED),
        78,
        "found a symbolic link",
    ),
    "no key at all": (put("policyguard.yaml", "policies: policies\n"), ("decide", ALLOWED), 78, "--key is missing"),
    # logs
    "a log in a folder that is not there": (
        nothing,
        ("decide", "--log", "none/x.db", ALLOWED),
        69,
        "/none/x.db` cannot be created: no such file",
    ),
    "a folder as a log": (nothing, ("decide", "--log", "policies", ALLOWED), 69, "/policies` is not a regular file"),
    "a device as a log": (
        nothing,
        ("decide", "--log", "/dev/null", ALLOWED),
        78,
        "--log: /dev/null: found owner uid 0, mode 0666",
    ),
    "a text file as a log": (put("x.db", "text\n" * 99), ("decide", "--log", "x.db", ALLOWED), 69, "/x.db`"),
    "no log to audit": (nothing, ("audit", "verify"), 69, "does not exist"),
    "no log to follow": (nothing, ("audit", "tail"), 69, "does not exist"),
    # configuration
    "an unknown option in policyguard.yaml": (
        put("policyguard.yaml", "polices: x\n"),
        ("decide", ALLOWED),
        78,
        "policyguard.yaml:1:1: unknown option `polices`",
    ),
    "a configuration that is no map": (put("policyguard.yaml", "[]\n"), ("decide", ALLOWED), 78, "found a list"),
    "a configuration that is no YAML": (
        put("policyguard.yaml", "policies: {\n"),
        ("decide", ALLOWED),
        78,
        "policyguard.yaml:2:1: ",
    ),
    "a lifetime of nothing": (put("policyguard.yaml", "lifetime: 0s\n"), ("decide", ALLOWED), 78, "more than 0"),
    "a lifetime without a unit": (put("policyguard.yaml", "lifetime: 15\n"), ("decide", ALLOWED), 78, "lifetime: "),
    "a configuration that is a FIFO": (
        fifo("policyguard.yaml"),
        ("decide", ALLOWED),
        78,
        "policyguard.yaml: found a FIFO, expected a regular file",
    ),
    "a configuration of a megabyte": (
        put("policyguard.yaml", "#" * 1_000_000),
        ("decide", ALLOWED),
        78,
        "policyguard.yaml: larger than 65536 bytes",
    ),
    # trust, signed decisions, job files
    "trust that is not there": (
        nothing,
        ("verify", "s", "--request", ALLOWED, "--trust", "none"),
        78,
        "none: cannot be read",
    ),
    "trust with an unknown field": (
        lambda lab: lab.path("trust.yaml").write_text(lab.path("trust.yaml").read_text() + "evil: 1\n"),
        ("verify", ALLOWED, "--request", ALLOWED),
        78,
        "trust.yaml: ",
    ),
    "an empty trust": (put("trust.yaml", ""), ("verify", ALLOWED, "--request", ALLOWED), 78, "trust.yaml"),
    "a signed decision that is not there": (nothing, ("verify", "none", "--request", ALLOWED), 65, "none: cannot be"),
    "a signed decision that is a folder": (
        nothing,
        ("verify", "policies", "--request", ALLOWED),
        65,
        "policies: found a folder",
    ),
    "a signed decision that is text": (put("s", "signed, me\n"), ("verify", "s", "--request", ALLOWED), 77, "V1: "),
    "a signed decision that is empty": (put("s", ""), ("verify", "s", "--request", ALLOWED), 77, "V1: "),
    "a signed decision nested deep": (put("s", "[" * 100_000), ("verify", "s", "--request", ALLOWED), 77, "V1: "),
    "a job file that is not there": (nothing, ("run", "--job", "none", "--", "true"), 65, "none: cannot be read"),
    "a job file that is no YAML": (put("j", "a: [\n"), ("run", "--job", "j", "--", "true"), 65, "j:2:1: "),
    "a job file without a resource": (put("j", "{}\n"), ("run", "--job", "j", "--", "true"), 65, "`resource` is miss"),
    "a job file with an unknown field": (
        put("j", "resource: job:x\nresourse: 1\n"),
        ("run", "--job", "j", "--", "true"),
        65,
        "unknown field `resourse`",
    ),
    "a job file with a YAML alias": (
        put("j", "resource: &a job:x\nsubject: *a\n"),
        ("run", "--job", "j", "--", "true"),
        65,
        "j:1:11: ",
    ),
    # what is to be written
    "an answer into a folder that is not there": (
        nothing,
        ("decide", "--out", "none/s.json", ALLOWED),
        78,
        "none/s.json: cannot be written: no such file",
    ),
    "an answer over a folder": (nothing, ("decide", "--out", "policies", ALLOWED), 78, "policies: found a folder"),
    "an answer over a device": (nothing, ("compile", "-o", "/dev/full"), 78, "/dev/full: found a device"),
    "an answer over a link": (
        lambda lab: lab.path("link").symlink_to("/dev/full"),
        ("compile", "-o", "link"),
        78,
        "link: found a symbolic link",
    ),
    "a new key into a folder that is not there": (nothing, ("keys", "new", "none/k"), 78, "cannot be written"),
    "a new lab in a file": (nothing, ("init", "trust.yaml"), 78, "trust.yaml"),
    "a demo where something is": (nothing, ("demo", "--folder", "policies"), 78, "policies: exists already"),
    "a casbin model that is not there": (nothing, ("import", "casbin", "none", "none"), 78, "none: cannot be read"),
    "a casbin model that is not text": (
        lambda lab: lab.path("m").write_bytes(b"\xff"),
        ("import", "casbin", "m", "m"),
        65,
        "m: found a byte that is",
    ),
}


@pytest.mark.parametrize(("spoil", "words", "code", "said"), CASES.values(), ids=list(CASES))
def test_what_cannot_be_used_is_reported(
    spoil: Spoil, words: tuple[str, ...], code: int, said: str, lab: CliLab
) -> None:
    """One clear line on standard error, the exit code of its family, nothing on standard output, nothing left over."""
    spoil(lab)
    before = files_below(lab.folder)
    ended = lab.here(*words)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.complaint
    assert "mistake in policyguard" not in ended.err
    assert files_below(lab.folder) == before


def test_a_policy_with_many_errors_prints_them_all(lab: CliLab) -> None:
    """Each mistake is one line that begins with file, line and column; the code is 65 and nothing is decided."""
    lab.path("policies", "wrong.yaml").write_text(
        "apiVersion: policyguard/v1\nkind: Policy\nmetadata: {name: wrong}\nrules:\n"
        "  - {id: a, effect: alow, roles: [lead], actions: [job:submit], resources: {type: job}}\n"
        "  - {id: b, effect: allow, roles: [leed], actions: [job:submit], resources: {type: job}}\n"
        "  - {id: c, effect: allow, roles: [lead], actions: [job:sumbit], resources: {type: job}}\n"
    )
    for words in (("decide", ALLOWED), ("compile", "-o", "x"), ("explain", ALLOWED), ("check-engine",)):
        ended = lab.here(*words)
        assert (ended.code, ended.out) == (65, ""), words
        lines = [line for line in ended.err.splitlines() if not line.startswith("  help: ")]
        assert [line.split(": ")[0].split(":")[:2] for line in lines] == [
            ["policies/wrong.yaml", "5"],
            ["policies/wrong.yaml", "6"],
            ["policies/wrong.yaml", "7"],
        ]
    assert not lab.path("x").exists()
    assert not lab.path("audit.db").exists()


def test_a_folder_that_changes_while_it_is_read_is_refused(lab: CliLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file written between the two listings stops the load; the next run, at rest, decides."""
    real = os.open

    def touching(path: str | os.PathLike[str], flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if os.fspath(path).endswith("/schema.yaml"):
            lab.path("policies", "bindings.yaml").write_text("changed")
        return real(path, flags, mode, dir_fd=dir_fd)

    text = lab.path("policies", "bindings.yaml").read_text()
    monkeypatch.setattr(os, "open", touching)
    ended = lab.here("decide", ALLOWED)
    assert ended.code == 78
    assert "changed while" in ended.complaint
    monkeypatch.setattr(os, "open", real)
    lab.path("policies", "bindings.yaml").write_text(text)
    assert lab.here("decide", ALLOWED).code == 0
    assert len(lab.entries()) == 1


def test_an_unreadable_folder_is_reported(lab: CliLab) -> None:
    """A user who may not read the policies gets one line; root may read all, so the process is nobody meanwhile."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    words = ("explain", "--policies", "policies", ALLOWED)
    assert lab.here(*words).code == 0
    lab.path("policies").chmod(0o700)
    opened = [parent for parent in lab.folder.parents if not parent.stat().st_mode & 0o001]
    for parent in opened:
        parent.chmod(0o711)
    os.seteuid(65534)
    try:
        ended = lab.here(*words)
    finally:
        os.seteuid(0)
        for parent in opened:
            parent.chmod(0o700)
    assert ended.code == 78
    assert ended.complaint == "policyguard: policies: may not be read by this process"


def test_a_full_file_system_leaves_no_part(lab: CliLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be written to its end is taken away again, and the old one stays."""
    lab.path("old").write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    ended = lab.here("compile", "-o", "old")
    assert (ended.code, ended.complaint) == (78, "policyguard: old: cannot be written: no space left on device")
    assert lab.path("old").read_text() == "old"
    assert not [path for path in lab.folder.iterdir() if path.name.startswith(".")]


def test_what_init_made_survives_a_crash(tmp_path: Path, lab: CliLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is synced after key, trust and policies have their names, and so is the folder above a new one."""
    synced: list[tuple[str, set[str]]] = []
    real = os.fsync

    def note(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        synced.append((path, set(os.listdir(path)) if os.path.isdir(path) else set()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    assert lab.here("init", str(tmp_path / "new" / "lab")).code == 0
    last = dict(synced)
    assert last[str(tmp_path / "new" / "lab")] == {*NAMES}
    assert last[str(tmp_path / "new")] == {"lab"}
    assert "new" in last[str(tmp_path)]


@pytest.mark.parametrize("after", range(0, 20, 4))
def test_an_init_that_fails_leaves_nothing(
    after: int, tmp_path: Path, lab: CliLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file cannot be written, the folder is as it was before: not there, or with what was in it."""
    written = 0
    real = os.fsync

    def full(descriptor: int) -> None:
        nonlocal written
        written += 1
        if written > after:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    for folder in (tmp_path / "new" / "lab", tmp_path / "mine"):
        written = 0
        ended = lab.here("init", str(folder))
        assert (ended.code, ended.out) == (78, "")
        assert "no space left on device" in ended.complaint
    assert not (tmp_path / "new").exists()
    assert files_below(tmp_path / "mine") == ["file"]
