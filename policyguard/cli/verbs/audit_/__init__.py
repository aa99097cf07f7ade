"""The verb `audit`: `command.py` is its entry point."""

from __future__ import annotations

from policyguard.cli.verbs.audit_.command import command

__all__ = ["command"]
