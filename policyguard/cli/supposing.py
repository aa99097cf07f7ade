"""The options by which somebody supposes facts, roles, approvals and the time of a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from policyguard.cli.files import read_input
from policyguard.cli.options import parse_moment
from policyguard.cli.settings import needed, snapshot_keys
from policyguard.config.file import Config
from policyguard.decide.snapshot import Snapshot
from policyguard.model.request import MAX_REQUEST_BYTES
from policyguard.policy_store.folder import grants_of, policy_set_of_folder
from policyguard.policy_store.load import load_snapshot
from policyguard.testing.suppose import Supposition, with_roles
from policyguard.values import Instant

F = TypeVar("F", bound=Callable[..., Any])


def _at(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Instant | None:
    return None if text is None else parse_moment(text)


_OPTIONS = {
    "fact": click.option("--fact", "facts", multiple=True, metavar="PATH=VALUE[@ASSURANCE]", help="Suppose a fact."),
    "facts": click.option(
        "--facts", "files", multiple=True, type=click.Path(path_type=Path), help="Suppose the facts of a file."
    ),
    "role": click.option(
        "--role",
        "roles",
        multiple=True,
        metavar="ROLE@DOMAIN",
        help="Suppose this role of the subject; its own bindings then do not count.",
    ),
    "approved-by": click.option(
        "--approved-by", "approvers", multiple=True, metavar="TYPE:ID", help="Suppose an approval."
    ),
    "contributor": click.option(
        "--contributor", "contributors", multiple=True, metavar="TYPE:ID", help="Suppose whose work it is."
    ),
    "at": click.option("--at", callback=_at, metavar="TIME", help="Suppose this time: a date, or 2027-01-05T03:00Z."),
}


def supposing(*names: str) -> Callable[[F], F]:
    """Return the decorator that adds these of the options; `take_supposition` takes their values."""

    def decorate(command: F) -> F:
        for name in reversed(names):
            command = _OPTIONS[name](command)
        return command

    return decorate


def take_supposition(chosen: dict[str, Any]) -> tuple[Supposition, Instant | None]:
    """Take what is supposed, and the supposed time, out of the options of a command."""
    supposed = Supposition(
        documents={str(path): read_input(path, MAX_REQUEST_BYTES) for path in chosen.pop("files", ())},
        **{name: tuple(chosen.pop(name, ())) for name in ("facts", "roles", "approvers", "contributors")},
    )
    return supposed, chosen.pop("at", None)


def snapshot_with_roles(config: Config, subject: str, roles: Sequence[str]) -> Snapshot:
    """Load the policies, with these roles in place of the bindings of a subject if there are any.

    Args:
        config: names the policies.
        subject: whose roles are supposed.
        roles: `ROLE@DOMAIN` each; they need a folder of policies, as a snapshot has no bindings.
    """
    path = needed(config, "policies")
    if not roles:
        return load_snapshot(path, snapshot_keys(config, path))
    policies = with_roles(policy_set_of_folder(path), subject, roles)
    return Snapshot.of(policies, grants_of(policies))
