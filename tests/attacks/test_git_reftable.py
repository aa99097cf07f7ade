"""Repositories that keep their references in a reftable: tables that git 2.49 wrote, and spoiled ones."""

from __future__ import annotations

import os
import struct
import tarfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from policyguard.errors import EvidenceError
from policyguard.evidence.push.session import PushSession
from policyguard.evidence.push.updates import RefUpdate
from policyguard.git.directory import GitDir, bare_gitdir, find_gitdir
from policyguard.git.refs import References, history_overrides
from policyguard.git.reftable import records, stacked_refs

DATA = Path(__file__).parents[1] / "data" / "reftable"


def unpacked(name: str, folder: Path) -> GitDir:
    """Return a fixture as a repository on disk; `make_fixtures.sh` beside it says how it was written."""
    with tarfile.open(DATA / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return bare_gitdir(os.path.realpath(folder / name), {os.geteuid(), 0})


def listed(name: str) -> dict[str, str]:
    """Return what the git that wrote the fixture lists."""
    lines = (DATA / f"{name}.txt").read_text().splitlines()
    return {ref: oid for oid, ref in (line.split(" ") for line in lines)}


def newest(git: GitDir) -> Path:
    """Return the table that is read last."""
    folder = Path(git.shared, "reftable")
    return folder / (folder / "tables.list").read_text().split()[-1]


@pytest.mark.parametrize("name", ["stack", "blocks", "sha256"])
def test_a_reftable_is_read_as_git_reads_it(name: str, tmp_path: Path) -> None:
    """Every reference, each by name too, HEAD through its branch; what was deleted is not there."""
    git = unpacked(name, tmp_path)
    expected = listed(name)
    assert References(git).all() == expected
    references = References(git)
    assert {ref: references.id_of(ref.encode()) for ref in list(expected)[:20]} == dict(list(expected.items())[:20])
    assert References(git).head() == (expected["refs/heads/main"], "main")
    assert References(git).head_content() == b"ref: refs/heads/main"
    assert References(git).id_of(b"refs/heads/b") is None
    assert history_overrides(git) == ()


def test_a_push_to_a_reftable_repository_is_judged(tmp_path: Path) -> None:
    """Ancestry, the present value, and no reference that `packed-refs` could keep alive."""
    git = unpacked("stack", tmp_path)
    refs = listed("stack")
    old, new = refs["refs/heads/a"], refs["refs/heads/main"]
    session = PushSession(git.shared, {}, {os.geteuid(), 0})
    with session:
        (seen,) = session.measure((RefUpdate(old=old, new=new, ref="refs/heads/a"),))
    assert (seen.change, seen.commits) == ("update", 1)
    assert session.current("refs/heads/a") == old
    Path(git.shared, "packed-refs").write_text(f"{old} refs/heads/a\n")
    assert not session.stays_packed_after_delete("refs/heads/a", old)


def test_a_replacement_in_a_reftable_is_seen(tmp_path: Path) -> None:
    """A record of `refs/replace/...` closes the repository as a file would."""
    git = unpacked("stack", tmp_path)
    add(git, b"refs/replace/" + b"a" * 40, bytes(20))
    assert history_overrides(git) == ("replace_refs",)


@pytest.mark.parametrize(
    ("configured", "folder", "is_read"),
    [
        ("reftable", True, True),
        ("files", True, False),
        ("", True, False),
        ("reftable", False, False),
        ("files", False, True),
        ("", False, True),
        ("reftable:///srv/elsewhere", True, False),
        ("sqlite", False, False),
        ("files\n\trefstorage = reftable", True, False),
        ("\\\nreftable", True, False),
    ],
)
def test_references_have_one_storage(configured: str, folder: bool, is_read: bool, tmp_path: Path) -> None:
    """INVARIANT I16: where configuration and files disagree nobody can tell which references git obeys."""
    git = unpacked("stack", tmp_path)
    extension = f"[extensions]\n\trefStorage = {configured}\n" if configured else ""
    Path(git.shared, "config").write_text(f"[core]\n\trepositoryformatversion = 1\n{extension}")
    if not folder:
        Path(git.shared, "reftable").rename(tmp_path / "away")
    if is_read:
        References(git).all()
    else:
        for read in (References, history_overrides):
            with pytest.raises(EvidenceError, match=r"refStorage is .* reftable"):
                read(git)


def test_a_linked_working_tree_has_a_stack_of_its_own(tmp_path: Path) -> None:
    """HEAD is read from the working tree's own tables, branches from the shared ones."""
    shared = unpacked("stack", tmp_path)
    tree, own = tmp_path / "tree", Path(shared.shared, "worktrees", "tree")
    tree.mkdir()
    (own / "reftable").mkdir(parents=True)
    (own / "commondir").write_text("../..\n")
    (own / "HEAD").write_text("ref: refs/heads/.invalid\n")
    (tree / ".git").write_text(f"gitdir: {own}\n")
    (own / "reftable" / "tables.list").write_text("one.ref\n")
    (own / "reftable" / "one.ref").write_bytes(table(record(b"HEAD", 3, b"\x0crefs/heads/a")))
    git = find_gitdir(str(tree), {os.geteuid(), 0})
    assert References(git).head() == (listed("stack")["refs/heads/a"], "a")


@pytest.mark.parametrize("at", range(0, 68, 3))
def test_a_flipped_bit_in_the_frame_is_refused(at: int, tmp_path: Path) -> None:
    """Header and footer say the same under a checksum; a flip anywhere in either is one line."""
    git = unpacked("stack", tmp_path)
    path = newest(git)
    data = bytearray(path.read_bytes())
    data[at if at < 24 else len(data) - 68 + at] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(EvidenceError, match="damaged reftable"):
        References(git).all()


def test_no_bytes_raise_anything_else(tmp_path: Path) -> None:
    """Each byte of a table changed, and each prefix of it: references or a refusal, never another error."""
    git = unpacked("sha256", tmp_path)
    data = newest(git).read_bytes()
    newest(git).chmod(0o644)
    for at in range(len(data)):
        for spoiled in (data[:at], data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]):
            newest(git).write_bytes(spoiled)
            with suppress(EvidenceError):
                References(git).all()


SPOILED: dict[str, tuple[Callable[[], list[bytes]], str]] = {
    "names out of order": (lambda: [record(b"refs/b", 0), record(b"refs/a", 0)], "not in order"),
    "a name twice": (lambda: [record(b"refs/a", 0), record(b"refs/a", 0)], "not in order"),
    "a prefix of nothing": (lambda: [record(b"refs/a", 0, prefix=9)], "longer than its block"),
    "a value of an unknown type": (lambda: [record(b"refs/a", 5)], "type 5"),
    "a value beyond the block": (lambda: [record(b"refs/a", 1, b"xx")], "longer than its block"),
    "a number without an end": (lambda: [b"\xff" * 40], "too large"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_malformed_table_is_refused(name: str, tmp_path: Path) -> None:
    """Under a good checksum, which anybody can compute; the twin beside it is read."""
    make, said = SPOILED[name]
    (tmp_path / "tables.list").write_text("one.ref\n")
    (tmp_path / "one.ref").write_bytes(table(*make()))
    with pytest.raises(EvidenceError, match=said):
        stacked_refs(str(tmp_path))
    (tmp_path / "one.ref").write_bytes(table(record(b"refs/a", 0), record(b"refs/b", 1, bytes(20))))
    assert stacked_refs(str(tmp_path)) == {b"refs/b": b"00" * 20}


@pytest.mark.parametrize("names", ["../one.ref\n", "a/b.ref\n", "none.ref\n", "one.ref\n" * 1001, ".hidden\n"])
def test_a_list_that_names_anything_else_is_refused(names: str, tmp_path: Path) -> None:
    """Only plain names of files that are there."""
    (tmp_path / "tables.list").write_text(names)
    (tmp_path / "one.ref").write_bytes(table())
    with pytest.raises(EvidenceError):
        stacked_refs(str(tmp_path))


def test_a_table_that_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    """A FIFO would hang, a link leads elsewhere."""
    (tmp_path / "tables.list").write_text("one.ref\n")
    os.mkfifo(tmp_path / "one.ref")
    with pytest.raises(EvidenceError, match="found a FIFO"):
        stacked_refs(str(tmp_path))


def test_an_empty_table_holds_nothing() -> None:
    """A header and a footer, as git writes for a stack without references."""
    assert list(records(table())) == []


def record(name: bytes, kind: int, value: bytes = b"", *, prefix: int = 0) -> bytes:
    """Return one record; names and values here are shorter than what needs a second byte."""
    assert len(name) < 16
    return bytes([prefix, len(name) << 3 | kind]) + name + b"\0" + value


def table(*written: bytes) -> bytes:
    """Return an unaligned table of version 1 with one block of these records, under a good checksum."""
    header = b"REFT\x01\0\0\0" + struct.pack(">QQ", 1, 1)
    body = b"".join(written)
    length = len(header) + 4 + len(body) + 5
    block = b"r" + length.to_bytes(3, "big") + body + (28).to_bytes(3, "big") + b"\0\x01" if written else b""
    footer = header + bytes(40)
    return header + block + footer + struct.pack(">I", zlib.crc32(footer))


def add(git: GitDir, name: bytes, oid: bytes) -> None:
    """Put one more table with one reference on top of the stack."""
    folder = Path(git.shared, "reftable")
    long = bytes([0, 0x80 | (len(name) * 8 + 1 >> 7) - 1, len(name) * 8 + 1 & 0x7F]) + name + b"\0" + oid
    (folder / "added.ref").write_bytes(table(long))
    with (folder / "tables.list").open("a") as file:
        file.write("added.ref\n")
