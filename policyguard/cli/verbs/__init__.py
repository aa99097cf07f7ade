"""The verbs of the command line: one file `<verb>_.py`, or one folder `<verb>_/`, per verb.

To add a verb `frobnicate`:

1. Write `frobnicate_.py` with a click command named `command`; hyphens in a verb become underscores. Its docstring is
   the text of `policyguard frobnicate --help`. Parse and print here; put what the verb does into another package.
2. Add one line to `VERBS` in `cli/group.py`, and to `WITHOUT_CONFIG` there if the verb reads no configuration.
3. Add its row to the README; a test compares the README with `--help`.

The command returns an exit code from `exit_codes.py`, or None for 0. It raises `PolicyGuardError` for bad data;
`cli/group.py` prints the line and chooses the exit code. `options.py` has the shared options.
"""
