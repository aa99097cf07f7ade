"""Hostile pushes and repositories, against the real collector and real git: nothing unmeasured is believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policyguard.errors import EvidenceError
from policyguard.evidence.push.session import PushSession
from policyguard.evidence.push.updates import MeasuredUpdate, RefUpdate, parse_updates
from tests.attacks.git_lab import git

ZEROS = "0" * 40
MAIN = "refs/heads/main"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with one commit of `a.py` on main."""
    root = tmp_path / "repo"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    commit(root, "a.py")
    return root


def commit(root: Path, name: str | bytes, text: str = "x") -> str:
    path = os.path.join(os.fsencode(root), os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "more")
    return git(root, "rev-parse", "HEAD")


def seen(root: Path, old: str | None, new: str | None, ref: str = MAIN, **environment: str) -> MeasuredUpdate:
    with PushSession(str(root), environment, {os.geteuid(), 0}) as session:
        (found,) = session.measure((RefUpdate(old=old, new=new, ref=ref),))
    return found


def head(root: Path) -> str:
    return git(root, "rev-parse", "HEAD")


def test_a_plain_push_is_measured(repo: Path) -> None:
    """The twin of all that follow: one commit, one path, an update."""
    old = head(repo)
    found = seen(repo, old, commit(repo, "train/optim/adamw.py"))
    assert (found.change, found.commits, found.paths) == ("update", 1, {"train/optim/adamw.py"})
    assert found.accounts == {"unknown:a@lab"}


def test_a_change_that_a_later_commit_takes_back_is_seen(repo: Path) -> None:
    """The trees before and after are equal; the history in between is not."""
    old = head(repo)
    commit(repo, "train/optim/adamw.py")
    git(repo, "rm", "-q", "train/optim/adamw.py")
    git(repo, "commit", "-qm", "less")
    found = seen(repo, old, head(repo))
    assert "train/optim/adamw.py" in found.paths
    assert found.commits == 2


def test_an_evil_merge_is_seen(repo: Path) -> None:
    """What a merge changes that no parent had counts; what it only brings together is its parents' business."""
    old = head(repo)
    git(repo, "checkout", "-qb", "topic")
    commit(repo, "topic.py")
    git(repo, "checkout", "-q", "main")
    commit(repo, "other.py")
    git(repo, "merge", "-q", "--no-ff", "--no-commit", "topic")
    (repo / "smuggled.py").write_text("x")
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "merge")
    assert seen(repo, old, head(repo)).paths == {"topic.py", "other.py", "smuggled.py"}


def test_merging_main_into_a_branch_does_not_count_main(repo: Path) -> None:
    """The branch is judged for its own commits, not for those that main has already."""
    git(repo, "checkout", "-qb", "topic")
    commit(repo, "topic.py")
    git(repo, "checkout", "-q", "main")
    main = commit(repo, "train/optim/adamw.py")
    git(repo, "checkout", "-q", "topic")
    git(repo, "merge", "-q", "--no-edit", "main")
    assert seen(repo, main, head(repo)).paths == {"topic.py"}


def test_a_rewrite_is_found_by_ancestry(repo: Path) -> None:
    """No flag says so; an amended commit, a commit without a common past, and a step back are rewrites."""
    first = head(repo)
    old = commit(repo, "b.py")
    git(repo, "commit", "-q", "--amend", "-m", "another")
    assert seen(repo, old, head(repo)).change == "rewrite"
    assert seen(repo, old, first).change == "rewrite"
    git(repo, "checkout", "-q", "--orphan", "island")
    git(repo, "commit", "-qm", "island")
    assert seen(repo, old, head(repo)).change == "rewrite"


def test_a_tag_that_moves_is_rewritten(repo: Path) -> None:
    """Even forward: whoever fetched it has another one. A new annotated tag is created, and peeled."""
    old = head(repo)
    new = commit(repo, "b.py")
    assert seen(repo, old, new, "refs/tags/v1").change == "rewrite"
    git(repo, "tag", "-a", "v1", "-m", "one")
    tag = git(repo, "rev-parse", "refs/tags/v1")
    found = seen(repo, None, tag, "refs/tags/v1")
    assert (found.change, found.commit) == ("create", new)


def test_a_reference_to_a_tree_or_a_file_is_refused(repo: Path) -> None:
    """Only commits, and tags of commits, are judged."""
    for name in ("HEAD^{tree}", "HEAD:a.py"):
        with pytest.raises(EvidenceError, match="expected a commit or a tag of one"):
            seen(repo, None, git(repo, "rev-parse", name), "refs/heads/x")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"train/optim/a\nb.py", "train/optim/a\\nb.py"),
        (b"train/optim/\xff.py", "train/optim/\\xff.py"),
        (b"train/optim/a\\nb.py", "train/optim/a\\\\nb.py"),
        ("train/optim/ä.py".encode(), "train/optim/ä.py"),
        (b'train/optim/"quoted" .py', 'train/optim/"quoted" .py'),
    ],
)
def test_file_names_of_any_bytes_keep_their_folder(repo: Path, name: bytes, shown: str) -> None:
    """No two names look the same, and no byte hides the folder that a rule protects."""
    old = head(repo)
    assert seen(repo, old, commit(repo, name)).paths == {shown}


def test_submodules_links_and_pointers_are_distinguished(repo: Path) -> None:
    """A gitlink, a symbolic link and an LFS pointer bring in what this tree does not hold."""
    old = head(repo)
    (repo / "link").symlink_to("/etc/passwd")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1\n"
    (repo / "weights.bin").write_text(pointer)
    git(repo, "update-index", "--add", "--cacheinfo", f"160000,{old},third_party/kernels")
    git(repo, "add", "link", "weights.bin")
    git(repo, "commit", "-qm", "more")
    found = seen(repo, old, head(repo))
    assert found.links == {"link"}
    assert found.pointers == {"weights.bin"}
    assert found.submodules == {"third_party/kernels"}


def test_a_file_that_becomes_a_folder_is_both_paths(repo: Path) -> None:
    """The old file is gone and the new one is there."""
    old = head(repo)
    (repo / "a.py").unlink()
    assert seen(repo, old, commit(repo, "a.py/inner.py")).paths == {"a.py", "a.py/inner.py"}


def test_other_histories_are_refused(repo: Path) -> None:
    """Grafts, replace references and shallow files could show another past; without them the push is judged."""
    old = head(repo)
    new = commit(repo, "b.py")
    assert seen(repo, old, new).change == "update"
    info = repo / ".git" / "info"
    info.mkdir(exist_ok=True)
    doors = {"grafts": info / "grafts", "shallow": repo / ".git" / "shallow"}
    for door, path in doors.items():
        path.write_text(new + "\n")
        with pytest.raises(EvidenceError, match=door):
            seen(repo, old, new)
        path.unlink()
    git(repo, "replace", new, old)
    with pytest.raises(EvidenceError, match="replace_refs"):
        seen(repo, old, new)


def test_a_push_from_a_shallow_clone_is_refused(repo: Path) -> None:
    """Git hands the hook a list of cut commits."""
    old = head(repo)
    new = commit(repo, "b.py")
    (repo / "cut").write_text(new + "\n")
    with pytest.raises(EvidenceError, match="shallow push"):
        seen(repo, old, new, GIT_SHALLOW_FILE=str(repo / "cut"))


def test_an_object_store_of_the_pushers_choice_is_not_read(repo: Path, tmp_path: Path) -> None:
    """A quarantine must lie in the repository's own store; other variables of git's are not even looked at."""
    old = head(repo)
    foreign = tmp_path / "foreign" / "tmp_objdir-incoming-x"
    foreign.mkdir(parents=True)
    with pytest.raises(EvidenceError, match="expected git's"):
        seen(repo, None, old, GIT_QUARANTINE_PATH=str(foreign), GIT_OBJECT_DIRECTORY=str(foreign))
    ours = repo / ".git" / "objects" / "tmp_objdir-incoming-x"
    ours.mkdir()
    assert seen(repo, None, old, GIT_QUARANTINE_PATH=str(ours), GIT_OBJECT_DIRECTORY=str(ours)).commit == old
    with pytest.raises(EvidenceError, match="expected git's"):
        seen(repo, None, old, GIT_QUARANTINE_PATH=str(ours), GIT_OBJECT_DIRECTORY=str(foreign))
    (ours / "info").mkdir()
    (ours / "info" / "alternates").write_text(str(tmp_path))
    with pytest.raises(EvidenceError, match="alternates in a quarantine"):
        seen(repo, None, old, GIT_QUARANTINE_PATH=str(ours), GIT_OBJECT_DIRECTORY=str(ours))
    assert seen(repo, None, old, GIT_ALTERNATE_OBJECT_DIRECTORIES=str(foreign), GIT_DIR="/nowhere").commit == old


def test_a_linked_quarantine_is_refused(repo: Path, tmp_path: Path) -> None:
    """A link in the store leads out of it."""
    (tmp_path / "incoming-out").mkdir()
    link = repo / ".git" / "objects" / "tmp_objdir-incoming-y"
    link.symlink_to(tmp_path / "incoming-out")
    with pytest.raises(EvidenceError, match="expected git's"):
        seen(repo, None, head(repo), GIT_QUARANTINE_PATH=str(link), GIT_OBJECT_DIRECTORY=str(link))


def test_hostile_configuration_and_hooks_run_nothing(repo: Path, tmp_path: Path) -> None:
    """Filters, fsmonitor, pagers, aliases and external diffs of the repository are never seen by git."""
    marker = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    old = head(repo)
    new = commit(repo, "b.py")
    for name in ("core.fsmonitor", "core.pager", "diff.external", "core.sshCommand", "alias.rev-list", "uploadpack.x"):
        git(repo, "config", name, str(program))
    (repo / ".git" / "info" / "attributes").write_text("* filter=x diff=x\n")
    assert seen(repo, old, new, GIT_EXTERNAL_DIFF=str(program), GIT_PAGER=str(program)).change == "update"
    assert not marker.exists()


def test_a_forged_commit_object_is_not_believed(repo: Path) -> None:
    """The store gives other bytes under the commit's id: refused, since the bytes are hashed again."""
    old = head(repo)
    new = commit(repo, "b.py")
    path = repo / ".git" / "objects" / new[:2] / new[2:]
    forged = repo / ".git" / "objects" / old[:2] / old[2:]
    path.chmod(0o644)
    path.write_bytes(forged.read_bytes())
    with pytest.raises(EvidenceError):
        seen(repo, old, new)


def test_missing_objects_are_refused(repo: Path) -> None:
    """A commit whose parent or tree is not there cannot be judged."""
    old = head(repo)
    new = commit(repo, "b.py")
    tree = git(repo, "rev-parse", "HEAD^{tree}")
    (repo / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    with pytest.raises(EvidenceError, match="missing"):
        seen(repo, old, new)


def test_a_commit_graph_that_lies_is_not_read(repo: Path) -> None:
    """A commit-graph file is another way to show another past; walks do not use it."""
    old = head(repo)
    new = commit(repo, "b.py")
    git(repo, "commit-graph", "write", "--reachable")
    graph = next((repo / ".git" / "objects" / "info").glob("commit-graph*"))
    graph.chmod(0o644)
    graph.write_bytes(graph.read_bytes()[:-40] + b"\0" * 40)
    assert seen(repo, old, new).commits == 1


def test_a_repository_of_somebody_else_is_not_judged(repo: Path) -> None:
    """Its owner could change it afterwards; the operator names who else may own it."""
    old = head(repo)
    with (
        PushSession(str(repo), {}, {os.geteuid() + 1}) as session,
        pytest.raises(EvidenceError, match="belongs to uid"),
    ):
        session.measure((RefUpdate(old=None, new=old, ref=MAIN),))


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_both_hashes_are_judged(tmp_path: Path, object_format: str) -> None:
    """Ids of 40 and of 64 digits, and zeros of both lengths."""
    root = tmp_path / "r"
    root.mkdir()
    git(root, "init", "-q", "-b", "main", f"--object-format={object_format}")
    old = commit(root, "a.py")
    new = commit(root, "b.py")
    assert seen(root, old, new).paths == {"b.py"}
    zeros = "0" * len(old)
    (update,) = parse_updates(f"{old} {zeros} {MAIN}\n".encode())
    assert update == RefUpdate(old=old, new=None, ref=MAIN)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"nonsense\n",
        f"{ZEROS} {ZEROS} {MAIN}\n".encode(),
        f"{'a' * 40} {'b' * 64} {MAIN}\n".encode(),
        f"{'A' * 40} {'b' * 40} {MAIN}\n".encode(),
        f"{'a' * 40} {'b' * 40} HEAD\n".encode(),
        f"{'a' * 40} {'b' * 40} {MAIN}\n{'b' * 40} {'c' * 40} {MAIN}\n".encode(),
        f"{'a' * 40} {'b' * 40} refs/heads/{'x' * 500}\n".encode(),
        f"{'a' * 40} {'b' * 40} {MAIN}\nrest".encode(),
    ],
)
def test_lines_that_git_never_writes_are_refused(text: bytes) -> None:
    """No traceback, and no guess."""
    with pytest.raises(EvidenceError):
        parse_updates(text)
    assert parse_updates(f"{'a' * 40} {'b' * 40} {MAIN}\n".encode())
