"""A hostile repository: nothing of it is executed, and what is measured stays true."""

from __future__ import annotations

import os
import stat
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.errors import EvidenceError
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.repository import CODE, RepositoryCollector
from policyguard.git.trees import parse_tree
from tests.attacks.git_lab import REQUEST, Lab, git, make_lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path)


def configure(key: str) -> Callable[[Lab], None]:
    """Return an attack that points a configuration key at the marker program."""

    def attack(lab: Lab) -> None:
        lab.git("config", key, str(lab.program))

    return attack


def clean_filter(lab: Lab) -> None:
    for kind in ("clean", "smudge", "process"):
        lab.git("config", f"filter.evil.{kind}", str(lab.program))
    (lab.root / ".git" / "info" / "attributes").write_text("* filter=evil diff=evil\n")
    lab.git("config", "diff.evil.textconv", str(lab.program))
    lab.git("config", "diff.evil.command", str(lab.program))


def hooks(lab: Lab) -> None:
    for name in ("post-index-change", "reference-transaction", "post-checkout", "fsmonitor-watchman"):
        hook = lab.root / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(lab.program.read_text())
        hook.chmod(0o755)


def included(lab: Lab) -> None:
    evil = lab.root.parent / "evil.config"
    evil.write_text(f"[core]\n\tfsmonitor = {lab.program}\n\tpager = {lab.program}\n[include]\n\tpath = /dev/zero\n")
    with (lab.root / ".git" / "config").open("a") as config:
        config.write(f'[include]\n\tpath = {evil}\n[includeIf "gitdir:**"]\n\tpath = {evil}\n')


def elsewhere(lab: Lab) -> None:
    other = lab.root.parent / "other"
    other.mkdir()
    lab.git("config", "core.worktree", str(other))


def other_hooks(lab: Lab) -> None:
    hooks(lab)
    (lab.root / ".git" / "hooks").rename(lab.root.parent / "hooks")
    lab.git("config", "core.hooksPath", str(lab.root.parent / "hooks"))


def promisor(lab: Lab) -> None:
    lab.git("config", "remote.origin.url", f"ext::{lab.program} %S")
    lab.git("config", "remote.origin.promisor", "true")
    lab.git("config", "protocol.ext.allow", "always")


def aliased(lab: Lab) -> None:
    for name in ("rev-parse", "cat-file", "check-ignore", "config"):
        lab.git("config", f"alias.{name}", f"!{lab.program}")


HOSTILE_CONFIGURATION: dict[str, Callable[[Lab], None]] = {
    "core.fsmonitor": configure("core.fsmonitor"),
    "core.pager": configure("core.pager"),
    "core.editor": configure("core.editor"),
    "core.sshCommand": configure("core.sshCommand"),
    "core.gitProxy": configure("core.gitProxy"),
    "core.alternateRefsCommand": configure("core.alternateRefsCommand"),
    "core.hooksPath": other_hooks,
    "diff.external": configure("diff.external"),
    "gpg.program": configure("gpg.program"),
    "credential.helper": configure("credential.helper"),
    "filter.clean, smudge and process, diff.textconv": clean_filter,
    "hooks": hooks,
    "include.path": included,
    "core.worktree": elsewhere,
    "alias": aliased,
    "uploadpack.packObjectsHook": configure("uploadpack.packObjectsHook"),
    "a promisor remote": promisor,
}


@pytest.mark.parametrize("attack", HOSTILE_CONFIGURATION.values(), ids=HOSTILE_CONFIGURATION.keys())
def test_git_configuration_executes_nothing(lab: Lab, attack: Callable[[Lab], None]) -> None:
    """I16: whatever program the repository configures, none runs, and a change is still seen."""
    clean = lab.code()
    attack(lab)
    (lab.root / "train" / "optim.py").write_text("import time\n")
    record = lab.code()
    assert not lab.executed
    assert record["dirty_files"] == ("train/optim.py",)
    assert record["tree"] == clean["tree"]


def test_the_attacks_would_work_on_git_status(lab: Lab) -> None:
    """The marker program is a real attack: plain `git status` in the same repository runs it."""
    configure("core.fsmonitor")(lab)
    subprocess.run(["git", "status"], cwd=lab.root, capture_output=True, check=False)
    assert lab.executed


HOSTILE_VARIABLES = {
    "GIT_DIR": "/nonexistent",
    "GIT_WORK_TREE": "/",
    "GIT_INDEX_FILE": "/dev/null",
    "GIT_OBJECT_DIRECTORY": "/nonexistent",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES": "/nonexistent",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "core.fsmonitor",
    "GIT_CONFIG_VALUE_0": "PROGRAM",
    "GIT_CONFIG_PARAMETERS": "'core.fsmonitor=PROGRAM'",
    "GIT_CONFIG": "/nonexistent",
    "GIT_EXTERNAL_DIFF": "PROGRAM",
    "GIT_SSH_COMMAND": "PROGRAM",
    "GIT_PAGER": "PROGRAM",
    "GIT_EXEC_PATH": "/nonexistent",
    "GIT_TEMPLATE_DIR": "PROGRAM",
    "GIT_TRACE": "/TRACE",
    "GIT_REPLACE_REF_BASE": "refs/heads/",
    "GIT_NAMESPACE": "x",
}


def test_git_variables_of_the_launcher_are_not_passed_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """I16: hostile `GIT_*` in the environment changes nothing and runs nothing."""
    clean = lab.code()
    for name, value in HOSTILE_VARIABLES.items():
        monkeypatch.setenv(name, value.replace("PROGRAM", str(lab.program)).replace("/TRACE", str(lab.marker)))
    assert lab.code() == clean
    assert not lab.executed


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_index_flags_do_not_hide_a_change(lab: Lab, flag: str) -> None:
    """I17: `git status` shows nothing, we do."""
    lab.git("update-index", flag, "train/optim.py")
    (lab.root / "train" / "optim.py").write_text("evil\n")
    assert lab.git("status", "--porcelain") == ""
    assert (lab.code()["dirty"], lab.code()["dirty_files"]) == (True, ("train/optim.py",))


def test_old_time_stamps_do_not_hide_a_change(lab: Lab) -> None:
    """I17: same size, same times, other content."""
    path = lab.root / "train" / "optim.py"
    before = path.stat()
    path.write_text("def step(): evil\n"[: before.st_size])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert lab.code()["dirty_files"] == ("train/optim.py",)


def test_a_clean_checkout_is_clean(lab: Lab) -> None:
    """I17, the twin of all of these: nothing differs, nothing is reported."""
    record = lab.code()
    assert record["dirty"] is False
    assert record["commit"] == lab.git("rev-parse", "HEAD")
    assert record["tree"] == lab.git("rev-parse", "HEAD^{tree}")
    lists = ("dirty_files", "untracked_files", "ignored_code_files", "history", "submodules", "outside_links")
    assert all(record[name] == () for name in lists)


def forge_tree(lab: Lab) -> None:
    """Replace the root tree in the object store by one that lists the sabotaged file as committed."""
    (lab.root / "train.py").write_text("evil\n")
    evil = lab.git("hash-object", "-w", "train.py")
    lines = lab.git("ls-tree", "HEAD").replace(lab.git("rev-parse", "HEAD:train.py"), evil)
    forged = lab.git("mktree", stdin=lines.encode() + b"\n")
    store = lab.root / ".git" / "objects"
    source, target = (store / oid[:2] / oid[2:] for oid in (forged, lab.git("rev-parse", "HEAD^{tree}")))
    target.chmod(0o644)
    target.write_bytes(source.read_bytes())


def test_a_forged_tree_object_is_not_believed(lab: Lab) -> None:
    """I16: the commit id is the reviewed one, the store shows other content under its tree's id."""
    forge_tree(lab)
    with pytest.raises(EvidenceError, match="does not have this id"):
        lab.collect()


def test_a_forged_commit_object_is_not_believed(lab: Lab) -> None:
    """I16: the same, one level up."""
    commit = lab.git("rev-parse", "HEAD")
    path = lab.root / ".git" / "objects" / commit[:2] / commit[2:]
    content = b"tree " + b"0" * 40 + b"\n\n"
    path.chmod(0o644)
    path.write_bytes(zlib.compress(b"commit %d\0" % len(content) + content))
    with pytest.raises(EvidenceError, match="does not have this id"):
        lab.collect()


def test_replace_references_do_not_change_what_is_measured(lab: Lab) -> None:
    """I16: the commit is replaced by one that matches the sabotaged tree; we look at the real one and say so."""
    good = lab.git("rev-parse", "HEAD")
    (lab.root / "train.py").write_text("evil\n")
    lab.git("commit", "-qam", "evil")
    evil = lab.git("rev-parse", "HEAD")
    lab.git("update-ref", "refs/heads/main", good)
    lab.git("replace", good, evil)
    record = lab.code()
    assert (record["commit"], record["dirty_files"]) == (good, ("train.py",))
    assert record["history"] == ("replace_refs",)


def test_packed_replace_references_are_seen(lab: Lab) -> None:
    """I16: in `packed-refs`, too."""
    lab.git("commit", "--allow-empty", "-qm", "second")
    lab.git("replace", "HEAD", "HEAD~1")
    lab.git("pack-refs", "--all")
    assert lab.code()["history"] == ("replace_refs",)


def test_altered_history_is_reported(lab: Lab) -> None:
    """Grafts and a shallow file do not touch the tree but make every statement about history doubtful."""
    commit = lab.git("rev-parse", "HEAD")
    (lab.root / ".git" / "info" / "grafts").write_text(commit + "\n")
    (lab.root / ".git" / "shallow").write_text(commit + "\n")
    assert lab.code()["history"] == ("grafts", "shallow")


def test_alternates_are_reported_and_cannot_lie(lab: Lab) -> None:
    """I16: borrowed objects are hashed like any other."""
    store = lab.root / ".git" / "objects"
    lent = lab.root.parent / "lent"
    store.rename(lent)
    (store / "info").mkdir(parents=True)
    (store / "info" / "alternates").write_text(f"{lent}\n")
    record = lab.code()
    assert (record["history"], record["dirty"]) == (("alternates",), False)


def test_a_symlinked_git_folder_is_refused(lab: Lab) -> None:
    """Whoever may write the link decides which repository speaks."""
    (lab.root / ".git").rename(lab.root.parent / "moved")
    (lab.root / ".git").symlink_to(lab.root.parent / "moved")
    with pytest.raises(EvidenceError, match="found a symbolic link"):
        lab.collect()


def test_a_git_file_that_points_elsewhere_does_not_make_code_clean(lab: Lab, tmp_path: Path) -> None:
    """I17: the other repository's commit is shown, with every file of ours as changed."""
    (tmp_path / "b").mkdir()
    other = make_lab(tmp_path / "b")
    (other.root / "train.py").write_text("reviewed\n")
    other.git("commit", "-qam", "reviewed")
    (lab.root / ".git").rename(tmp_path / "away")
    (lab.root / ".git").write_text(f"gitdir: {other.root / '.git'}\n")
    record = lab.code()
    assert (record["commit"], record["dirty_files"]) == (other.git("rev-parse", "HEAD"), ("train.py",))


@pytest.mark.parametrize("content", ["gitdir: /nonexistent", "gitdir:", "nonsense", "gitdir: /\0", ""])
def test_a_broken_git_file_is_a_reason(lab: Lab, content: str) -> None:
    """One line, no traceback."""
    (lab.root / ".git").rename(lab.root.parent / "away")
    (lab.root / ".git").write_text(content)
    with pytest.raises(EvidenceError):
        lab.collect()


def test_a_linked_working_tree_is_measured(lab: Lab) -> None:
    """The `.git` file of `git worktree` is the honest twin."""
    lab.git("worktree", "add", "-q", "-b", "side", "../side")
    linked = Lab(lab.root.parent / "side", lab.marker, lab.program)
    assert (linked.code()["dirty"], linked.code()["branch"]) == (False, "side")


@pytest.mark.parametrize(
    "head",
    ["ref: refs/heads/../../../../etc/passwd", "ref: /etc/passwd", "ref: refs/heads/none", "0" * 39, "", "ref: HEAD"],
)
def test_a_hostile_head_is_a_reason(lab: Lab, head: str) -> None:
    """HEAD leads nowhere else than to a reference or an object id."""
    (lab.root / ".git" / "HEAD").write_text(head + "\n")
    with pytest.raises(EvidenceError):
        lab.collect()


def test_a_head_that_loops_is_a_reason(lab: Lab) -> None:
    """References that lead to each other end after five steps."""
    (lab.root / ".git" / "refs" / "heads" / "main").write_text("ref: refs/heads/main\n")
    with pytest.raises(EvidenceError, match="expected an object id"):
        lab.collect()


@pytest.mark.parametrize("place", ["HEAD", "config", "packed-refs", "commondir", "shallow"])
def test_a_fifo_in_the_git_folder_does_not_block(lab: Lab, place: str) -> None:
    """I16: git itself would wait for a writer."""
    path = lab.root / ".git" / place
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(EvidenceError, match="found a FIFO"):
        lab.collect()


def test_a_repository_of_somebody_else_is_not_measured(lab: Lab) -> None:
    """I16: told apart from 'clean' and from 'dirty', with what to do about it."""
    with pytest.raises(EvidenceError, match=r"belongs to uid \d+, expected uid 4242") as caught:
        lab.collect(owners={4242})
    assert "as the user who runs the job" in str(caught.value.help)


@pytest.mark.skipif(os.geteuid() != 0, reason="changing the owner needs root")
@pytest.mark.parametrize("part", [".", ".git", ".git/objects"])
def test_each_part_of_a_repository_must_be_ours(lab: Lab, part: str) -> None:
    """I16: the working tree, the git folder and the object store; a folder planted above the job is none either."""
    os.chown(lab.root / part, 4242, 4242)
    with pytest.raises(EvidenceError, match="belongs to uid 4242"):
        lab.collect()


def test_an_untracked_module_is_dirt(lab: Lab) -> None:
    """I17: `torch.py` beside the script is imported before the real one."""
    (lab.root / "torch.py").write_text("evil\n")
    assert (lab.code()["dirty"], lab.code()["untracked_files"]) == (True, ("torch.py",))


@pytest.mark.parametrize("how", ["info/exclude", "a folder's own .gitignore", "core.excludesFile"])
def test_unreviewed_ignore_rules_do_not_hide_code(lab: Lab, how: str) -> None:
    """I17: `git status` is silent about the module, we are not."""
    evil = lab.root / "torch"
    evil.mkdir()
    (evil / "__init__.py").write_text("evil\n")
    if how == "info/exclude":
        (lab.root / ".git" / "info" / "exclude").write_text("torch/\n")
    elif how == "core.excludesFile":
        (lab.root.parent / "excludes").write_text("torch/\n")
        lab.git("config", "core.excludesFile", str(lab.root.parent / "excludes"))
    else:
        (evil / ".gitignore").write_text("*\n")
    assert lab.git("status", "--porcelain") == ""
    assert (lab.code()["dirty"], lab.code()["untracked_files"]) == (True, ("torch/__init__.py",))


def test_code_ignored_by_a_reviewed_rule_is_listed_apart(lab: Lab) -> None:
    """I17: a generated `_version.py` is not dirt, but a rule can see it."""
    (lab.root / "_version.py").write_text("v = 1\n")
    record = lab.code()
    assert (record["dirty"], record["ignored_code_files"]) == (False, ("_version.py",))


def test_a_reviewed_rule_that_was_edited_counts_no_more(lab: Lab) -> None:
    """I17: the edit of `.gitignore` is itself dirt, and so is what it hides."""
    with (lab.root / ".gitignore").open("a") as rules:
        rules.write("torch.py\n")
    (lab.root / "torch.py").write_text("evil\n")
    record = lab.code()
    assert (record["dirty_files"], record["untracked_files"]) == ((".gitignore",), ("torch.py",))


def test_data_and_caches_that_are_ignored_are_no_dirt(lab: Lab) -> None:
    """I17, the twin: logs, byte code beside its source, tool caches that ignore themselves, a virtual environment."""
    (lab.root / "run.log").write_text("step 1\n")
    for folder, name in (("train/__pycache__", "optim.cpython-311.pyc"), (".pytest_cache", "README.md")):
        (lab.root / folder).mkdir()
        (lab.root / folder / name).write_text("x")
    (lab.root / ".pytest_cache" / ".gitignore").write_text("*\n")
    (lab.root / ".venv" / "lib").mkdir(parents=True)
    (lab.root / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (lab.root / ".venv" / "lib" / "torch.py").write_text("pass\n")
    record = lab.code()
    assert (record["dirty"], record["ignored_code_files"], record["environments"]) == (False, (), (".venv",))


@pytest.mark.parametrize("name", ["torch", "train"])
def test_a_package_posing_as_an_environment_is_searched(lab: Lab, name: str) -> None:
    """I17: a `pyvenv.cfg` beside an `__init__.py`, or in a folder of the commit, exempts nothing."""
    (lab.root / name).mkdir(exist_ok=True)
    (lab.root / name / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (lab.root / name / "__init__.py").write_text("evil\n")
    assert f"{name}/__init__.py" in str(lab.code()["untracked_files"])


def test_a_python_file_in_a_byte_code_folder_is_seen(lab: Lab) -> None:
    """I17: only `.pyc` files in `__pycache__` are left to the launcher, which makes Python ignore them."""
    (lab.root / "__pycache__").mkdir()
    (lab.root / "__pycache__" / "evil.py").write_text("evil\n")
    (lab.root / "sourceless.pyc").write_text("evil\n")
    record = lab.code()
    assert (record["untracked_files"], record["ignored_code_files"]) == (("sourceless.pyc",), ("__pycache__/evil.py",))


def replaced_by_link(lab: Lab) -> None:
    (lab.root.parent / "evil.py").write_text("def step(): pass\n")
    (lab.root / "train" / "optim.py").unlink()
    (lab.root / "train" / "optim.py").symlink_to("../../evil.py")


def replaced_by_fifo(lab: Lab) -> None:
    (lab.root / "train" / "optim.py").unlink()
    os.mkfifo(lab.root / "train" / "optim.py")


def replaced_by_folder(lab: Lab) -> None:
    (lab.root / "train" / "optim.py").unlink()
    (lab.root / "train" / "optim.py").mkdir()


def made_executable(lab: Lab) -> None:
    path = lab.root / "train" / "optim.py"
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    "change",
    [
        replaced_by_link,
        replaced_by_fifo,
        replaced_by_folder,
        made_executable,
        lambda lab: (lab.root / "train" / "optim.py").unlink(),
        lambda lab: (lab.root / "train" / "optim.py").write_text("def step(): pass\r\n"),
    ],
    ids=["a link", "a FIFO", "a folder", "executable", "deleted", "other line ends"],
)
def test_every_kind_of_change_is_dirt(lab: Lab, change: Callable[[Lab], None]) -> None:
    """I17: kind, mode, presence and bytes count."""
    change(lab)
    assert (lab.code()["dirty"], lab.code()["dirty_files"]) == (True, ("train/optim.py",))


def test_a_folder_replaced_by_a_link_is_dirt(lab: Lab) -> None:
    """I17: the link is not followed, though it leads to files with the same names and contents."""
    (lab.root / "train").rename(lab.root.parent / "train")
    (lab.root / "train").symlink_to("../train")
    record = lab.code()
    assert (record["dirty_files"], record["untracked_files"]) == (("train/optim.py",), ("train",))


def test_committed_links_out_of_the_repository_are_listed(lab: Lab) -> None:
    """The link was reviewed, what it leads to was not."""
    (lab.root / "shared").symlink_to("/srv/shared/optim")
    (lab.root / "inside").symlink_to("train")
    lab.git("add", ".")
    lab.git("commit", "-qm", "links")
    assert (lab.code()["dirty"], lab.code()["outside_links"]) == (False, ("shared",))


def test_strange_file_names_are_printed_unambiguously(lab: Lab) -> None:
    """Line breaks and bytes that are no UTF-8 in names, changed and untracked."""
    for name in (b"new\nline.py", b"\xff.py", b'quo"te.py'):
        (lab.root / os.fsdecode(name)).write_text("x")
    lab.git("add", ".")
    lab.git("commit", "-qm", "names")
    assert lab.code()["dirty"] is False
    for name in (b"new\nline.py", b"\xff.py"):
        (lab.root / os.fsdecode(name)).write_text("evil")
    (lab.root / "tab\tname.py").write_text("x")
    record = lab.code()
    assert (record["dirty_files"], record["untracked_files"]) == (("\\xff.py", "new\\nline.py"), ("tab\\tname.py",))


def with_submodule(lab: Lab, tmp_path: Path) -> Path:
    """Add a submodule at `libs/sub` and return its working tree."""
    (tmp_path / "s").mkdir()
    source = make_lab(tmp_path / "s")
    add = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(source.root), "libs/sub")
    lab.git(*add)
    lab.git("commit", "-qm", "a submodule")
    return lab.root / "libs" / "sub"


def test_submodules_are_measured_too(lab: Lab, tmp_path: Path) -> None:
    """A change in a submodule is a change of the job's code, `submodule.*.ignore` or not."""
    sub = with_submodule(lab, tmp_path)
    assert (lab.code()["dirty"], lab.code()["submodules"]) == (False, ("libs/sub",))
    lab.git("config", "submodule.libs/sub.ignore", "all")
    lab.git("config", "submodule.libs/sub.update", f"!{lab.program}")
    git(sub, "config", "core.fsmonitor", str(lab.program))
    (sub / "train.py").write_text("evil\n")
    assert lab.code()["dirty_files"] == ("libs/sub/train.py",)
    assert not lab.executed


def test_a_submodule_at_another_commit_is_dirt(lab: Lab, tmp_path: Path) -> None:
    """Clean in itself, but not what the outer commit names."""
    sub = with_submodule(lab, tmp_path)
    git(sub, "commit", "--allow-empty", "-qm", "other")
    assert lab.code()["dirty_files"] == ("libs/sub",)


def test_files_in_a_submodule_that_is_not_checked_out_are_untracked(lab: Lab, tmp_path: Path) -> None:
    """A folder that git would treat as somebody else's is looked into."""
    sub = with_submodule(lab, tmp_path)
    (sub / ".git").unlink()
    assert "libs/sub/train.py" in str(lab.code()["untracked_files"])


def test_a_large_file_equals_its_pointer(lab: Lab) -> None:
    """Git LFS checked out: the commit holds a pointer, the disk the content; compared by the pointer's SHA-256."""
    content = b"weights" * 1000
    path = lab.root / "weights.bin"
    digest = subprocess.run(["sha256sum"], input=content, capture_output=True, check=True).stdout.split()[0].decode()
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n")
    lab.git("add", ".")
    lab.git("commit", "-qm", "weights")
    assert lab.code()["dirty"] is False
    path.write_bytes(content)
    assert lab.code()["dirty"] is False
    path.write_bytes(content.replace(b"weights", b"poisons", 1))
    assert lab.code()["dirty_files"] == ("weights.bin",)


def test_a_sha256_repository_is_measured(tmp_path: Path) -> None:
    """Object ids of 64 digits."""
    lab = make_lab(tmp_path, object_format="sha256")
    assert (len(str(lab.code()["commit"])), lab.code()["dirty"]) == (64, False)
    (lab.root / "train.py").write_text("evil\n")
    assert lab.code()["dirty_files"] == ("train.py",)


def test_packed_objects_and_references_are_read(lab: Lab) -> None:
    """After `git gc` nothing is loose."""
    lab.git("gc", "-q")
    assert lab.code()["dirty"] is False


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://alice:s3cret@forge.lab/x.git?token=s3cret", "https://forge.lab/x.git"),
        ("git@forge.lab:x.git", "git@forge.lab:x.git"),
        ("/srv/git/x.git", "/srv/git/x.git"),
    ],
    ids=["a password and a token", "scp style", "a path"],
)
def test_a_remote_shows_no_secret(lab: Lab, url: str, shown: str) -> None:
    """I14: facts are signed, logged and shown."""
    lab.git("config", "remote.origin.url", url)
    assert lab.code()["remote"] == shown


def test_no_repository_is_a_reason(tmp_path: Path) -> None:
    """Told apart from a clean one."""
    with pytest.raises(EvidenceError, match="no git repository"):
        RepositoryCollector().collect(REQUEST, JobInputs(directory=str(tmp_path)), 1)


def test_a_repository_without_commits_is_a_reason(tmp_path: Path) -> None:
    """There is no commit to compare with."""
    git(tmp_path, "init", "-q")
    with pytest.raises(EvidenceError, match="does not exist"):
        RepositoryCollector().collect(REQUEST, JobInputs(directory=str(tmp_path)), 1)


def test_the_job_cannot_name_another_repository(lab: Lab) -> None:
    """The repository is the one around the folder the job runs in."""
    below = lab.root / "train"
    found = RepositoryCollector().collect(REQUEST, JobInputs(directory=str(below)), 1)
    assert found.entries[CODE].value == lab.code()
    assert found.entries[CODE].bound


def test_too_little_time_is_a_reason(lab: Lab) -> None:
    """The collector ends by itself, its git with it."""
    with pytest.raises(EvidenceError, match="too long"):
        lab.collect(timeout_s=0.0)


@pytest.mark.parametrize(
    "line",
    [
        b"100644 .git\0",
        b"100644 .GIT\0",
        b"100644 ..\0",
        b"100644 a/b\0",
        b"100644 \0",
        b"777777 a\0",
        b"x a\0",
        b"0100644999 a\0",
        b"100644 a",
    ],
)
def test_trees_that_no_checkout_can_have_are_refused(line: bytes) -> None:
    """I16: names and modes that would lead a comparison astray."""
    with pytest.raises(EvidenceError, match="found a tree"):
        list(parse_tree(line + bytes(20), 20))


def test_a_name_twice_in_a_tree_is_refused() -> None:
    """I16: which of the two contents would be the reviewed one?"""
    line = b"100644 a\0" + bytes(20)
    assert len(list(parse_tree(line, 20))) == 1
    with pytest.raises(EvidenceError, match="found a tree"):
        list(parse_tree(line * 2, 20))


def test_an_empty_file_that_got_content_is_dirt_like_any_other(tmp_path: Path) -> None:
    """Reading an empty blob leaves nothing behind that the next object would be taken from."""
    lab = make_lab(tmp_path)
    for name in ("a.py", "b.py"):
        (lab.root / name).write_text("")
    lab.git("add", ".")
    lab.git("commit", "-qm", "empty")
    for name in ("a.py", "b.py", "train.py"):
        (lab.root / name).write_text("import evil\n")
    assert lab.code()["dirty_files"] == ("a.py", "b.py", "train.py")
