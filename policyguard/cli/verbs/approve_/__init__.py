"""The verb `approve`: `command.py` is its entry point."""

from __future__ import annotations

from policyguard.cli.verbs.approve_.command import command

__all__ = ["command"]
