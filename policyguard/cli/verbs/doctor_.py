"""`policyguard doctor`: check that this installation and configuration work; each problem is one line."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from shutil import which

import click

from policyguard.attest.keys import PrivateKey, PublicKey
from policyguard.attest.note import NoteKey
from policyguard.attest.revocation import open_list
from policyguard.attest.trust import RevocationTrust, Trust, TrustedKey
from policyguard.audit.log import Log
from policyguard.audit.receipt import SignedDecision
from policyguard.audit.reservations import DEFAULT_AMOUNT, actions_with_quota
from policyguard.audit.stores.memory import MemoryStore
from policyguard.cli.log_condition import describe_log, log_problems
from policyguard.cli.options import json_option
from policyguard.cli.output import say, say_json
from policyguard.cli.settings import settings, snapshot_keys
from policyguard.cli.verbs.init_ import example_policies
from policyguard.config.file import Config
from policyguard.config.trust_file import policy_signers, read_trust
from policyguard.confinement.landlock import abi_version
from policyguard.confinement.profile import NEWEST_ABI, missing_before
from policyguard.errors import PolicyGuardError, VerificationError
from policyguard.exit_codes import FINDINGS, OK
from policyguard.guard import Guard
from policyguard.keyfiles import read_passphrase, read_private_key
from policyguard.model.request import Request
from policyguard.policy_store.load import load_snapshot
from policyguard.revocation_file import read_revocations
from policyguard.text import quoted_list
from policyguard.values import NANOSECONDS_PER_S, parse_instant
from policyguard.verify import verify, verify_origin

NEEDED = {"pycasbin": (2, 8), "simpleeval": (1, 0, 8), "PyYAML": (6, 0, 3), "cryptography": (48,), "msgspec": (0, 22)}

Check = Callable[[Config], Iterator[str]]
"""Yields one line for each problem; nothing if all is well."""


@click.command("doctor")
@json_option
def command(as_json: bool) -> int:
    """Check packages, the key, the policies, trust and the log, and try a decision. Exits with 1 on a problem."""
    config = settings()
    result: dict[str, list[str]] = {}
    for title, check in CHECKS.items():
        try:
            result[title] = list(check(config))
        except PolicyGuardError as problem:
            result[title] = str(problem).splitlines()
    ill, notes, details = any(result.values()), _notes(config), _details(config)
    if as_json:
        say_json({"healthy": not ill, "checks": result, "details": details, "notes": notes})
        return FINDINGS if ill else OK
    for title, problems in result.items():
        say(f"{'ILL ' if problems else 'ok  '}  ", nl=False, fg="red" if problems else "green", bold=True)
        say(title)
        for line in problems:
            say(f"      {line}")
        for line in details.get(title, ()):
            say(f"      ({line})")
    for line in notes:
        say(f"note  {line}")
    return FINDINGS if ill else OK


def _details(config: Config) -> dict[str, list[str]]:
    """List details of the checks that their titles do not show, and what is not configured."""
    settings_of_checks = {"key": config.key, "policies": config.policies, "trust": config.trust}
    details = {title: ["not configured"] for title, path in settings_of_checks.items() if path is None}
    return {**details, "log": describe_log(config)}


def _notes(config: Config) -> list[str]:
    """List what works but could be stricter; these lines do not change the exit code."""
    return [*_quota_notes(config), *_trust_notes(config)]


def _quota_notes(config: Config) -> Iterator[str]:
    """Say so where policies decide by a quota and nothing is reserved in it."""
    if config.policies is None or config.measurement.reserve is not None:
        return
    try:
        keys = snapshot_keys(config, config.policies)
        actions = actions_with_quota(load_snapshot(config.policies, keys, policy_signers(config)))
    except PolicyGuardError:
        return
    if actions:
        yield (
            f"{config.policies}: rules for {quoted_list(actions)} read the team's use, and nothing is reserved; where "
            "figures are supplied, two submissions at one moment both pass with room for one; add `quota:` with a "
            f"`file:` or `command:`, or `quota: {{reserve: {DEFAULT_AMOUNT}}}` where a platform supplies them"
        )


def _trust_notes(config: Config) -> list[str]:
    try:
        trust = None if config.trust is None else read_trust(config.trust)
    except PolicyGuardError:
        return []
    if trust is None:
        return [_confinement()]
    notes = [_confinement(), *(f"{config.trust}: {note}" for note in _holders(config, trust))]
    if trust.revocation is None:
        notes.append(
            f"{config.trust}: has no `revocation:`; step V12 is skipped, and a decision whose approver's key is "
            "revoked verifies until it expires"
        )
    return notes


def _confinement() -> str:
    """Describe what `run --confine` enforces on this machine."""
    abi, reason = abi_version()
    if not abi:
        return f"`run --confine` starts no job here: {reason}"
    gaps = missing_before(abi)
    kernel = f" of the kernel's {abi}" if abi > NEWEST_ABI else ""
    uses = f"`run --confine` uses Landlock ABI {min(abi, NEWEST_ABI)}{kernel}"
    return uses + (f"; not enforced: {'; '.join(gaps)}" if gaps else "")


def _holders(config: Config, trust: Trust) -> Iterator[str]:
    """Yield the weaknesses in how the guard's keys are held."""
    if not trust.names_holders:
        yield (
            "says of no key how it is held, so every key counts, as in 0.1.0; add `selfIssued: accept` to keep that, "
            "or `heldBy: service` to a key that only a service can read"
        )
    elif trust.self_issued:
        yield (
            "has `selfIssued: accept`; a key held by `self` enforces nothing on accounts that can read the key; "
            "remove it where a service decides"
        )
    if any(trusted.held_by == "service" and trusted.key == _own_key(config) for trusted in trust.keys):
        yield (
            f"has `heldBy: service` for `{config.key}`, and this account can read it; right only if this account "
            "runs the service and submits no jobs"
        )


def _own_key(config: Config) -> PublicKey | None:
    try:
        return None if config.key is None else read_private_key(config.key, passphrase=read_passphrase()).public
    except PolicyGuardError:
        return None


def _packages(_: Config) -> Iterator[str]:
    for name, minimum in NEEDED.items():
        try:
            result = version(name)
        except PackageNotFoundError:
            yield f"{name} is not installed"
            continue
        if _numbers(result) < minimum:
            yield f"{name} is {result}, expected {'.'.join(map(str, minimum))} or newer"
    owners = set(packages_distributions().get("casbin", ()))
    if {"casbin", "pycasbin"} <= owners:
        yield "`casbin` and `pycasbin` are both installed and overwrite each other; remove both, install `pycasbin`"


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    return tuple(int(part) for part in parts if part.isdigit())


def _platform(_: Config) -> Iterator[str]:
    if sqlite3.sqlite_version_info < (3, 35):
        yield f"SQLite is {sqlite3.sqlite_version}, expected 3.35 or newer"
    if which("git") is None:
        yield "git is not installed; repositories cannot be measured"


def _key(config: Config) -> Iterator[str]:
    if config.key is not None:
        read_private_key(config.key, passphrase=read_passphrase())
    yield from ()


def _policies(config: Config) -> Iterator[str]:
    if config.policies is not None:
        keys = () if config.key is None else (read_private_key(config.key, passphrase=read_passphrase()).public,)
        if config.policies.is_dir() or keys:
            load_snapshot(config.policies, keys, policy_signers(config))
        else:
            yield f"{config.policies}: is compiled, and no key is configured to check it by"


def _trust(config: Config) -> Iterator[str]:
    if config.trust is None:
        return
    trust = read_trust(config.trust)
    if config.key is not None:
        public = read_private_key(config.key, passphrase=read_passphrase()).public
        now = time.time_ns()
        own = [trusted for trusted in trust.keys if trusted.key == public and trusted.is_valid(now)]
        if not own:
            yield f"{config.trust}: does not trust `{config.key}` today; workers will refuse its decisions at V4"
        elif not any(map(trust.accepts_form, own)):
            yield (
                f"{config.trust}: does not accept how `{config.key}` is held; workers will refuse its decisions at "
                "V10: `heldBy: service` if only a service can read it, or `selfIssued: accept` for a local lab"
            )
    if trust.revocation is not None:
        yield from _revocations(trust, trust.revocation)
    if config.audience is not None and config.audience not in trust.audiences:
        yield f"{config.trust}: does not name the audience `{config.audience}`; workers will refuse at V8"


def _revocations(trust: Trust, pinned: RevocationTrust) -> Iterator[str]:
    try:
        content = open_list(read_revocations(trust) or b"", pinned.keys)
    except VerificationError as problem:
        yield f"{problem}; workers will refuse every decision"
        return
    age_s = (time.time_ns() - parse_instant(content.issued_at)) // NANOSECONDS_PER_S
    if not 0 <= age_s <= pinned.max_age_s or content.sequence < pinned.min_sequence:
        yield (
            f"{pinned.source}: is of {content.issued_at} with sequence {content.sequence}, expected at most "
            f"{pinned.max_age_s} s old and sequence {pinned.min_sequence} or more; workers will refuse at V12: "
            "`policyguard revoke refresh`"
        )


def _self_test(_: Config) -> Iterator[str]:
    """Check that a known deny denies, a signed decision verifies, and a changed one does not."""
    key = PrivateKey.generate(os.urandom(32))
    snapshot = load_snapshot(Path(str(example_policies())), ())
    store = MemoryStore("doctor")
    guard = Guard(snapshot, key, Log.open(store, key, "doctor"))
    request = Request.of("user:nobody-knows", "job:submit", "job:team/vision/run", gpus=1)
    signed = guard.decide(request)
    if signed.decision.allowed:
        yield "the self-test's stranger was allowed to submit a job"
    trust = Trust(
        keys=(TrustedKey(key=key.public),),
        logs=(NoteKey("doctor", key.public),),
        audiences=frozenset({"local"}),
        policy_digests=frozenset({snapshot.policy_digest}),
    )
    verify_origin(signed.to_json(), trust)
    try:
        verify(signed.to_json(), trust, request, audience="local", now=time.time_ns())
        yield "the self-test's denial was taken for an allow"
    except VerificationError as problem:
        if problem.step != "V10":
            yield f"the self-test's denial was refused at {problem.step}, expected V10"
    if _verifies(bytes(signed.to_json()).replace(b'"index":0', b'"index":1'), trust):
        yield "the self-test's altered decision verified"


def _verifies(data: bytes, trust: Trust) -> bool:
    try:
        verify_origin(SignedDecision.from_json(data), trust)
    except VerificationError:
        return False
    return True


CHECKS: dict[str, Check] = {
    "packages": _packages,
    "platform": _platform,
    "key": _key,
    "policies": _policies,
    "trust": _trust,
    "log": log_problems,
    "self-test": _self_test,
}
