"""`policyguard repo check|install-hook|doctor|audit|baseline`: decide on pushes, and manage the hooks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from policyguard.cli.options import guard_options, json_option, key_option, policies_option
from policyguard.cli.output import say, say_explanation, say_json
from policyguard.cli.settings import needed, settings
from policyguard.cli.verbs.repo_.audit import audit_command, baseline_command
from policyguard.config.file import Config
from policyguard.config.trust_file import policy_signers, read_trust
from policyguard.decide.engine import Engine
from policyguard.errors import ConfigurationError, EvidenceError
from policyguard.evidence.identity import account_name
from policyguard.evidence.push.nonce import DEFAULT_AGE_S, MAX_AGE_S
from policyguard.evidence.push.objects import find_store
from policyguard.evidence.push.updates import RefUpdate, parse_update, parse_updates
from policyguard.exit_codes import DENIED, FINDINGS, OK
from policyguard.git.directory import GitDir
from policyguard.git.refs import References, is_ref_name
from policyguard.hooks.git.install import install, problems
from policyguard.hooks.git.judge import PendingUpdate, collect_facts, open_session
from policyguard.hooks.git.main import MAX_INPUT_BYTES
from policyguard.hooks.git.options import KINDS, REQUIRED, GitOptions
from policyguard.hooks.responses import decision_data
from policyguard.keyfiles import read_passphrase, read_private_key
from policyguard.model.decision import DEFAULT_AUDIENCE, Decision
from policyguard.policy_store.load import load_snapshot
from policyguard.text import printable_name
from policyguard.values import OBJECT_ID

_REVIEW = ("allowed_signers", "revoked_keys", "gpg_keyring", "approvals", "approval_log")
_REPO = click.Path(path_type=Path, exists=True, file_okay=False)


@click.group("repo")
def command() -> None:
    """Preview pushes to a git repository, install its hooks, and audit it."""


command.add_command(audit_command)
command.add_command(baseline_command)


@command.command("check")
@key_option
@policies_option
@click.option("--repo", type=_REPO, default=".", help="The repository; this folder if not given.")
@click.option("--resource", required=True, help="Which resource it is, such as `repo:team/vision/trainer`.")
@click.option("--ref", default="refs/heads/main", show_default=True, help="The reference that would move, for RANGE.")
@click.option("--as", "account", help="Who would push, such as `user:alice`; this account if not given.")
@click.option("--assume-signed", is_flag=True, help="Take it that the pusher will sign the push.")
@click.option("--stdin", "from_stdin", is_flag=True, help="Read lines `OLD NEW REF` as git gives them to pre-receive.")
@json_option
@click.argument("range", required=False, metavar="[OLD..NEW]")
def check(
    range: str | None,
    repo: Path,
    resource: str,
    ref: str,
    account: str | None,
    from_stdin: bool,
    as_json: bool,
    assume_signed: bool,
    **chosen: Any,
) -> int:
    """Show how a push would be decided, unsigned and unlogged. Exits 0 if it would be accepted, 77 if not."""
    config = settings(**chosen)
    path = needed(config, "policies")
    keys = () if config.key is None else (read_private_key(config.key, passphrase=read_passphrase()).public,)
    snapshot = load_snapshot(path, keys, policy_signers(config))
    updates = _updates(range, from_stdin, repo, ref)
    pusher = account or f"user:{account_name(os.getuid())}"
    options = GitOptions(
        kind="pre-receive",
        repo=str(repo),
        resource=resource,
        policies=str(path),
        key="",
        log="",
        pusher=("PUSHER={}",),
        **_reviewed_by(config, {}),
        **_trusted(config),
    )
    environment = {**os.environ, "PUSHER": pusher}
    with open_session(options, environment) as session:
        pending = collect_facts(options, session, updates, environment, snapshot.people, assume_signed=assume_signed)
    accepted = True
    for update in pending:
        decision = Engine(snapshot).decide(update.facts, time.time_ns())
        accepted = accepted and decision.allowed and update.problem is None
        _say_update(update, decision, as_json)
    return OK if accepted else DENIED


def _say_update(update: PendingUpdate, decision: Decision, as_json: bool) -> None:
    ref, problem = update.update.ref, update.problem
    if as_json:
        say_json({"ref": ref, **decision_data(decision), **({} if problem is None else {"problem": str(problem)})})
    elif problem is not None:
        # The hook refuses, whatever the policies say of the other facts; only the reason helps.
        say(f"{ref}  cannot be decided, so it is refused: {problem}")
    else:
        say(ref, bold=True)
        say_explanation(decision.explain())


def _updates(text: str | None, from_stdin: bool, repo: Path, ref: str) -> tuple[RefUpdate, ...]:
    if from_stdin == (text is not None):
        raise click.UsageError("give either OLD..NEW or --stdin")
    if from_stdin:
        return parse_updates(sys.stdin.buffer.read(MAX_INPUT_BYTES))
    old, dots, new = (text or "").partition("..")
    if not dots or new.startswith("."):
        raise click.UsageError(f"found `{text}`, expected `OLD..NEW`")
    git, _ = find_store(str(repo), {}, {os.geteuid(), 0})
    ids = [_resolved(git, word).encode() for word in (old, new or "HEAD")]
    return (parse_update(ids[0], ids[1], os.fsencode(ref)),)


def _resolved(git: GitDir, word: str) -> str:
    """Resolve HEAD, a branch, a tag, a full reference or a full id to an object id; refuse anything else."""
    if word == "HEAD":
        return References(git).head()[0]
    if OBJECT_ID.fullmatch(word):
        return word
    for name in (word,) if word.startswith("refs/") else (f"refs/heads/{word}", f"refs/tags/{word}"):
        result = References(git).id_of(os.fsencode(name)) if is_ref_name(os.fsencode(name)) else None
        if result is not None:
            return result
    raise EvidenceError(
        f"`{printable_name(word)}`: names no branch, tag or full object id here",
        help="give HEAD, a branch, a tag or a full id; `git rev-parse` turns other expressions into one",
    )


@command.command("install-hook")
@guard_options
@click.option("--kind", type=click.Choice(KINDS), multiple=True, help="Which hooks; pre-receive if not given.")
@click.option("--resource", required=True, help="Which resource the repository is, `repo:team/vision/trainer`.")
@click.option(
    "--pusher",
    multiple=True,
    required=True,
    metavar="VARIABLE[=TEMPLATE]",
    help="Which variable of the transport names the pusher, such as `REMOTE_USER=user:{}`; `os` for the "
    "account of the process. The first that is set counts.",
)
@click.option("--allowed-signers", type=click.Path(path_type=Path), help="OpenSSH allowed signers of pushes, commits.")
@click.option("--revoked-keys", type=click.Path(path_type=Path), help="Keys that speak for nobody any more.")
@click.option("--gpg-keyring", type=click.Path(path_type=Path), help="The only GPG keys that count, `gpg --export`.")
@click.option("--approvals", type=click.Path(path_type=Path), help="A folder of approvals, beside those in git notes.")
@click.option("--owner", type=int, multiple=True, help="A uid that may own the repository, beside ours and root.")
@click.option("--approval-log", type=click.Path(path_type=Path), help="A log that holds approvals as entries.")
@click.option("--vsa", type=click.Path(path_type=Path), help="post-receive writes verification summaries here.")
@click.option("--resource-uri", help="Where consumers find the repository, for the summaries.")
@click.option("--level", multiple=True, help="A SLSA source level that the operator claims, for the summaries.")
@click.option(
    "--certificate-age",
    type=click.IntRange(1, MAX_AGE_S),
    default=DEFAULT_AGE_S,
    show_default=True,
    metavar="SECONDS",
    help="For how long a push may use the nonce that git gave out for it.",
)
@click.argument("repo", type=_REPO)
def install_hook(repo: Path, kind: tuple[str, ...], resource: str, pusher: tuple[str, ...], **chosen: Any) -> int:
    """Write the hook scripts of REPO. Running it again changes nothing; another hook is never overwritten."""
    more: dict[str, Any] = {name: chosen.pop(name) for name in ("owner", "resource_uri", "level", "certificate_age")}
    more["vsa"] = _optional(chosen.pop("vsa"))
    reviewed_by = {name: chosen.pop(name) for name in _REVIEW}
    config = settings(**chosen)
    more |= _reviewed_by(config, reviewed_by) | _trusted(config)
    if "post-receive" in kind and (more["vsa"] is None or more["resource_uri"] is None):
        raise ConfigurationError("post-receive writes verification summaries, expected --vsa and --resource-uri")
    for entry_ in kind or ("pre-receive",):
        options = GitOptions(
            kind=entry_,
            repo=_absolute(_store(repo, more["owner"])),
            resource=resource,
            pusher=pusher,
            audience=config.audience or DEFAULT_AUDIENCE,
            policies=_absolute(needed(config, "policies")),
            key=_absolute(needed(config, "key")),
            log=_absolute(needed(config, "log")),
            state_dir=_optional(config.state_dir),
            **more,
        )
        path, written = install(options)
        say(f"{'written' if written else 'current'}  {path}")
    return OK


def _reviewed_by(config: Config, chosen: Mapping[str, Path | None]) -> dict[str, Any]:
    """Return where approvals are stored and which keys and commits count: from the options, else the configuration."""
    paths = {name: _optional(chosen.get(name) or getattr(config, name)) for name in _REVIEW}
    return {**paths, "signed_commits": REQUIRED if config.signed_commits else None}


def _trusted(config: Config) -> dict[str, Any]:
    """Collect the options of a hook that the trust file gives: a hook reads no YAML."""
    trust = None if config.trust is None else read_trust(config.trust)
    signers = None if trust is None else trust.policy_signers
    persons = {} if signers is None else {"policy_signer": signers.texts, "policy_threshold": signers.threshold}
    revocation = None if trust is None else trust.revocation
    if revocation is None:
        return persons
    return {
        **persons,
        "revocations": revocation.source,
        "revocation_key": tuple(key.text for key in revocation.keys),
        "revocation_age": revocation.max_age_s,
        "revocation_sequence": revocation.min_sequence,
    }


def _store(repo: Path, owners: tuple[int, ...]) -> Path:
    return Path(find_store(str(repo), {}, {os.geteuid(), 0, *owners})[0].shared)


def _optional(path: Path | None) -> str | None:
    return None if path is None else _absolute(path)


def _absolute(path: Path) -> str:
    return os.path.abspath(path)


@command.command("doctor")
@json_option
@click.argument("repo", type=_REPO)
def doctor(repo: Path, as_json: bool) -> int:
    """Check that the hooks of REPO exist, are executable and current, and refuse. Exits with 1 if anything is wrong."""
    result = list(problems(str(repo)))
    if as_json:
        say_json({"healthy": not result, "problems": [{"hook": hook, "problem": text} for hook, text in result]})
    else:
        for hook, text in result:
            say("ILL   ", nl=False, fg="red", bold=True)
            say(f"{hook}: {text}")
        if not result:
            say("ok    every push to this repository is judged", fg="green")
    return FINDINGS if result else OK
