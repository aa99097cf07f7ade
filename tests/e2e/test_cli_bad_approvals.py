"""`approve` and `grant` on what is not as it should be: one line, the right code, nothing signed, nothing written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.keyfiles import write_private_key
from tests.e2e.cli_lab import CliLab, files_below
from tests.e2e.test_cli_bad_files import ALLOWED, Spoil, fifo, nothing, put

APPROVE = ("approve", "--as", "user:carol", "--reason", "r")
LIMIT = (*APPROVE, "--tree", "a" * 40, "--action", "job:submit", "--resource", "job:x", "--limit")
REQUEST = (*APPROVE, "--request", ALLOWED)
SIGN = (*REQUEST, "--key", "carol.key")
SSH = (*REQUEST, "--ssh-key")
ADD = ("approve", "--log", "audit.db", "--add")
GRANT = ("grant", "user:ivan", "--gpus", "64", "--until", "3d")
GRANTED = (*GRANT, "--out", "grants.json", "--key")


def job(text: str) -> Spoil:
    return put("job.yaml", text)


def mode(name: str, bits: int) -> Spoil:
    return lambda lab: lab.path(name).chmod(bits)


def folder_at(name: str) -> Spoil:
    return lambda lab: lab.path(name).mkdir()


def link(name: str, target: str) -> Spoil:
    return lambda lab: lab.path(name).symlink_to(target)


def wrapped(lab: CliLab) -> None:
    lab.path("carol.key").unlink()
    write_private_key(lab.path("carol.key"), PrivateKey(b"\2" * 32), passphrase=b"correct horse")


def no_policies(lab: CliLab) -> None:
    """A reviewer's machine: nothing is configured, so that nothing but the approval itself can be wrong."""
    lab.path("policyguard.yaml").unlink()


def broken_policies(lab: CliLab) -> None:
    lab.path("policies", "broken.yaml").write_text("apiVersion: policyguard/v1\nkind: Nonsense\n")


JOB = (*APPROVE, "--job", "job.yaml", "--key", "carol.key", "--", "true")
CASES: dict[str, tuple[Spoil, tuple[str, ...], int, str]] = {
    # what is approved
    "a job file that is not there": (nothing, JOB, 65, "job.yaml: cannot be read: no such file"),
    "a job file that is a FIFO": (fifo("job.yaml"), JOB, 65, "job.yaml: found a FIFO, expected a regular file"),
    "a job file that is a device": (link("job.yaml", "/dev/zero"), JOB, 65, "job.yaml: found a device"),
    "a job file of a megabyte": (job("#" * 1_000_000), JOB, 65, "job.yaml: larger than 262144 bytes"),
    "a job file that is no YAML": (job("a: [\n"), JOB, 65, "job.yaml:2:1: "),
    "a job file without a resource": (job("subject: user:x\n"), JOB, 65, "`resource` is missing"),
    "a job file with an unknown field": (job("resource: job:x\nwho: me\n"), JOB, 65, "unknown field `who`"),
    "a job outside of any repository": (
        job("subject: user:alice\nresource: job:team/vision/x\n"),
        JOB,
        69,
        "found no git repository here or above",
    ),
    "a request that is not there": (nothing, (*APPROVE, "--request", "none"), 65, "none: cannot be read: no such file"),
    "a request that is a folder": (nothing, (*APPROVE, "--request", "policies"), 65, "policies: found a folder"),
    "a request that is a FIFO": (fifo("pipe"), (*APPROVE, "--request", "pipe"), 65, "pipe: found a FIFO"),
    "a request that is a device": (nothing, (*APPROVE, "--request", "/dev/zero"), 65, "/dev/zero: found a device"),
    "a request of three megabytes": (put("x", " " * 3_000_000), (*APPROVE, "--request", "x"), 65, "$: "),
    "a request that is no JSON": (put("x", "{"), (*APPROVE, "--request", "x"), 65, "$: "),
    "a checkpoint with half a digest": (
        no_policies,
        (*APPROVE, "--checkpoint", "ab", "--action", "checkpoint:export", "--resource", "checkpoint:x"),
        65,
        "this approval: would never count: ",
    ),
    # what the approval says
    "an end in the past": (nothing, (*SIGN, "--expires", "-1h"), 65, "--expires: found `-1h`"),
    "no time at all": (nothing, (*SIGN, "--expires", "0s"), 65, "this approval: would never count"),
    "an end too far away": (nothing, (*SIGN, "--expires", "8d"), 65, "expected at most 7 days"),
    "an end that is no duration": (nothing, (*SIGN, "--expires", "friday"), 65, "--expires: found `friday`"),
    "a limit without a tree": (nothing, (*SIGN, "--limit", "gpus=8"), 64, "--limit needs a tree"),
    "a limit without a value": (
        nothing,
        (*APPROVE, "--tree", "a" * 40, "--action", "job:submit", "--resource", "job:x", "--limit", "gpus"),
        64,
        "--limit: found `gpus`, expected NAME=VALUE",
    ),
    "a limit of nothing": (nothing, (*LIMIT, "gpus="), 64, "--limit: found `gpus=`, expected a whole number"),
    "a limit with an exponent": (
        nothing,
        (*LIMIT, "gpus=1e9"),
        64,
        "--limit: found `gpus=1e9`, expected a whole number",
    ),
    "a limit with a sign": (nothing, (*LIMIT, "gpus=-1"), 64, "--limit: found `gpus=-1`, expected a whole number"),
    "a limit without bounds": (nothing, (*LIMIT, "gpus=inf"), 64, "--limit: found `gpus=inf`, expected a whole number"),
    "an account of no letters": (nothing, (*SIGN, "--as", ""), 64, "--as: found empty text"),
    "a pattern of no letters": (nothing, (*SIGN, "--pattern", ""), 64, "--pattern: found empty text"),
    "a reason of no letters": (nothing, (*SIGN, "--reason", ""), 64, "--reason: found empty text"),
    "a pattern of another team": (nothing, (*SIGN, "--pattern", "repo:team/llm/**"), 64, "would not count for the job"),
    "a resource of another team": (
        nothing,
        (*SIGN, "--resource", "repo:team/llm/x"),
        64,
        "would not count for the job",
    ),
    "an action of another kind": (nothing, (*SIGN, "--action", "repo:write"), 64, "would not count for the job"),
    "a limit given twice": (
        nothing,
        (
            *APPROVE,
            "--tree",
            "a" * 40,
            "--action",
            "job:submit",
            "--resource",
            "job:x",
            "--limit",
            "g=1",
            "--limit",
            "g=2",
        ),
        64,
        "--limit: found `g=2`",
    ),
    "a limit beyond any number": (
        nothing,
        (
            *APPROVE,
            "--tree",
            "a" * 40,
            "--action",
            "job:submit",
            "--resource",
            "job:x",
            "--limit",
            "g=99999999999999999999",
        ),
        65,
        "this approval: would never count",
    ),
    "an account that nobody has": (
        nothing,
        ("approve", "--as", "user:nobody-here", "--reason", "r", "--request", ALLOWED, "--key", "carol.key"),
        65,
        "--as: `user:nobody-here` belongs to no person in the policies",
    ),
    "an account that is none": (
        no_policies,
        ("approve", "--as", "carol", "--reason", "r", "--request", ALLOWED, "--key", "carol.key"),
        65,
        "approver: found `carol`, expected `type:id`",
    ),
    "no reason": (nothing, ("approve", "--as", "user:carol", "--request", ALLOWED), 64, "give --reason TEXT"),
    "an empty reason": (
        nothing,
        ("approve", "--as", "user:carol", "--reason", " ", "--request", ALLOWED, "--key", "carol.key"),
        65,
        "reason: expected 1 to 1000 characters",
    ),
    # keys
    "no key": (nothing, REQUEST, 64, "give one of --key FILE, --ssh-key FILE and --payload FILE"),
    "a key that is not there": (nothing, (*REQUEST, "--key", "none"), 78, "private key `none` cannot be read"),
    "a key that the group may read": (mode("carol.key", 0o640), SIGN, 78, "has mode 0640, expected 0600"),
    "a key that is a folder": (nothing, (*REQUEST, "--key", "policies"), 78, "found a folder, expected a regular file"),
    "a key that is a FIFO": (fifo("pipe"), (*REQUEST, "--key", "pipe"), 78, "private key `pipe`"),
    "a key that is a device": (nothing, (*REQUEST, "--key", "/dev/zero"), 78, "private key `/dev/zero`"),
    "a key that is a link": (link("l", "carol.key"), (*REQUEST, "--key", "l"), 78, "found a symbolic link"),
    "a key that is text": (put("carol.key", "me"), SIGN, 78, "private key `carol.key`"),
    "a wrapped key without its passphrase": (wrapped, SIGN, 78, "key is wrapped, expected a passphrase"),
    "an SSH key that is not there": (nothing, (*SSH, "none"), 78, "none: cannot be read: no such file"),
    "an SSH key that is a FIFO": (fifo("pipe"), (*SSH, "pipe"), 78, "pipe: found a FIFO, expected a regular file"),
    "an SSH key that is a device": (nothing, (*SSH, "/dev/zero"), 78, "/dev/zero: found a device"),
    "an SSH key that is a folder": (nothing, (*SSH, "policies"), 78, "policies: found a folder"),
    "an SSH key of a megabyte": (put("x", "k" * 1_000_000), (*SSH, "x"), 78, "x: larger than 65536 bytes"),
    # where it goes
    "a payload that exists": (nothing, (*REQUEST, "--payload", "trust.yaml"), 78, "trust.yaml: exists already"),
    "a payload in a folder that is not there": (nothing, (*REQUEST, "--payload", "no/p"), 78, "no/p: cannot be"),
    "a payload over a device": (nothing, (*REQUEST, "--payload", "/dev/full"), 78, "/dev/full: exists already"),
    "a folder that is a file": (nothing, (*SIGN, "--folder", "trust.yaml"), 78, "trust.yaml: cannot be made: file ex"),
    "a folder below a file": (nothing, (*SIGN, "--folder", "trust.yaml/x"), 78, "cannot be made: not a directory"),
    "a folder that is a FIFO": (fifo("pipe"), (*SIGN, "--folder", "pipe"), 78, "pipe: cannot be made: file exists"),
    "a note without a tree": (nothing, (*SIGN, "--note"), 64, "--note needs a tree"),
    "two places": (nothing, (*SIGN, "--note", "--folder", "x"), 64, "give one of --note, --log FILE and --folder"),
    "policies that do not load": (broken_policies, SIGN, 65, "policies/broken.yaml:2:7: "),
    "no folder to list": (nothing, ("approve", "--list"), 78, "--folder is missing, expected a path"),
    # into the log
    "an addition that is not there": (nothing, (*ADD, "none"), 65, "none: cannot be read: no such file"),
    "an addition that is a FIFO": (fifo("pipe"), (*ADD, "pipe"), 65, "pipe: found a FIFO"),
    "an addition that is a device": (nothing, (*ADD, "/dev/zero"), 65, "/dev/zero: found a device"),
    "an addition of a megabyte": (put("x", "x" * 1_000_000), (*ADD, "x"), 65, "x: larger than 65536 bytes"),
    "an addition that is text": (put("x", "yes"), (*ADD, "x"), 65, "x: is not taken into the log: approval.malformed"),
    "an addition with a FIFO as signature": (
        lambda lab: (put("x", "yes")(lab), fifo("x.sig")(lab)),
        (*ADD, "x"),
        65,
        "x.sig: found a FIFO",
    ),
    "an addition to no log": (put("x", "yes"), ("approve", "--add", "x"), 78, "--log is missing, expected a path"),
    # grants
    "a grant with a key that is not there": (nothing, (*GRANTED, "none"), 78, "private key `none` cannot be read"),
    "a grant with a key that others may read": (mode("carol.key", 0o644), (*GRANTED, "carol.key"), 78, "mode 0644"),
    "a grant with a wrapped key": (wrapped, (*GRANTED, "carol.key"), 78, "key is wrapped, expected a passphrase"),
    "a grant with a FIFO as key": (fifo("pipe"), (*GRANTED, "pipe"), 78, "private key `pipe`"),
    "a grant over a file": (nothing, (*GRANT, "--key", "carol.key", "--out", "trust.yaml"), 78, "exists already"),
    "a grant over a device": (nothing, (*GRANT, "--key", "carol.key", "--out", "/dev/full"), 78, "exists already"),
    "a grant into no folder": (nothing, (*GRANT, "--key", "carol.key", "--out", "no/g"), 78, "no/g: cannot be written"),
    "a grant that is a folder": (nothing, (*GRANT, "--key", "carol.key", "--out", "policies"), 78, "exists already"),
    "a grant that ended": (
        nothing,
        ("grant", "user:ivan", "--gpus", "1", "--until", "2020-01-01T00:00:00Z", "--out", "g"),
        65,
        "--until: found `2020-01-01T00:00:00Z`, expected a time within the next 31 days",
    ),
    "a grant for too long": (nothing, ("grant", "user:i", "--gpus", "1", "--until", "32d", "--out", "g"), 65, "31 d"),
    "a grant until once": (nothing, ("grant", "user:i", "--gpus", "1", "--until", "soon", "--out", "g"), 65, "--until"),
    "a grant of no GPUs": (nothing, ("grant", "user:i", "--gpus", "0", "--until", "1d", "--out", "g"), 64, "gpus"),
    "a grant of many GPUs": (nothing, ("grant", "user:i", "--gpus", "many", "--until", "1d", "--out", "g"), 64, "gpus"),
    "a grant to a bare name": (nothing, ("grant", "ivan", "--gpus", "1", "--until", "1d", "--out", "g"), 65, "type:id"),
    "a grant without a place": (nothing, ("grant", "user:i", "--gpus", "1", "--until", "1d"), 64, "--out"),
}


@pytest.fixture
def keyed(lab: CliLab) -> CliLab:
    """The example lab with a key of carol's, which `Persons` lists."""
    key = PrivateKey(b"\2" * 32)
    write_private_key(lab.path("carol.key"), key)
    persons = lab.path("policies", "persons.yaml")
    mail = "emails: [carol@lab.example]"
    persons.write_text(persons.read_text().replace(mail, f'{mail}, keys: ["{key.public.text}"]'))
    return lab


@pytest.mark.parametrize(("spoil", "words", "code", "said"), CASES.values(), ids=list(CASES))
def test_a_mistake_approves_nothing(spoil: Spoil, words: tuple[str, ...], code: int, said: str, keyed: CliLab) -> None:
    """One clear line on standard error, the exit code of its family, nothing on standard output, no file more."""
    spoil(keyed)
    before = files_below(keyed.folder)
    ended = keyed.here(*words)
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert said in ended.complaint
    assert "mistake in policyguard" not in ended.err
    assert files_below(keyed.folder) == before


def test_without_a_mistake_each_is_written(keyed: CliLab) -> None:
    """The twins: the same words on what is as it should be."""
    assert keyed.here(*SIGN, "--pattern", "repo:team/vision/**").code == 0
    assert keyed.here(*REQUEST, "--payload", "payload.json").code == 0
    assert keyed.here(*GRANTED, "carol.key").code == 0
    approvals = [path.name for path in keyed.path("approvals").iterdir()]
    assert len(approvals) == 1
    assert {"payload.json", "grants.json"} <= set(files_below(keyed.folder))


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
@pytest.mark.parametrize("what", ["encrypted", "text", "public"])
def test_an_ssh_key_that_cannot_sign_is_reported(what: str, keyed: CliLab) -> None:
    """Encrypted with nobody there to ask, no key at all, or half of one: ssh-keygen's own words, on one line."""
    key = keyed.path("ssh")
    if what == "text":
        key.write_text("me\n")
        key.chmod(0o600)
    else:
        phrase = "secret" if what == "encrypted" else ""
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", phrase, "-C", "", "-f", str(key)]
        subprocess.run(make, check=True)
        if what == "public":
            key.unlink()
            key = keyed.path("ssh.pub")
    before = files_below(keyed.folder)
    ended = keyed.process(*SSH, key.name, before=os.setsid)
    assert (ended.code, ended.out) == (78, "")
    assert f"ssh-keygen did not sign with `{key.name}`: " in ended.complaint
    assert files_below(keyed.folder) == before


def test_who_may_not_write_is_reported(keyed: CliLab, tmp_path: Path) -> None:
    """A folder that is not writable, a request that may not be read; root may do both, so it is nobody meanwhile."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    keyed.path("closed").mkdir(mode=0o755)
    keyed.path("secret.json").write_text("{}")
    keyed.path("secret.json").chmod(0o600)
    opened = [parent for parent in (keyed.folder, *keyed.folder.parents) if not parent.stat().st_mode & 0o001]
    modes = [(parent, parent.stat().st_mode) for parent in opened]
    before = files_below(keyed.folder)
    cases: tuple[tuple[tuple[str, ...], int, str], ...] = (
        ((*REQUEST, "--payload", "closed/p"), 78, "closed/p: cannot be written: permission denied"),
        ((*APPROVE, "--request", "secret.json"), 65, "secret.json: cannot be read: permission denied"),
    )
    for parent in opened:
        parent.chmod(0o711)
    try:
        for words, code, said in cases:
            os.seteuid(65534)
            try:
                ended = keyed.here(*words)
            finally:
                os.seteuid(0)
            assert (ended.code, ended.out) == (code, "")
            assert said in ended.complaint
    finally:
        for parent, bits in modes:
            parent.chmod(bits)
    assert files_below(keyed.folder) == before


def test_a_full_file_system_leaves_no_half_of_an_approval(keyed: CliLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written to its end is taken away again; with room the same words write it."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    ask: Callable[[], int] = lambda: keyed.here(*SIGN).code  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert ask() == 78
    assert list(keyed.path("approvals").iterdir()) == []
    assert ask() == 0
