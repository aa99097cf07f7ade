"""`scan` and `manifest` on what is no checkpoint: one line each, the right code, nothing written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.attacks.checkpoint_lab import EVIL
from tests.e2e.cli_lab import CliLab, files_below

BY = ("--producer", "service:run-1", "--run", "r1")
KEYS = ("--producer-key", "service:run-1=run.key.pub")


@pytest.fixture
def shop(lab: CliLab) -> CliLab:
    """A lab with a checkpoint, its signed manifest, and everything that is none."""
    for name in ("run.key", "other.key"):
        assert lab.here("keys", "new", name).code == 0
    for name in ("good", "signed", "empty", "piped", "linked", "blocked"):
        lab.path(name).mkdir()
    for name in ("good", "signed", "blocked"):
        lab.path(name, "a.json").write_text("{}")
    os.mkfifo(lab.path("pipe"))
    os.mkfifo(lab.path("piped", "p"))
    lab.path("loop").symlink_to("loop")
    lab.path("linked", "out.json").symlink_to("/etc/hostname")
    lab.path("linked", "dangling").symlink_to("none")
    lab.path("blocked", "checkpoint.dsse.json").mkdir()
    lab.path("evil.pkl").write_bytes(EVIL)
    lab.path("loose.key").write_bytes(lab.path("run.key").read_bytes())
    lab.path("loose.key").chmod(0o644)
    lab.path("text").write_text("text")
    assert lab.here("manifest", "sign", "signed", "--key", "run.key", *BY, "--step", "1").code == 0
    return lab


SCANS = {
    "a path that is not there": (("none",), "ckpt.missing"),
    "an empty path is the folder, and not all in it is clean": (("",), "ckpt.pickle_global"),
    "a path below a file": (("evil.pkl/x",), "ckpt.missing"),
    "a name too long": (("x" * 300,), "ckpt.unreadable"),
    "a FIFO": (("pipe",), "ckpt.not_regular"),
    "a FIFO in a folder": (("piped",), "ckpt.not_regular"),
    "an endless device": (("/dev/zero",), "ckpt.not_regular"),
    "a link to itself": (("loop",), "ckpt.symlink"),
    "links that leave the folder or lead nowhere": (("linked",), "ckpt.symlink"),
    "an empty folder": (("empty",), "0 files, 0 bytes"),
}


@pytest.mark.parametrize(("words", "said"), SCANS.values(), ids=list(SCANS))
def test_what_cannot_be_scanned_is_not_clean(words: tuple[str, ...], said: str, shop: CliLab) -> None:
    """Each is told by its reason and the code is 1, also where a good checkpoint is scanned with it."""
    before = files_below(shop.folder)
    ended = shop.here("scan", *words)
    assert (ended.code, ended.err) == (1, "")
    assert said in ended.out
    beside = shop.here("scan", *words, "good")
    assert (beside.code, beside.err) == (0 if words == ("empty",) else 1, "")
    assert "good/a.json" in beside.out
    assert files_below(shop.folder) == before


CASES = {
    "a digest cache in no folder": (("scan", "good", "--cache", "none/c"), 78, "digest cache folder `none`"),
    "a folder as a digest cache": (
        ("scan", "good", "--cache", "empty"),
        78,
        "digest cache `empty`: found a folder, expected",
    ),
    "a FIFO as a digest cache": (
        ("scan", "good", "--cache", "pipe"),
        78,
        "digest cache `pipe`: found a FIFO, expected",
    ),
    "a digest cache that others may read": (("scan", "good", "--cache", "text"), 78, "digest cache `text` is not"),
    "a class without a module": (("scan", "good", "--class", "x"), 64, "--class: found `x`, expected MODULE.NAME"),
    "no path": (("scan",), 64, "missing argument"),
    # signing
    "no checkpoint": (("sign", "none"), 69, "`none`: there is no such file"),
    "a FIFO to sign": (("sign", "pipe"), 69, "`pipe`: not a regular file"),
    "a folder with a FIFO": (("sign", "piped"), 69, "`piped/p`: not a regular file"),
    "a link to itself to sign": (("sign", "loop"), 69, "`loop`: a symbolic link"),
    "a folder with links": (("sign", "linked"), 69, "`linked/dangling`: there is no such file"),
    "an empty folder to sign": (("sign", "empty"), 69, "`empty`: found no files, expected at least one"),
    "what is hostile": (("sign", "evil.pkl"), 69, "expected nothing hostile in a manifest"),
    "a folder in the manifest's place": (("sign", "blocked"), 78, "blocked/checkpoint.dsse.json: found a folder"),
    "a device to sign, nowhere to write": (("sign", "/proc/version"), 78, "/proc/version.dsse.json: cannot be written"),
    "no key": (("sign", "good", "--key", "none"), 78, "private key `none` cannot be read: no such file"),
    "a key that others may read": (("sign", "good", "--key", "loose.key"), 78, "has mode 0644, expected 0600"),
    "a FIFO as a key": (("sign", "good", "--key", "pipe"), 78, "pipe"),
    "a producer without a type": (("sign", "good", "--producer", "r"), 64, "--producer: found `r`, expected `type:id`"),
    "a run without a name": (("sign", "good", "--run", ""), 64, "--run: found no name, expected one"),
    "a step before the first": (("sign", "good", "--step", "-1"), 64, "--step: found -1, expected a count"),
    "no step before": (("sign", "good", "--previous", "none"), 78, "none.dsse.json: cannot be read: no such file"),
    "a step before without a manifest": (
        ("sign", "good", "--previous", "empty"),
        78,
        "empty/checkpoint.dsse.json: cannot be read",
    ),
    "a step before that is this one": (
        ("sign", "good", "--previous", "signed", "--step", "1"),
        77,
        "V7: step 1 does not come after step 1",
    ),
    "a step before of another run": (
        ("sign", "good", "--previous", "signed", "--run", "r2"),
        77,
        "V7: run is `r2` of `service:run-1`, expected",
    ),
    "a step before of an unknown producer": (
        ("sign", "good", "--previous", "signed", "--producer", "service:o", "--key", "other.key"),
        77,
        "V4: ",
    ),
    "a step before of another producer": (
        ("sign", "good", "--previous", "signed", "--producer", "service:o", "--key", "other.key", *KEYS),
        77,
        "V7: run is `r1` of `service:o`, expected `r1` of `service:run-1`",
    ),
    "a step before that is signed by another key": (
        ("sign", "good", "--previous", "signed", "--key", "other.key"),
        77,
        "V4: 0 of the trusted keys signed this",
    ),
    # verifying
    "no manifest": (("verify", "good", *KEYS), 78, "good/checkpoint.dsse.json: cannot be read: no such file"),
    "a folder as a manifest": (("verify", "blocked", *KEYS), 78, "blocked/checkpoint.dsse.json: found a folder"),
    "nobody to trust": (("verify", "signed"), 78, "no producer is known"),
    "a producer without a key": (("verify", "signed", "--producer-key", "service:r"), 64, "expected TYPE:ID=KEY"),
    "a producer's key that is not there": (
        ("verify", "signed", "--producer-key", "service:run-1=none"),
        78,
        "public key `none` cannot be read",
    ),
    "a producer's key that is none": (
        ("verify", "signed", "--producer-key", "service:run-1=ed25519:x"),
        78,
        "found no public key",
    ),
    "another producer's key": (
        ("verify", "signed", "--producer-key", "service:run-1=other.key.pub"),
        77,
        "V4: 0 of the trusted keys",
    ),
}


@pytest.mark.parametrize(("words", "code", "said"), CASES.values(), ids=list(CASES))
def test_what_cannot_be_used_is_reported(words: tuple[str, ...], code: int, said: str, shop: CliLab) -> None:
    """One line on standard error, nothing on standard output, no file more and none changed."""
    if words[0] in ("sign", "verify"):
        # The last of an option counts, so a case can replace any of these.
        usual = ("--key", "run.key", *BY, "--step", "2") if words[0] == "sign" else ()
        words = ("manifest", words[0], *usual, *words[1:])
    before = {path: shop.path(path).lstat().st_mtime_ns for path in files_below(shop.folder)}
    ended = shop.here(*words)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.complaint
    assert "mistake in policyguard" not in ended.err
    assert {path: shop.path(path).lstat().st_mtime_ns for path in files_below(shop.folder)} == before


def test_the_twins_are_accepted(shop: CliLab) -> None:
    """The same verbs on a good checkpoint: scanned, signed after the step before, verified as one chain."""
    assert shop.here("scan", "good", "--cache", "cache", "--class", "lab.Settings").code == 0
    signed = shop.here("manifest", "sign", "good", "--key", "run.key", *BY, "--step", "2", "--previous", "signed")
    assert (signed.code, signed.err) == (0, "")
    assert shop.here("manifest", "verify", "signed", "good", *KEYS).code == 0


def test_a_broken_chain_is_one_line(shop: CliLab) -> None:
    """What was verified is told before; the same checkpoint twice is no chain."""
    ended = shop.here("manifest", "verify", "signed", "signed", *KEYS)
    assert ended.code == 77
    assert ended.complaint.startswith("policyguard: V7: previous is not there")


@pytest.mark.parametrize(
    "name", [b"a\nCLEAN    json         b", b"a\x1b[2Jb", b"a\xc2\x9bb", b"a\xff\xfeb", "a\u202eb".encode()]
)
def test_a_name_cannot_write_a_line(name: bytes, shop: CliLab) -> None:
    """INVARIANT I7: files, folders and runs with such names are scanned, signed, verified and refused on one line."""
    folder = Path(os.fsdecode(name))
    for each in (folder, Path("other") / folder):
        shop.path(str(each)).mkdir(parents=True)
        shop.path(str(each), os.fsdecode(name) + ".json").write_text("{}")
    sign = ("manifest", "sign", str(folder), "--key", "run.key", "--producer", "service:r", "--step", "1", "--run")
    for words, code, count in (
        (("scan", str(folder)), 0, 2),
        ((*sign, "a\nb"), 0, 1),
        (("manifest", "verify", str(folder), "--producer-key", "service:r=run.key.pub"), 0, 1),
        (("manifest", "verify", f"other/{folder}", "--producer-key", "service:r=run.key.pub"), 78, 1),
        (("scan", f"{folder}.none"), 1, 3),
    ):
        ended = shop.process(*words)
        printed = ended.out + ended.err
        assert (ended.code, len(printed.splitlines())) == (code, count), printed
        assert all(line.isprintable() for line in printed.splitlines())


def test_a_folder_that_may_not_be_read_is_not_clean(shop: CliLab) -> None:
    """Its own line and code 1 when scanned, one line and code 69 when signed; root becomes nobody for this."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    shop.path("good").chmod(0o700)
    opened = [parent for parent in shop.folder.parents if not parent.stat().st_mode & 0o001]
    for parent in opened:
        parent.chmod(0o711)
    os.seteuid(65534)
    try:
        scanned = shop.here("scan", "good")
    finally:
        os.seteuid(0)
        for parent in opened:
            parent.chmod(0o700)
    assert scanned.code == 1
    assert "ckpt.unreadable" in scanned.out or "ckpt.not_regular" in scanned.out
