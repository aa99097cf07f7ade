"""The git server hooks: `policyguard hook git KIND ...`, called by the scripts that `policyguard repo` installs.

`pre-receive` decides about a whole push, `update` about one reference. `reference-transaction` sees every update made
through git, including an administrator's on the server: it accepts what one of the other two has just decided, and
decides about everything else. `post-receive` writes the verification summaries of accepted revisions. Git refuses on
any exit code except 0.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from policyguard.config.paths import PATHS, check_options
from policyguard.errors import ConfigurationError, EvidenceError, PolicyGuardError
from policyguard.evidence.push.session import PushSession
from policyguard.evidence.push.updates import RefUpdate, parse_update, parse_updates
from policyguard.exit_codes import DENIED, OK, UNAVAILABLE, code_of_error
from policyguard.guard import Guard
from policyguard.hooks.git.decision_store import DecisionStore
from policyguard.hooks.git.judge import DecidedUpdate, collect_facts, decide_updates, open_session
from policyguard.hooks.git.options import GitOptions, read_git_options
from policyguard.keyfiles import read_passphrase
from policyguard.text import printable_lines

MAX_INPUT_BYTES = 1_048_576
_ZEROS = (b"0" * 40, b"0" * 64)


def main(argv: Sequence[str]) -> int:
    """Run a hook: exit code for git, lines on standard error for the pusher. Never raises or prints a traceback."""
    try:
        return _answer(read_git_options(argv))
    except PolicyGuardError as problem:
        _say([f"policyguard: push refused: {problem}", *([f"  help: {problem.help}"] if problem.help else [])])
        return code_of_error(problem)
    # INVARIANT I2: a git hook that fails refuses.
    except Exception as problem:  # noqa: BLE001 - git sees a refusal and the pusher a line whatever happens here
        _say([f"policyguard: push refused, the hook failed: {type(problem).__name__}: {problem}"])
        return UNAVAILABLE


def _answer(options: GitOptions) -> int:
    # INVARIANT I1: what a hook reads belongs to the operator; a folder in the repository is fine if only the guard's
    # account writes to it, because a push cannot.
    named = {name: getattr(options, name) for name in PATHS.values() if hasattr(options, name)}
    options = msgspec.structs.replace(options, **check_options(named))
    match options.kind:
        case "pre-receive":
            return _decide(options, parse_updates(_standard_input()))
        case "update":
            if len(options.arguments) != 3:
                raise ConfigurationError("the update hook needs three arguments, `REF OLD NEW`")
            ref, old, new = map(os.fsencode, options.arguments)
            return _decide_one(options, parse_update(old, new, ref))
        case "reference-transaction":
            return _transaction(options)
        case _:
            return _summaries(options, parse_updates(_standard_input()))


def _decide(options: GitOptions, updates: tuple[RefUpdate, ...]) -> int:
    with open_session(options, os.environ) as session:
        return _decide_in(session, options, updates)


def _decide_in(session: PushSession, options: GitOptions, updates: tuple[RefUpdate, ...]) -> int:
    _check_present(session, updates)
    with open_guard(options) as guard:
        decided = decide_push(options, guard, session, updates, os.environ)
        # INVARIANT I19: all references of a push move, or none does.
        accepted = all(update.allowed for update in decided)
        if accepted:
            DecisionStore(options.repo).save([(update.update, update.signed) for update in decided])
    for update in decided:
        _say(update.lines())
    return OK if accepted else DENIED


def _check_present(session: PushSession, updates: tuple[RefUpdate, ...]) -> None:
    """Check that each reference has the old value that the update claims."""
    for update in updates:
        current = session.current(update.ref)
        # INVARIANT I19: a push is decided from the value that the reference really has.
        if current != update.old:
            raise EvidenceError(
                f"`{update.ref}` is at `{current or 'nothing'}`, the push begins at `{update.old or 'nothing'}`",
                help="somebody else was faster; fetch, and push again",
            )


def _decide_one(options: GitOptions, update: RefUpdate) -> int:
    """Answer the update hook, which gets no push certificate: a stored decision of pre-receive is accepted."""
    with open_session(options, os.environ) as session:
        with open_guard(options) as guard:
            if DecisionStore(options.repo).allows(update, session, options, guard, os.environ):
                return OK
        return _decide_in(session, options, (update,))


def decide_push(
    options: GitOptions,
    guard: Guard,
    session: PushSession,
    updates: tuple[RefUpdate, ...],
    environment: Mapping[str, str],
) -> tuple[DecidedUpdate, ...]:
    """Decide, sign and log each update of a push.

    Args:
        options: the options of the hook.
        guard: decides, signs and logs.
        session: reads the repository and the objects of this push.
        updates: the updates of the push.
        environment: the environment of the hook.
    """
    mark_used = DecisionStore(options.repo).mark_certificate_used
    return decide_updates(
        guard,
        collect_facts(options, session, updates, environment, guard.snapshot.people, mark_used=mark_used, guard=guard),
    )


def _transaction(options: GitOptions) -> int:
    if options.arguments[:1] != ("prepared",):
        return OK  # `preparing` comes first, with the same lines; committed and aborted cannot be stopped.
    lines = [line.split(b" ", 2) for line in _standard_input().splitlines()]
    moved = [fields for fields in lines if len(fields) == 3 and fields[2].startswith(b"refs/")]
    with open_session(options, os.environ) as session:
        return _transact(session, options, moved)


def _transact(session: PushSession, options: GitOptions, moved: Sequence[Sequence[bytes]]) -> int:
    updates = tuple(
        update
        for old, new, ref in moved
        if (update := _from_transaction(old, new, ref, session.current(os.fsdecode(ref)))) is not None
        and not (update.new is None and session.stays_packed_after_delete(update.ref, str(update.old)))
    )
    if not updates:
        return OK
    with open_guard(options) as guard:
        store = DecisionStore(options.repo)
        undecided = tuple(
            update for update in updates if not store.allows(update, session, options, guard, os.environ, consume=True)
        )
        decided = decide_push(options, guard, session, undecided, os.environ) if undecided else ()
    for result in decided:
        _say(result.lines())
    return OK if all(result.allowed for result in decided) else DENIED


def _from_transaction(old: bytes, new: bytes, ref: bytes, current: str | None) -> RefUpdate | None:
    """Build the update of a reference transaction; None if nothing changes.

    In a transaction, an old id of zeros can also mean "any value".
    """
    if old in _ZEROS and current is not None:
        old = current.encode()
    if old == new or (old in _ZEROS and new in _ZEROS):
        return None
    return parse_update(old, new, ref)


def _summaries(options: GitOptions, updates: tuple[RefUpdate, ...]) -> int:
    with open_session(options, os.environ) as session, open_guard(options) as guard:
        written = DecisionStore(options.repo).summarize(updates, session, options, guard, os.environ)
    _say([f"verification summary {Path(path).name}" for path in written])
    return OK


def open_guard(options: GitOptions) -> Guard:
    """Open the guard of a hook, without collectors: a push is measured as a whole."""
    return Guard.open(
        options.policies,
        key=options.key,
        log=options.log,
        state_dir=options.state_dir,
        audience=options.audience,
        lifetime_s=options.lifetime_s,
        passphrase=read_passphrase(),
        policy_signers=options.policy_signers,
    )


def _standard_input() -> bytes:
    text = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    if len(text) > MAX_INPUT_BYTES:
        raise EvidenceError(f"found more than {MAX_INPUT_BYTES} bytes of updates, expected a smaller push")
    return text


def _say(lines: Sequence[str]) -> None:
    try:
        for line in lines:
            sys.stderr.write(printable_lines(line) + "\n")
        sys.stderr.flush()
    except OSError:
        pass  # The pusher has disconnected; the exit code is still set.
