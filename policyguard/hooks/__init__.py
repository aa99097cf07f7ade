"""Enforcement points: programs and blocks of code that run only under a signed allow.

Promises: an error denies, and every refusal is signed and logged if key and log can be used. Leaves to others:
measuring (`evidence/`), deciding and logging (`guard.py`).

Read in this order: `stdio.py` (any program) with `responses.py` (a decision as JSON), `launcher/` (jobs), `watch/`
(running jobs), `git/` (pushes), `in_process/` (Python code, advisory), `former_options.py` (old names of options).

To add a hook for a platform `slurm`:

1. Write a folder `slurm/` with an entry point that builds a `Request` from what the platform says, gets its guard from
   `Guard.from_config`, and goes on only after `guard.enforce(request)`, which raises unless the answer is allow.
2. Make every error a denial: answer in the form that the platform reads, and take the exit code from `exit_codes.py`;
   `launcher/refusals.py` logs a request that could not be decided.
3. Write `docs/hooks/slurm.md`, and add the entry point to the table in `tests/e2e/test_denied_never_starts.py`.
"""
