"""`policyguard audit open-reviews` and `audit review`: list uses of break-glass, and review them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from policyguard.attest.note import NoteKey
from policyguard.audit.check import check_log
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.files import read_notes
from policyguard.cli.options import checkpoint_option, guard_options, json_option, key_option, log_option, trust_option
from policyguard.cli.output import say, say_explanation, say_json
from policyguard.cli.settings import needed, open_guard, settings
from policyguard.cli.verbs.verify_ import trust_or_own_key
from policyguard.config.file import Config
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import AuditError, ConfigurationError
from policyguard.evidence.breakglass import RESOURCE_TYPE, REVIEW_ACTION, BreakGlassUse, ReviewCollector, list_uses
from policyguard.evidence.collector import Collector
from policyguard.evidence.identity import ACCOUNT, IdentityCollector, calling_account
from policyguard.exit_codes import FINDINGS, OK, code_of_decision
from policyguard.hooks.responses import decision_data
from policyguard.model.request import Request
from policyguard.values import Instant, format_instant

_ENTRY = click.IntRange(0, 2**63 - 1)


@click.command("open-reviews")
@log_option
@trust_option
@key_option
@checkpoint_option
@click.option("--all", "everything", is_flag=True, help="List reviewed uses, too.")
@json_option
def open_reviews(checkpoints: tuple[Path, ...], everything: bool, as_json: bool, **chosen: Any) -> int:
    """List the uses of break-glass that nobody has reviewed yet.

    The log is verified first. Exits with 1 where one is overdue or an entry cannot be read, and not with 0 where the
    log does not add up.
    """
    config, now = settings(**chosen), time.time_ns()
    unreadable: list[AuditError] = []
    with SqliteStore.open(needed(config, "log"), read_only=True) as store:
        notes = read_notes(checkpoints, (store.origin,))
        # INVARIANT I13: no list of what is open comes from a log that does not add up.
        check_log(store, log_keys(config, store.origin), notes)
        uses = [use for use in list_uses(store, unreadable.append) if everything or use.review_entry is None]
    for use in uses:
        if as_json:
            say_json(_data(use, now))
        else:
            say(_line(use, now))
    if not uses and not as_json:
        say("nothing to review")
    _report(unreadable)
    return FINDINGS if unreadable or any(use.is_overdue(now) for use in uses) else OK


@click.command("review")
@guard_options
@click.option(
    "--as",
    "account",
    metavar="ACCOUNT",
    help="Who reviewed it, as `user:sam`, for accounts listed in `speakFor:`; this account if not given.",
)
@click.option("--finding", required=True, help="What the review found, in a sentence.")
@json_option
@click.argument("entry", type=_ENTRY)
def review(entry: int, account: str | None, finding: str, as_json: bool, **chosen: Any) -> int:
    """Review the use of break-glass at index ENTRY, if the policies allow this account to; the review is logged.

    Exits with 0 when it is in the log, and with 77 when denied, as for the accounts that used or acknowledged it.
    """
    config = settings(**chosen)
    log = needed(config, "log")
    unreadable: list[AuditError] = []
    with SqliteStore.open(log, read_only=True) as store:
        use = next((use for use in list_uses(store, unreadable.append) if use.entry == entry), None)
    _report(unreadable)
    if use is None:
        raise ConfigurationError(f"entry {entry} is no use of break-glass, see `policyguard audit open-reviews --all`")

    def collectors(snapshot: Snapshot, *_: object) -> Sequence[Collector]:
        return ReviewCollector(log, snapshot.people), identity

    accounts, speak_for = config.measurement.accounts, config.measurement.speak_for
    identity, caller = IdentityCollector(accounts, speak_for), calling_account(accounts, speak_for)
    reviewed = f"{RESOURCE_TYPE}:{use.decision_id}"
    request = Request.of(account or caller.name, REVIEW_ACTION, reviewed, finding=finding)
    with open_guard(config, collectors=collectors) as guard:
        # INVARIANT I1: who reviews is the account that the kernel authenticated, as for `policyguard run`.
        signed = guard.refuse_caller(request, caller, account)
        if signed is None:
            signed = guard.issue(guard.gather(request), recording=(ACCOUNT,))
    decision = signed.decision
    if as_json:
        say_json(decision_data(decision))
    else:
        say_explanation(decision.explain())
    return code_of_decision(decision)


def _report(unreadable: Sequence[AuditError]) -> None:
    for problem in unreadable:
        say(f"policyguard: skipped: {problem}", err=True, fg="red")


def log_keys(config: Config, origin: str) -> Sequence[NoteKey] | None:
    """Return the keys whose checkpoints count: those of the trust file, else our own, else None."""
    trust = trust_or_own_key(config, origin)
    return trust.logs if trust is not None else None


def _data(use: BreakGlassUse, now: Instant) -> dict[str, Any]:
    data = {name: getattr(use, name) for name in use.__struct_fields__}
    times = {name: format_instant(getattr(use, name)) for name in ("used_at", "due_at")}
    return {**data, **times, "overdue": use.is_overdue(now)}


def _line(use: BreakGlassUse, now: Instant) -> str:
    if use.review_entry is not None:
        state = f"reviewed by {use.reviewed_by}, entry {use.review_entry}"
    else:
        state = f"{'OVERDUE since' if use.is_overdue(now) else 'open until'} {format_instant(use.due_at)}"
    reviewers = f", acknowledged by {', '.join(use.acknowledged_by)}" if use.acknowledged_by else ""
    return f"{use.entry:>6}  {state}  {use.requester}  {use.action}  {use.resource}{reviewers}"
