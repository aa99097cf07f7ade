"""Files that some program runs because of their name, or that lead a loader to another file or module.

A name makes a verdict stricter only. Each name belongs to a program that reads the file unasked, in the folder that it
starts in or builds.

Source: git, GNU make, bash, R, gdb, `pdb`, setuptools, pytest, gin-config 0.5, Kaldi; DeepSpeed `engine.py` (`latest`),
mmengine `checkpoint.py` (`last_checkpoint`), MLflow `pytorch/__init__.py`, joblib `numpy_pickle_compat.py`.
"""

from __future__ import annotations

import re

from policyguard.scan.archives.zip import leaves_folder
from policyguard.scan.fact_sheets import names
from policyguard.scan.findings import Findings

_RUN = names("""
    makefile gnumakefile dockerfile containerfile snakefile jenkinsfile vagrantfile procfile justfile rakefile gemfile
    sconstruct sconscript wscript cmakelists.txt setup.cfg tox.ini pytest.ini pyvenv.cfg entry_points.txt sitecustomize
    usercustomize conftest activate .bashrc .bash_profile .bash_login .bash_logout .profile .zshrc .zshenv .zprofile
    .zlogin .kshrc .cshrc .tcshrc .login .envrc .rprofile .gdbinit .lldbinit .pdbrc .vimrc .exrc .nvimrc .emacs .irbrc
    .pythonrc .gitconfig .gitmodules .pre-commit-config.yaml .pre-commit-hooks.yaml .gitlab-ci.yml .travis.yml
    docker-compose.yml docker-compose.yaml compose.yml compose.yaml
    applypatch-msg pre-applypatch post-applypatch pre-commit pre-merge-commit prepare-commit-msg commit-msg post-commit
    pre-rebase post-checkout post-merge pre-push pre-receive post-receive post-update push-to-checkout pre-auto-gc
    post-rewrite sendemail-validate fsmonitor-watchman
""")
_RUN_SUFFIXES = (
    *(".mk", ".cmake", ".gin", ".r", ".rmd", ".qmd", ".jl", ".mjs", ".cjs", ".zsh", ".fish", ".csh", ".ksh", ".tcl"),
    *(".vbs", ".go", ".rs", ".c", ".cc", ".h", ".hpp", ".java", ".scala", ".kt", ".swift", ".service", ".desktop"),
)
_POINTERS = names("latest latest_universal last_checkpoint latest_checkpointed_iteration.txt")
_PICKLERS = names("pickle cloudpickle dill mlflow.pytorch.pickle_module")
_REPOSITORY = re.compile(
    r"^[ \t]*(?:repositoryformatversion[ \t]*=|\[(?:core|alias|filter|diff|credential|include|includeIf|pager|gpg)\b)",
    re.MULTILINE | re.IGNORECASE,
)
_PIPE = re.compile(r"\|[ \t]*\r?$|^\S+[ \t]+\|", re.MULTILINE)
_CODING = re.compile(r"(?:[^\n]*\n)?[ \t\f]*#[^\n]*?coding[:=][ \t]*([-\w.]+)")
"""Python reads the whole text in the encoding that one of its first two lines names."""

_PACKED = re.compile(rb"ZF[ \t]*(?:0[xX])?[0-9a-fA-F]+[ \t]*")
_PACKED_LENGTH = 21
"""joblib's first compressed format: two letters, and the size in a field of 19 characters."""


def check_side_file(text: str, data: bytes, findings: Findings) -> None:
    """Add a finding for a text that some program runs, or follows to another file, because of its name.

    Args:
        text: the text.
        data: its bytes.
        findings: has the name, and receives the findings.
    """
    name = findings.name.casefold()
    # INVARIANT I18: what a program runs unasked is code, whatever it is written in.
    if name in _RUN or name.endswith(_RUN_SUFFIXES):
        findings.add("ckpt.code_file", name, "1:1")
    if (coding := _CODING.match(text)) and not coding[1].casefold().startswith(("utf-8", "utf8", "ascii", "latin")):
        findings.add("ckpt.code_file", f"Python in the encoding {coding[1]}", "1:1")
    if name == "config" and _REPOSITORY.search(text):
        findings.add("ckpt.code_file", "git runs the commands that its configuration names", "1:1")
    if name.endswith(".scp") and (pipe := _PIPE.search(text)):
        findings.add("ckpt.shell_text", "a pipe in a list of Kaldi", f"{text.count(chr(10), 0, pipe.end()) + 1}:1")
    if name in _POINTERS or name.endswith(".symlink"):
        _check_pointer(text.strip(), findings)
    if name == "pickle_module_info.txt" and text.strip() not in _PICKLERS:
        findings.add("ckpt.target_unlisted", text.strip(), "1:1")
    if _PACKED.fullmatch(data[:_PACKED_LENGTH]) and len(data) > _PACKED_LENGTH:
        findings.add("ckpt.format_opaque", "the first compressed format of joblib")


def _check_pointer(path: str, findings: Findings) -> None:
    if ".." in path.replace("\\", "/").split("/"):
        findings.add("ckpt.external_path", path, "1:1")
    elif leaves_folder(path or ".") or "://" in path:
        findings.add("ckpt.external_data", path, "1:1")
