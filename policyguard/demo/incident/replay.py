"""Runs the twelve steps of the incident and a confined job, then tries to remove each of them from the log."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

from policyguard.audit.check import check_log
from policyguard.audit.proofs import latest_note
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.output import say
from policyguard.demo.incident import steps_after, steps_before
from policyguard.demo.incident.confined import confined
from policyguard.demo.incident.lab import Lab
from policyguard.demo.incident.story import Story
from policyguard.errors import AuditError
from policyguard.exit_codes import FINDINGS, OK

Step = Callable[[Lab, Story], None]

STEPS: tuple[Step, ...] = (
    steps_before.rights,
    steps_before.weights,
    steps_before.backdoor,
    steps_before.patch,
    steps_before.scale,
    steps_before.framework,
    steps_after.kills,
    steps_after.colleagues_weights,
    steps_after.reverted,
    steps_after.policies,
    steps_after.blame,
    steps_after.undetected,
    confined,
)


def replay(folder: Path | None = None) -> int:
    """Run the whole replay in a new folder and return 0 if every step behaves as expected, else 1."""
    if folder is not None:
        return _report(play(folder))
    with tempfile.TemporaryDirectory(prefix="policyguard-incident-") as name:
        return _report(play(Path(name) / "lab"))


def play(folder: Path) -> Story:
    """Run all steps, then try to change the log."""
    lab = Lab(folder)
    try:
        story = Story(root=str(folder))
        say(f"A lab at {folder}: policies, keys, a log, a repository, an installed environment, shared weights.")
        # INVARIANT I12: every step is refused or reported, and leaves an entry that cannot be removed unnoticed.
        for step in STEPS:
            step(lab, story)
            keep_checkpoint(lab)
        forget(lab, story)
        return story
    finally:
        lab.close()


def keep_checkpoint(lab: Lab) -> None:
    """Store the log's newest signed checkpoint, as a witness outside the cluster would."""
    with SqliteStore.open(lab.root / "audit.db", read_only=True) as store:
        note = latest_note(store)
        last = store.last()
        size = last.entry + 1 if last is not None else 0
    (lab.root / "witness" / f"{size:06d}").write_bytes(note)


def forget(lab: Lab, story: Story) -> None:
    """Try to remove each step from the log: delete the entry, close the gap, or truncate the log there."""
    say()
    say("Afterwards: the keeper of the log tries to change it", bold=True)
    story.step += 1
    notes = [path.read_bytes() for path in sorted((lab.root / "witness").iterdir())]
    entries = sorted({outcome.entry for outcome in story.outcomes if outcome.entry is not None})
    story.fact("as it is, the log adds up", f"{len(notes)} kept checkpoints", _adds_up(lab, notes) is None)
    for what, statements in REMOVALS.items():
        unseen = [entry for entry in entries if _adds_up(lab, notes, statements, entry) is None]
        story.fact(
            f"{what}: noticed for each of the {len(entries)} entries",
            f"not noticed: {unseen}" if unseen else f"for example: {_adds_up(lab, notes, statements, entries[0])}",
            not unseen,
        )


REMOVALS = {
    "one entry deleted": ("DELETE FROM entries WHERE idx = :entry",),
    "deleted, and the others moved up": (
        "DELETE FROM entries WHERE idx = :entry",
        "UPDATE entries SET idx = -idx WHERE idx > :entry",
        "UPDATE entries SET idx = -idx - 1 WHERE idx < 0",
    ),
    "everything from there on deleted": ("DELETE FROM entries WHERE idx >= :entry",),
    "one byte of it changed": (
        "UPDATE entries SET leaf = CAST(replace(leaf, substr(leaf, 40, 1), X'7e') AS BLOB) WHERE idx = :entry",
    ),
}


def _adds_up(lab: Lab, notes: list[bytes], statements: tuple[str, ...] = (), entry: int = 0) -> str | None:
    """Audit a modified copy of the log; None if it passes, else the auditor's message."""
    with tempfile.TemporaryDirectory(prefix="policyguard-log-") as name:
        path = Path(name) / "audit.db"
        source, copy = sqlite3.connect(lab.root / "audit.db"), sqlite3.connect(path)
        source.backup(copy)
        for statement in statements:
            copy.execute(statement, {"entry": entry})
        copy.commit()
        source.close()
        copy.close()
        try:
            with SqliteStore.open(path, read_only=True) as store:
                check_log(store, (lab.log.verifier,), notes)
        except AuditError as problem:
            return str(problem)
    return None


def _report(story: Story) -> int:
    say()
    if story.failures:
        say(f"{len(story.failures)} of {len(story.outcomes)} outcomes were not as expected.", fg="red", bold=True)
        return FINDINGS
    say(
        f"All {len(story.outcomes)} outcomes were as expected: every step was refused or left a trace.",
        fg="green",
        bold=True,
    )
    return OK
