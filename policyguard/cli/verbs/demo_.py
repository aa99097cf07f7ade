"""`policyguard demo`: run a job, or the replay of the incident, in a temporary lab."""

from __future__ import annotations

from pathlib import Path

import click

from policyguard.demo.incident.replay import replay
from policyguard.demo.quick import play


@click.command("demo")
@click.argument("what", type=click.Choice(["main", "incident"]), default="main")
@click.option("--folder", type=click.Path(path_type=Path), help="Build the lab here and keep it; must not exist yet.")
def command(what: str, folder: Path | None) -> int:
    """Build a small lab and run the main job in it: allowed, denied, replayed, tampered with.

    With `incident`, run the twelve steps of an insider's attack instead, each with its decision and its log entry.
    Exits with 0 only if every step behaves as expected.
    """
    return (replay if what == "incident" else play)(folder.absolute() if folder is not None else None)
