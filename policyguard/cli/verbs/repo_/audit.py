"""`policyguard repo audit|baseline`: compare a repository with the decision log."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from policyguard.attest.trust import Trust
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.files import read_notes, write_new
from policyguard.cli.options import checkpoint_option, json_option, key_option, log_option, trust_option
from policyguard.cli.output import say, say_json
from policyguard.cli.settings import needed, settings
from policyguard.cli.verbs.verify_ import trust_or_own_key
from policyguard.config.file import Config
from policyguard.errors import ConfigurationError
from policyguard.evidence.push.objects import find_store
from policyguard.exit_codes import FINDINGS, OK
from policyguard.fs.safe_open import read_bounded
from policyguard.git.directory import GitDir
from policyguard.hooks.git.audit import Audited, Subject, audit
from policyguard.hooks.git.baseline import MAX_BASELINE_BYTES, Baseline, baseline_of, differences, parse_baseline
from policyguard.hooks.git.install import installed, problems
from policyguard.hooks.git.ref_history import Finding

_REPO = click.Path(path_type=Path, exists=True, file_okay=False)
_resource_option = click.option("--resource", help="Which resource it is; what its hooks say if not given.")
_owner_option = click.option("--owner", type=int, multiple=True, help="A uid that may own it, beside ours and root.")


@click.command("audit")
@log_option
@trust_option
@key_option
@_resource_option
@_owner_option
@click.option("--ref", "patterns", multiple=True, metavar="PATTERN", help="Only these references, `refs/heads/**`.")
@click.option("--since", type=click.Path(path_type=Path), help="What `repo baseline` wrote; nothing before it counts.")
@checkpoint_option
@click.option("--no-doctor", is_flag=True, help="Leave the hooks alone; for a copy of the repository.")
@json_option
@click.argument("repo", type=_REPO)
def audit_command(
    repo: Path,
    resource: str | None,
    owner: tuple[int, ...],
    patterns: tuple[str, ...],
    since: Path | None,
    checkpoints: tuple[Path, ...],
    no_doctor: bool,
    as_json: bool,
    **chosen: Any,
) -> int:
    """Check that every reference of REPO is where a logged, verified decision put it.

    What was edited under `refs/` without git shows here, and so does a hook, HEAD or configuration that somebody
    changed. Exits with 1 and names each finding.
    """
    config = settings(**chosen)
    git, _ = find_store(str(repo), {}, {os.geteuid(), 0, *owner})
    baseline = None if since is None else parse_baseline(read_bounded(since, MAX_BASELINE_BYTES), str(since))
    subject = Subject(resource=_resource(git, resource, baseline), patterns=patterns, since=baseline)
    with SqliteStore.open(needed(config, "log"), read_only=True) as store:
        notes = read_notes(checkpoints, (store.origin,))
        audited = audit(git, store, _trust(config, store.origin), subject, now=time.time_ns(), known_checkpoints=notes)
    findings = [*audited.findings, *differences(git, baseline)]
    if not no_doctor:
        findings += [Finding(code="hook", ref=hook, text=text) for hook, text in problems(str(repo))]
    return _answer(subject, audited, findings, as_json)


@click.command("baseline")
@log_option
@_resource_option
@_owner_option
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where it is kept; not in the repository.")
@click.argument("repo", type=_REPO)
def baseline_command(repo: Path, resource: str | None, owner: tuple[int, ...], out: Path, log: Path | None) -> int:
    """Save the present value of every reference of REPO to a file, for `repo audit --since`.

    Read it when you install the hooks: its content counts as reviewed. A log that does not exist yet is empty.
    """
    git, _ = find_store(str(repo), {}, {os.geteuid(), 0, *owner})
    named, path = _resource(git, resource, None), needed(settings(log=log), "log")
    if os.path.lexists(path):
        with SqliteStore.open(path, read_only=True) as store:
            result = baseline_of(git, named, store)
    else:
        result = baseline_of(git, named, None)
    write_new(out, result.to_json())
    say(f"written  {out}: {len(result.refs)} references of {named} after {result.size} entries of the log")
    return OK


def _resource(git: GitDir, chosen: str | None, baseline: Baseline | None) -> str:
    """Return the resource name in the log: from the option, the baseline, or the installed hooks."""
    named = {chosen} if chosen else {baseline.resource} if baseline else {item.resource for item in installed(git)}
    if len(named) != 1:
        raise ConfigurationError(
            f"--resource is missing, the hooks name {', '.join(sorted(map(str, named))) or 'none'}",
            help="give `--resource repo:team/...` as the decisions name it",
        )
    (result,) = named
    if baseline is not None and baseline.resource != result:
        raise ConfigurationError(f"the baseline is of `{baseline.resource}`, expected one of `{result}`")
    return str(result)


def _trust(config: Config, origin: str) -> Trust:
    """Return the keys whose decisions and checkpoints count: those of the trust file, else our own."""
    trust = trust_or_own_key(config, origin)
    if trust is None:
        raise ConfigurationError("--trust is missing, expected a path", help="without it anybody's decisions would do")
    return trust


def _answer(subject: Subject, audited: Audited, findings: Sequence[Finding], as_json: bool) -> int:
    if as_json:
        say_json(
            {
                "clean": not findings,
                "resource": subject.resource,
                "references": audited.references,
                "decisions": audited.decisions,
                "entries": audited.entries,
                "findings": [{"code": f.code, "ref": f.ref, "entry": f.entry, "text": f.text} for f in findings],
            }
        )
        return FINDINGS if findings else OK
    for finding in findings:
        say(f"{finding.code:<15}  ", nl=False, fg="red", bold=True)
        say(f"{finding.ref + ': ' if finding.ref else ''}{finding.text}")
    if not findings:
        say("ok    ", nl=False, fg="green", bold=True)
        many = f"{audited.references} references of {subject.resource}"
        say(f"{many} are where {audited.decisions} decisions left them")
    return FINDINGS if findings else OK
