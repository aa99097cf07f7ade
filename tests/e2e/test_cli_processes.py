"""The command line in real processes: streams that are closed or full, odd environments, full and read-only disks."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest

from tests.e2e.cli_lab import CliLab, process_environment

ALLOWED = "requests/allowed.json"
HOOK = ("hook", "--policies", "policies", "--key", "guard.key", "--log", "audit.db")


def request_bytes(lab: CliLab) -> bytes:
    return lab.path("requests", "allowed.json").read_bytes()


STREAMS = {
    "decide, standard input closed": (("decide", "-"), '"$@" <&-', 65, "standard input cannot be read"),
    "decide, standard output closed": (("decide", ALLOWED), '"$@" >&-', 69, "standard output cannot be written"),
    "decide, standard output full": (("decide", ALLOWED), '"$@" >/dev/full', 69, "no space left on device"),
    "decide, standard error closed": (("decide", "none"), '"$@" 2>&-', 65, ""),
    "decide, everything closed": (("decide", "-"), '"$@" <&- >&- 2>&-', 65, ""),
    "hook, standard output closed": (HOOK, f'"$@" >&- <{ALLOWED}', 69, ""),
    "hook, standard output full": (HOOK, f'"$@" >/dev/full <{ALLOWED}', 69, ""),
    "hook, everything closed": (HOOK, '"$@" <&- >&- 2>&-', 65, ""),
    "help into a closed pipe": (("--help",), '"$@" | true', 0, ""),
    "the log into a closed pipe": (("audit", "tail"), '"$@" | true', 0, ""),
}


@pytest.mark.parametrize(("words", "shell", "code", "said"), STREAMS.values(), ids=list(STREAMS))
def test_streams_that_cannot_be_used(words: tuple[str, ...], shell: str, code: int, said: str, lab: CliLab) -> None:
    """No stream that is closed, full or gone turns into a traceback, a zero, or bytes in the log's file."""
    lab.here("decide", ALLOWED)
    ended = lab.process(*words, shell=shell)
    assert ended.code == code
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert "Exception" not in ended.err
    assert lab.here("audit", "verify").code == 0


CLOSED_PIPES = {
    "an allow": (("decide", ALLOWED), 0),
    "a denial": (("decide", "requests/denied-stranger.json"), 77),
    "a denial in JSON": (("decide", "--json", "requests/denied-stranger.json"), 77),
    "a preview": (("explain", "requests/denied-stranger.json"), 77),
    "a malformed request": (("decide", "requests/malformed.json"), 65),
    "a decision that does not verify": (("verify", "signed.json", "--request", ALLOWED, "--audience", "other"), 77),
}


@pytest.mark.parametrize(("words", "code"), CLOSED_PIPES.values(), ids=list(CLOSED_PIPES))
@pytest.mark.parametrize("pipe", ['"$@" | true; exit ${PIPESTATUS[0]}', '"$@" 2>&1 | true; exit ${PIPESTATUS[0]}'])
def test_a_reader_that_is_gone_changes_no_exit_code(words: tuple[str, ...], code: int, pipe: str, lab: CliLab) -> None:
    """`policyguard decide ... | head -1` says what the decision says."""
    lab.path("requests", "malformed.json").write_text("{}")
    assert lab.here("decide", ALLOWED, "--out", "signed.json").code == 0
    assert lab.here(*words).code == code
    ended = lab.process(*words, shell=pipe)
    assert ended.code == code
    assert "Traceback" not in ended.err
    assert "Exception" not in ended.err


def test_the_hook_without_input_says_so(lab: CliLab) -> None:
    """A closed standard input is bad input, in JSON."""
    ended = lab.process(*HOOK, shell='"$@" <&-')
    assert (ended.code, ended.data["decision"]) == (65, False)
    assert "standard input cannot be read" in ended.data["error"]


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "the C locale": {"LANG": "C", "LC_ALL": "C"},
    "an encoding without umlauts": {"PYTHONIOENCODING": "ascii"},
    "a locale that does not exist": {"LANG": "xx_XX.UTF-9", "LC_ALL": "xx_XX.UTF-9"},
    "a terminal of four columns": {"COLUMNS": "4"},
    "columns that are no number": {"COLUMNS": "many"},
    "another time zone": {"TZ": "Pacific/Kiritimati"},
    "a proxy and a pager": {"HTTPS_PROXY": "http://127.0.0.1:1", "PAGER": "false"},
}


@pytest.mark.parametrize("variables", ENVIRONMENTS.values(), ids=list(ENVIRONMENTS))
def test_odd_environments(variables: dict[str, str], lab: CliLab) -> None:
    """The same request is allowed, and help is printed, whatever the locale, the terminal and the rest say."""
    lab.path("requests", "é.json").write_bytes(request_bytes(lab))
    assert lab.process("decide", "requests/é.json", variables=variables).code == 0
    ended = lab.process("decide", "--policies", "ünreadable", ALLOWED, variables=variables)
    assert ended.code == 78
    assert "no policies there" in ended.complaint


def test_an_empty_environment(lab: CliLab) -> None:
    """Without HOME, PATH or anything else a decision is made, and the doctor misses nothing but git."""
    bare = {"PYTHONPATH": process_environment()["PYTHONPATH"]}
    words = [sys.executable, "-m", "policyguard"]
    done = subprocess.run([*words, "decide", ALLOWED], cwd=lab.folder, env=bare, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_current_folder_that_is_gone(lab: CliLab) -> None:
    """From a deleted folder absolute paths work, and a job is refused in one line."""
    gone = 'mkdir gone && cd gone && rmdir ../gone && "$@"'
    request = str(lab.path("requests", "allowed.json"))
    config = {"POLICYGUARD_CONFIG": str(lab.path("policyguard.yaml"))}
    assert lab.process("decide", request, shell=gone, variables=config).code == 0
    lab.path("job.yaml").write_text("resource: job:team/vision/run-17\n")
    ended = lab.process("run", "--job", str(lab.path("job.yaml")), "--", "true", shell=gone, variables=config)
    assert (ended.code, ended.out) == (78, "")
    assert "the current folder: no such file or directory" in ended.complaint


def test_names_that_are_not_text(lab: CliLab) -> None:
    """A path that is not UTF-8 works, and is shown with escapes when it does not."""
    odd = os.fsdecode(b"requests/\xff.json")
    with open(odd, "wb") as file:
        file.write(request_bytes(lab))
    assert lab.process("decide", odd).code == 0
    ended = lab.process("decide", os.fsdecode(b"requests/\xfe.json"))
    assert ended.code == 65
    assert "cannot be read: no such file" in ended.complaint


def test_an_interrupt_ends_without_a_traceback(lab: CliLab) -> None:
    """Ctrl-C while following the log is a plain end."""
    lab.here("decide", ALLOWED)
    # A suite that a script started in the background has SIGINT ignored, and children inherit that.
    process = subprocess.Popen(
        [sys.executable, "-m", "policyguard", "audit", "tail", "--follow"],
        cwd=lab.folder,
        env=process_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline().split()[0] == b"0"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert b"Traceback" not in error
    assert process.returncode == 130


def test_a_disk_that_is_full_decides_nothing(lab: CliLab) -> None:
    """Where the log cannot grow there is no decision: exit code 69, one line; with room again it goes on, sound."""
    lab.here("decide", ALLOWED)
    for suffix in ("", "-wal"):
        assert (lab.path(f"audit.db{suffix}").stat().st_size if lab.path(f"audit.db{suffix}").exists() else 0) < 100_000

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    ended = lab.process("decide", ALLOWED, "--out", "signed.json", before=no_room)
    assert (ended.code, ended.out) == (69, "")
    assert ended.complaint.startswith("policyguard: log `audit.db`")
    assert not lab.path("signed.json").exists()
    hook = lab.process(*HOOK, stdin=request_bytes(lab), before=no_room)
    assert (hook.code, hook.data["decision"]) == (69, False)
    assert lab.here("audit", "verify", "--json").data["size"] == 1
    assert lab.here("decide", ALLOWED).code == 0
    assert lab.here("audit", "verify", "--json").data["size"] == 2


def test_a_disk_that_is_full_makes_no_log(lab: CliLab) -> None:
    """A first decision on a full disk fails alike, and what it leaves does not stop the next."""

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    ended = lab.process("decide", ALLOWED, before=no_room)
    assert (ended.code, ended.out) == (69, "")
    assert ended.complaint
    assert lab.here("decide", ALLOWED).code == 0
    assert lab.here("audit", "verify").code == 0


def test_a_log_that_cannot_be_written_decides_nothing(lab: CliLab) -> None:
    """A log that belongs to somebody else and may only be read is refused before anything is decided."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    lab.here("decide", ALLOWED)
    opened = [parent for parent in lab.folder.parents if not parent.stat().st_mode & 0o001]
    for parent in opened:
        parent.chmod(0o711)
    key = lab.path("nobody.key")
    shutil.copy(lab.path("guard.key"), key)
    key.chmod(0o600)
    os.chown(key, 12345, 12345)
    for path in lab.folder.glob("audit.db*"):
        path.chmod(0o644)
    assert lab.here("explain", ALLOWED).code == 0
    os.seteuid(12345)
    try:
        ended = lab.here("decide", "--config", "policyguard.yaml", "--key", "nobody.key", ALLOWED)
    finally:
        os.seteuid(0)
        for parent in opened:
            parent.chmod(0o700)
    assert (ended.code, ended.out) == (69, "")
    assert ended.complaint.startswith("policyguard: log `audit.db`")
    assert len(lab.entries()) == 1
