"""The command line: parses arguments, prints, and turns every error into one line and an exit code.

Promises: no traceback, no untrusted text that a terminal obeys, the exit codes of `exit_codes.py`. Leaves to others:
every decision and measurement. A verb is loaded only when it is called; `hook` never imports click.

Read in this order: `main.py` (entry point), `group.py` (verbs and errors), `options.py` (shared options), `verbs/`.
"""
