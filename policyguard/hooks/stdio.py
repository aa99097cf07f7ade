"""The hook for any program: a JSON request on standard input, a JSON answer and an exit code.

    policyguard hook [--config FILE] --policies FILE --key FILE --log FILE [--state-dir FOLDER] [--audience NAME]
        [--policy-signer PERSON=KEY... --policy-threshold N] [--observed PATH]... [--measure] [--approvals FOLDER]
        [--approval-log FILE] [--allowed-signers FILE] [--revoked-keys FILE] [--gpg-keyring FILE]
        [--reviewed-commits FILE]

Exit codes: 0 allowed, 77 denied, 65 bad input, 69 unavailable, 78 configuration; a caller need not read the JSON.
With a compiled snapshot neither yaml, casbin nor CEL is imported, and click never is: start-up time is a feature.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

import msgspec

from policyguard.config.paths import check_options, job_folders
from policyguard.errors import ConfigurationError, PolicyGuardError, RequestError
from policyguard.evidence.collector import Collectors, JobInputs
from policyguard.exit_codes import BAD_DATA, UNAVAILABLE, code_of_decision, code_of_error
from policyguard.fs.safe_open import reason_of
from policyguard.fs.write import discard_output
from policyguard.guard import Guard
from policyguard.hooks.former_options import HOOK, rename_former_options
from policyguard.hooks.responses import decision_data
from policyguard.keyfiles import read_passphrase
from policyguard.model.decision import DEFAULT_AUDIENCE, DEFAULT_LIFETIME_S
from policyguard.model.request import MAX_REQUEST_BYTES, Request
from policyguard.text import quoted_list

_PATHS = ("policies", "key", "log")
_REVIEW = ("approvals", "approval_log", "allowed_signers", "revoked_keys", "gpg_keyring", "reviewed_commits")
_MANY = ("observed", "policy_signer")
_OPTIONS = tuple(
    f"--{name.replace('_', '-')}"
    for name in ("config", *_PATHS, "state_dir", "audience", *_MANY, "policy_threshold", *_REVIEW)
)


class HookOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `policyguard hook`; None means not given."""

    config: str | None = None
    policies: str | None = None
    key: str | None = None
    log: str | None = None
    state_dir: str | None = None
    audience: str | None = None
    lifetime_s: int = DEFAULT_LIFETIME_S
    observed: tuple[str, ...] = ()
    measure: bool = False
    approvals: str | None = None
    approval_log: str | None = None
    allowed_signers: str | None = None
    revoked_keys: str | None = None
    gpg_keyring: str | None = None
    reviewed_commits: str | None = None
    signed_only: bool = False
    accounts: dict[str, str] = {}
    speak_for: frozenset[str] = frozenset()
    repositories: tuple[Any, ...] = ()
    policy_signer: tuple[str, ...] = ()
    policy_threshold: str | None = None
    reserve: str | None = None


def main(argv: Sequence[str]) -> int:
    """Answer the request on standard input and return the exit code. Never raises or prints a traceback."""
    argv, warnings = rename_former_options(argv, HOOK)
    _warn(warnings)
    try:
        text = sys.stdin.buffer.read(MAX_REQUEST_BYTES + 1)
    except OSError as problem:
        error = f"standard input cannot be read: {reason_of(problem)}"
        answer, code = _json({"decision": False, "error": error}), BAD_DATA
    else:
        answer, code = respond(
            text,
            lambda: open_guard(read_options(argv)),
            lambda request, reason: _log(read_options(argv), request, reason),
        )
    try:
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()
    except OSError:
        # The caller cannot be written to; it must not read a missing answer as an allow. A denial stays one.
        discard_output(1)
        return code or UNAVAILABLE
    return code


def respond(
    text: bytes, opened: Callable[[], Guard], undecided: Callable[[Request, PolicyGuardError], None] | None = None
) -> tuple[bytes, int]:
    """Answer a request: return the JSON bytes and the exit code that means the same.

    A denial is an answer, signed and logged; a problem is an answer, too, with `decision` false and `error`.

    Args:
        text: the request as JSON.
        opened: opens the guard.
        undecided: called with a request that could not be decided, to log its refusal.
    """
    request = None
    try:
        request = Request.from_json(text)
        with opened() as guard:
            signed = guard.decide(request, _here())
        decision = signed.decision
        data = {**decision_data(decision), "signed": json.loads(signed.to_json())}
        return _json(data), code_of_decision(decision)
    except PolicyGuardError as problem:
        if request is not None and undecided is not None:
            with suppress(PolicyGuardError):
                undecided(request, problem)
        return _json(_refusal(problem)), code_of_error(problem)
    # INVARIANT I2: a hook that fails denies.
    except Exception as problem:  # noqa: BLE001 - the caller sees an answer and a code whatever happens here
        failure = PolicyGuardError(f"the hook failed: {problem}")
        if request is not None and undecided is not None:
            with suppress(Exception):
                undecided(request, failure)
        return _json(_refusal(failure)), UNAVAILABLE


def read_options(argv: Sequence[str]) -> HookOptions:
    """Parse the arguments, and complete them from the operator's configuration if there is one.

    Raises:
        ConfigurationError: an unknown option, a value missing, or a path that somebody other than the operator can
            change.
    """
    options: dict[str, Any] = {}
    rest = list(argv)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        option = name.removeprefix("--").replace("-", "_")
        if name == "--measure" and not equals:
            options["measure"] = True
            continue
        if name not in _OPTIONS:
            known = quoted_list(_OPTIONS)
            raise ConfigurationError(f"unknown option `{name}`, expected one of {known}, `--measure`")
        if not equals:
            if not rest:
                raise ConfigurationError(f"`{name}` has no value, expected `{name} VALUE`")
            value = rest.pop(0)
        if not value:
            raise ConfigurationError(f"`{name}`: found empty text, expected a value")
        options[option] = (*options.get(option, ()), value) if option in _MANY else value
    parsed = HookOptions(**options)
    if parsed.config is None and all(getattr(parsed, path) for path in _PATHS):
        named = {name: getattr(parsed, name) for name in (*_PATHS, "state_dir", *_REVIEW)}
        return msgspec.structs.replace(parsed, **check_options(named, _apart(parsed)))
    return _completed(parsed)


def open_guard(options: HookOptions) -> Guard:
    """Open the guard that these options describe.

    Raises:
        ConfigurationError: policies, key or log is not configured.
    """
    for name in _PATHS:
        if not getattr(options, name):
            raise ConfigurationError(
                f"--{name} is missing, expected a path", help=f"give --{name}, or --config FILE with `{name}:` in it"
            )
    return Guard.open(
        str(options.policies),
        key=str(options.key),
        log=str(options.log),
        state_dir=options.state_dir,
        audience=DEFAULT_AUDIENCE if options.audience is None else options.audience,
        lifetime_s=options.lifetime_s,
        collectors=collectors(options),
        passphrase=read_passphrase(),
        reserve=options.reserve,
        policy_signers=_policy_signers(options),
    )


def _policy_signers(options: HookOptions) -> Any:
    """Return the persons who must have signed the policies; None if nobody must."""
    if not options.policy_signer and options.policy_threshold is None:
        return None
    threshold = options.policy_threshold or ""
    if not (threshold.isascii() and threshold.isdigit() and len(threshold) < 4):
        raise ConfigurationError(f"--policy-threshold: found `{threshold[:20]}`, expected the number of persons")
    return import_module("policyguard.attest.trust").PolicySigners.of_texts(options.policy_signer, int(threshold))


def collectors(options: HookOptions) -> Collectors:
    """Build the collectors: observations of the platform, approvals, and with `measure` identity and code."""
    review = {name: getattr(options, name) for name in _REVIEW if getattr(options, name) is not None}
    # Imported here, so that only a hook that measures or reads approvals pays for it.
    if not (options.measure or review or options.signed_only):
        channel = "policyguard.evidence.platform"
        return (import_module(channel).ChannelCollector(options.observed),) if options.observed else ()
    path, files = import_module("pathlib").Path, import_module("policyguard.evidence.approvals.collectors").ReviewFiles
    chosen: Collectors = import_module("policyguard.assembly.requests").request_collectors(
        files(**{name: path(text) for name, text in review.items()}, signed_only=options.signed_only),
        options.observed,
        measure=options.measure,
        repositories=options.repositories,
        identity=import_module("policyguard.evidence.identity").IdentityCollector(options.accounts, options.speak_for),
    )
    return chosen


def _log(options: HookOptions, request: Request, problem: PolicyGuardError) -> None:
    """Log that a request was refused undecided, if key and log are known.

    The import is here, because only a failure needs it.
    """
    if options.key and options.log:
        import_module("policyguard.hooks.launcher.refusals").log_undecided(
            request,
            problem,
            key=options.key,
            log=options.log,
            state_dir=options.state_dir,
            audience=DEFAULT_AUDIENCE if options.audience is None else options.audience,
            passphrase=read_passphrase(),
        )


def _here() -> JobInputs:
    return JobInputs(directory=os.getcwd(), environment=dict(os.environ))


def _apart(options: HookOptions) -> Sequence[str]:
    """Return the folders of the job; only a hook that measures has one."""
    return job_folders(os.getcwd()) if options.measure else ()


def _completed(options: HookOptions) -> HookOptions:
    """Complete the options from the operator's configuration; only here does a hook read YAML."""
    names = (*_PATHS, "state_dir", "audience", *_REVIEW)
    chosen = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    config = import_module("policyguard.config.operator").operator_config(
        options.config, options=chosen, job_folder=os.getcwd() if options.measure else None
    )
    _warn(config.warnings)
    signers = import_module("policyguard.config.trust_file").policy_signers(config)
    return HookOptions(
        **{name: str(getattr(config, name)) for name in names if getattr(config, name) is not None},
        config=options.config,
        lifetime_s=config.lifetime_s,
        observed=options.observed,
        measure=options.measure,
        signed_only=config.signed_commits,
        accounts=dict(config.measurement.accounts),
        speak_for=config.measurement.speak_for,
        repositories=config.measurement.repositories,
        policy_signer=options.policy_signer or (signers.texts if signers is not None else ()),
        policy_threshold=options.policy_threshold or (str(signers.threshold) if signers is not None else None),
        reserve=config.measurement.reserve,
    )


def _warn(warnings: Sequence[str]) -> None:
    """Write warnings to standard error; a closed or broken one must not stop the answer."""
    with suppress(OSError, ValueError):
        for warning in warnings:
            sys.stderr.write(f"policyguard: {warning}\n")


def _refusal(problem: PolicyGuardError) -> dict[str, Any]:
    data: dict[str, Any] = {"decision": False, "error": str(problem)}
    if isinstance(problem, RequestError):
        data["path"] = problem.path
    if problem.help:
        data["help"] = problem.help
    return data


def _json(data: object) -> bytes:
    return json.dumps(data, ensure_ascii=True, separators=(",", ":")).encode()
