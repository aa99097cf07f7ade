"""The command line: parses arguments, prints, and turns every error into one line and an exit code.

Promises: no traceback, no terminal control characters from input, and the exit codes of `exit_codes.py`. Leaves to
others: every decision and measurement. A verb is imported only when it is called; `hook` never imports click.

Read in this order: `main.py` (entry point), `streams.py`, `group.py` (verbs and errors), `output.py`,
`options.py`, `settings.py`, `files.py`, `jobs.py`, `answers.py`, `supposing.py`, `log_condition.py`, `tests_not_run.py`
(what verbs share), `verbs/`.
"""
