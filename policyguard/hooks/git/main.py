"""The git server hooks: `policyguard hook git KIND ...`, called by the scripts that `policyguard repo` installs.

`pre-receive` judges a whole push, `update` one reference. `reference-transaction` sees every update made through git,
also an administrator's on the server: it lets through what one of the other two has just decided and judges the rest.
`post-receive` writes the verification summaries of what was accepted. Any exit but 0 makes git refuse.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from policyguard.errors import ConfigurationError, EvidenceError, PolicyGuardError
from policyguard.evidence.push.session import PushSession
from policyguard.evidence.push.updates import RefUpdate, parse_update, parse_updates
from policyguard.exit_codes import DENIED, OK, UNAVAILABLE, code_of_error
from policyguard.guard import Guard
from policyguard.hooks.git.judge import Judged, ask, judge, open_session
from policyguard.hooks.git.kept_decisions import Accepted
from policyguard.hooks.git.options import GitOptions, read_git_options
from policyguard.keyfiles import read_passphrase
from policyguard.text import printable_lines

MAX_INPUT_BYTES = 1_048_576
_ZEROS = (b"0" * 40, b"0" * 64)


def main(words: Sequence[str]) -> int:
    """Answer git with an exit code, the pusher with lines on standard error. Never raises, prints no traceback."""
    try:
        return _answer(read_git_options(words))
    except PolicyGuardError as problem:
        _say([f"policyguard: push refused: {problem}", *([f"  help: {problem.help}"] if problem.help else [])])
        return code_of_error(problem)
    # INVARIANT I2: a git hook that cannot tell refuses.
    except Exception as problem:  # noqa: BLE001 - git sees a refusal and the pusher a line whatever happens here
        _say([f"policyguard: push refused, the hook failed: {type(problem).__name__}: {problem}"])
        return UNAVAILABLE


def _answer(options: GitOptions) -> int:
    match options.kind:
        case "pre-receive":
            return _decide(options, parse_updates(_standard_input()))
        case "update":
            if len(options.arguments) != 3:
                raise ConfigurationError("the update hook wants three arguments, `REF OLD NEW`")
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
        judged = judged_push(options, guard, session, updates, os.environ)
        # INVARIANT I19: all references of a push move, or none does.
        accepted = all(each.allowed for each in judged)
        if accepted:
            Accepted(options.repo).keep([(each.update, each.signed) for each in judged])
    for each in judged:
        _say(each.lines())
    return OK if accepted else DENIED


def _check_present(session: PushSession, updates: tuple[RefUpdate, ...]) -> None:
    """Return if each reference stands where its update begins; what the pusher says it left behind is a claim."""
    for update in updates:
        found = session.current(update.ref)
        # INVARIANT I19: a push is judged from where the reference really stands.
        if found != update.old:
            raise EvidenceError(
                f"`{update.ref}` stands at `{found or 'nothing'}`, the push begins at `{update.old or 'nothing'}`",
                help="somebody else was faster; fetch, and push again",
            )


def _decide_one(options: GitOptions, update: RefUpdate) -> int:
    """Answer the update hook: git tells it of no push certificate, so what pre-receive accepted stands."""
    with open_session(options, os.environ) as session:
        with open_guard(options) as guard:
            if Accepted(options.repo).covers(update, session, options, guard, os.environ, taking=False):
                return OK
        return _decide_in(session, options, (update,))


def judged_push(
    options: GitOptions,
    guard: Guard,
    session: PushSession,
    updates: tuple[RefUpdate, ...],
    environment: Mapping[str, str],
) -> tuple[Judged, ...]:
    """Return the signed and logged decision on each update of a push."""
    spend = Accepted(options.repo).spend
    return judge(guard, ask(options, session, updates, environment, guard.snapshot.people, spend=spend))


def _transaction(options: GitOptions) -> int:
    if options.arguments[:1] != ("prepared",):
        return OK  # `preparing` comes before it with the same lines; committed and aborted cannot be stopped.
    lines = [line.split(b" ", 2) for line in _standard_input().splitlines()]
    moved = [words for words in lines if len(words) == 3 and words[2].startswith(b"refs/")]
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
        kept = Accepted(options.repo)
        left = tuple(update for update in updates if not kept.covers(update, session, options, guard, os.environ))
        judged = judged_push(options, guard, session, left, os.environ) if left else ()
    for each in judged:
        _say(each.lines())
    return OK if all(each.allowed for each in judged) else DENIED


def _from_transaction(old: bytes, new: bytes, ref: bytes, current: str | None) -> RefUpdate | None:
    """Return the update, its old id looked up: in a transaction zeros may mean "whatever it is"; None for no change."""
    if old in _ZEROS and current is not None:
        old = current.encode()
    if old == new or (old in _ZEROS and new in _ZEROS):
        return None
    return parse_update(old, new, ref)


def _summaries(options: GitOptions, updates: tuple[RefUpdate, ...]) -> int:
    with open_session(options, os.environ) as session, open_guard(options) as guard:
        written = Accepted(options.repo).summarize(updates, session, options, guard, os.environ)
    _say([f"verification summary {Path(path).name}" for path in written])
    return OK


def open_guard(options: GitOptions) -> Guard:
    """Return the guard of a hook; it collects nothing by itself, a push is measured as a whole."""
    return Guard.open(
        options.policies,
        key=options.key,
        log=options.log,
        audience=options.audience,
        lifetime_s=options.lifetime_s,
        passphrase=read_passphrase(),
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
        pass  # The pusher is gone; the exit code still says it.
