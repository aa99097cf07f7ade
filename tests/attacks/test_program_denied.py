"""The incident's programs against the example policies: 16 GPUs, real git, and a command that runs something else."""

from __future__ import annotations

import os
import py_compile
import shutil
import subprocess
import sys
import zipapp
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from policyguard.audit.receipt import SignedDecision
from policyguard.demo.incident.lab import Lab
from tests.e2e.cli_lab import operator_words

EVIL = "import os, sys\nopen(os.environ.get('MARKER', '/dev/null'), 'w').close()\n"
GPUS = 16


FOLDERS = ("code", "trainer.git")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("incident") / "lab")
    for name in FOLDERS:
        shutil.copytree(lab.root / name, lab.root / "stored" / name)
    yield lab
    lab.close()


@pytest.fixture
def lab(built: Lab) -> Iterator[Lab]:
    """The lab of the incident, with its first commit; what a test leaves in the repositories goes."""
    elsewhere = built.root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x.py").write_text(EVIL)
    yield built
    shutil.rmtree(elsewhere)
    for name in FOLDERS:
        shutil.rmtree(built.root / name)
        shutil.copytree(built.root / "stored" / name, built.root / name)


def decided(lab: Lab, *argv: str, gpus: int = GPUS) -> SignedDecision:
    return lab.decide(*lab.job("bob", "bob-16", gpus, argv=argv))


def in_a_nested_repository(lab: Lab) -> tuple[str, ...]:
    nested = lab.code / "nested"
    nested.mkdir()
    (nested / "x.py").write_text(EVIL)
    subprocess.run(["git", "init", "-q", str(nested)], check=True)
    (nested / ".git" / "y.py").write_text(EVIL)
    return (lab.python, "nested/.git/y.py")


def in_the_git_folder(lab: Lab) -> tuple[str, ...]:
    (lab.code / ".git" / "x.py").write_text(EVIL)
    return (lab.python, ".git/x.py")


def byte_code(lab: Lab) -> tuple[str, ...]:
    (lab.code / "__pycache__").mkdir()
    py_compile.compile(str(lab.root / "elsewhere" / "x.py"), cfile=str(lab.code / "__pycache__" / "e.pyc"))
    return (lab.python, "__pycache__/e.pyc")


def in_a_folder_that_ignores_itself(lab: Lab) -> tuple[str, ...]:
    hidden = lab.code / "hidden"
    hidden.mkdir()
    (hidden / ".gitignore").write_text("*\n")
    (hidden / "x.py").write_text(EVIL)
    return (lab.python, "hidden/x.py")


def zip_application(lab: Lab) -> tuple[str, ...]:
    source = lab.root / "elsewhere" / "app"
    source.mkdir()
    (source / "__main__.py").write_text(EVIL)
    zipapp.create_archive(source, lab.code / "app.pyz")
    return (lab.python, "app.pyz")


def committed_zip_application(lab: Lab) -> tuple[str, ...]:
    zip_application(lab)
    lab.commit("an archive", who="bob")
    return (lab.python, "app.pyz")


def lfs_pointer(lab: Lab) -> tuple[str, ...]:
    """The commit holds a pointer; the working tree holds what a smudge filter fetched from a server."""
    data = EVIL.encode()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize {len(data)}\n"
    (lab.code / ".gitattributes").write_text("fetched.py filter=lfs\n")
    (lab.code / "fetched.py").write_text(pointer)
    lab.commit("a pointer", who="bob")
    (lab.code / "fetched.py").write_bytes(data)
    return (lab.python, "fetched.py")


def lfs_pointer_of_the_right_digest(lab: Lab) -> tuple[str, ...]:
    """The file has the digest of the pointer: it is clean, and its content was in no review."""
    data = (lab.root / "elsewhere" / "x.py").read_bytes()
    digest = subprocess.run(["sha256sum"], input=data, capture_output=True, check=True).stdout.split()[0].decode()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n"
    (lab.code / ".gitattributes").write_text("fetched.py filter=lfs\n")
    (lab.code / "fetched.py").write_text(pointer)
    lab.commit("a pointer", who="bob")
    (lab.code / "fetched.py").write_bytes(data)
    return (lab.python, "fetched.py")


def link_out_of_the_repository(lab: Lab) -> tuple[str, ...]:
    (lab.code / "link.py").symlink_to(lab.root / "elsewhere" / "x.py")
    lab.commit("a link", who="bob")
    return (lab.python, "link.py")


def changed_after_the_commit(lab: Lab) -> tuple[str, ...]:
    (lab.code / "train.py").write_text(EVIL)
    lab.git("update-index", "--assume-unchanged", "train.py")
    return (lab.python, "train.py")


def folder_of_a_link(lab: Lab) -> tuple[str, ...]:
    """Python imports from the folder that is named, whatever its `__main__.py` is a link to."""
    folder = lab.root / "elsewhere" / "folder"
    folder.mkdir()
    (folder / "__main__.py").symlink_to(lab.code / "train.py")
    return (lab.python, str(folder))


PROGRAMS: dict[str, tuple[Callable[[Lab], tuple[str, ...]], str]] = {
    "a script elsewhere": (lambda lab: (lab.python, str(lab.root / "elsewhere" / "x.py")), "code.other_program"),
    "the same, by a relative name": (lambda lab: (lab.python, "../elsewhere/x.py"), "code.other_program"),
    "a file in .git": (in_the_git_folder, "code.other_program"),
    "a file in a nested .git": (in_a_nested_repository, "code.other_program"),
    "byte code": (byte_code, "code.other_program"),
    "text": (lambda lab: (lab.python, "-c", EVIL), "code.other_program"),
    "a debugger with text": (lambda lab: (lab.python, "-m", "pdb", "-c", EVIL, "train.py"), "code.other_program"),
    "text of a shell": (lambda _: ("bash", "-c", "true; python3 /tmp/x.py"), "code.other_program"),
    "a string of env": (
        lambda lab: ("env", "-S", lab.python, "-u", str(lab.root / "elsewhere" / "x.py"), "train.py"),
        "code.other_program",
    ),
    "a shell that takes arguments as variables": (
        lambda lab: ("bash", "-kc", f"{lab.python} train.py PATH=/tmp"),
        "code.other_program",
    ),
    "a folder of a link": (folder_of_a_link, "code.other_program"),
    "standard input": (lambda lab: (lab.python, "-"), "code.other_program"),
    "a folder that ignores itself": (in_a_folder_that_ignores_itself, "code.other_program"),
    "a zip application": (zip_application, "code.other_program"),
    "a committed zip application": (committed_zip_application, "code.other_program"),
    "an LFS pointer": (lfs_pointer, "code.other_program"),
    "an LFS pointer that fits": (lfs_pointer_of_the_right_digest, "code.other_program"),
    "a link out of the repository": (link_out_of_the_repository, "code.other_program"),
    "a file that git was asked not to look at": (changed_after_the_commit, "code.other_program"),
}


@pytest.mark.parametrize(("prepare", "reason"), PROGRAMS.values(), ids=PROGRAMS)
def test_a_medium_job_runs_nothing_but_a_file_of_the_commit(
    lab: Lab, prepare: Callable[[Lab], tuple[str, ...]], reason: str
) -> None:
    """Denied by the program; the committed script, one step away, is allowed with the same facts."""
    signed = decided(lab, *prepare(lab))
    assert not signed.decision.allowed
    assert reason in signed.decision.reason_codes, signed.decision.explain()


def test_the_committed_script_of_the_lab_is_allowed(lab: Lab) -> None:
    signed = decided(lab)
    assert signed.decision.allowed, signed.decision.explain()


def own_repository(lab: Lab) -> None:
    """A signed, clean commit on the accepted one, that was never pushed."""
    (lab.code / "train.py").open("a").write("# mine\n")
    lab.commit("mine", who="bob")
    lab.git("push", "--quiet", "--force", str(lab.root / "trainer.git"), "HEAD~1:refs/heads/main")


def other_history(lab: Lab) -> None:
    """A new root commit with the accepted tree."""
    lab.git("checkout", "--quiet", "--orphan", "other")
    (lab.root / "trainer.git" / "refs" / "heads" / "main").unlink()
    lab.commit("a root of my own", who="bob")
    lab.git("push", "--quiet", "--force", str(lab.root / "trainer.git"), "main:refs/heads/main")


def only_as_an_object(lab: Lab) -> None:
    """The operator's repository has the commit, and no reference that counts reaches it."""
    own_repository(lab)
    lab.git("push", "--quiet", str(lab.root / "trainer.git"), "HEAD:refs/notes/mine")


def remote_of_the_lab(lab: Lab) -> None:
    """The repository says that it comes from the lab's."""
    own_repository(lab)
    lab.git("config", "remote.origin.url", str(lab.root / "trainer.git"))
    lab.git("update-ref", "refs/remotes/origin/main", "HEAD")


def grafted_below(lab: Lab) -> None:
    """A replacement shows the accepted commit in the place of one's own."""
    accepted = lab.git("rev-parse", "HEAD")
    own_repository(lab)
    lab.git("replace", lab.git("rev-parse", "HEAD"), accepted)


@pytest.mark.parametrize(
    "prepare", [own_repository, other_history, only_as_an_object, remote_of_the_lab, grafted_below]
)
def test_a_repository_of_ones_own_is_foreign_history(lab: Lab, prepare: Callable[[Lab], None]) -> None:
    """Clean and signed, and not in the history that the operator accepts; a small job may run it."""
    prepare(lab)
    signed = decided(lab)
    assert not signed.decision.allowed
    assert "code.foreign_history" in signed.decision.reason_codes, signed.decision.explain()
    assert "code.unsigned" not in signed.decision.reason_codes
    if prepare is not grafted_below:
        assert decided(lab, gpus=8).decision.allowed


def test_a_pushed_commit_is_accepted_history(lab: Lab) -> None:
    (lab.code / "train.py").open("a").write("# mine\n")
    lab.commit("mine", who="bob")
    signed = decided(lab)
    assert signed.decision.allowed, signed.decision.explain()


def test_an_unsigned_commit_runs_no_medium_job(lab: Lab) -> None:
    (lab.code / "train.py").open("a").write("# mine\n")
    lab.git("commit", "--all", "--quiet", "--message", "mine", who="bob")
    lab.git("push", "--quiet", str(lab.root / "trainer.git"), "HEAD:refs/heads/main")
    signed = decided(lab)
    assert signed.decision.reason_codes[0] == "code.unsigned", signed.decision.explain()
    assert decided(lab, gpus=8).decision.allowed


@pytest.mark.parametrize("part", ["", "refs", "refs/heads", "objects", "objects/pack", "HEAD"])
def test_a_repository_that_others_may_write_to_accepts_nothing(lab: Lab, part: str) -> None:
    """A member of a group could move a reference, or add a pack that shows another history."""
    path = lab.root / "trainer.git" / part
    mode = path.stat().st_mode
    path.chmod(mode | 0o020)
    try:
        signed = decided(lab)
    finally:
        path.chmod(mode)
    assert not signed.decision.allowed
    assert "resource.accepted_history is missing" in signed.decision.explain()
    assert decided(lab).decision.allowed


def test_the_process_does_not_start(tmp_path: Path) -> None:
    """`policyguard run`, with real processes: exit code 77, and no marker."""
    lab = Lab(tmp_path / "lab")
    lab.close()
    (lab.root / "elsewhere").mkdir()
    (lab.root / "elsewhere" / "x.py").write_text(EVIL)
    marker, job = lab.root / "marker", lab.root / "job.yaml"
    job.write_text(f"subject: user:bob\nresource: job:team/vision/r\nproperties: {{gpus: {GPUS}}}\n")
    words = operator_words(
        ("run", "--job", str(job), "--", lab.python, "../elsewhere/x.py"), lab.root / "policyguard.yaml", "user:bob"
    )
    start = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); "
    ended = subprocess.run(
        [sys.executable, "-P", "-c", start + "from policyguard.cli.main import main; main()", *words],
        cwd=lab.code,
        env={"PATH": os.environ["PATH"], "MARKER": str(marker)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 77, ended.stderr
    assert "code.other_program" in ended.stderr + ended.stdout
    assert not marker.exists()
