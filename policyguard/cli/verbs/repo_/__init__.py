"""The verb `repo`: `command.py` is its entry point."""

from __future__ import annotations

from policyguard.cli.verbs.repo_.command import command

__all__ = ["command"]
