"""The files that people write for a guard: the configuration file and the job file.

Promises: unknown, missing and malformed fields are errors that name the file and the field; paths are relative to the
configuration. Leaves to others: opening what these files name.

Read in this order: `file.py`, `measurement.py` (its section on collectors), `operator.py` (who may change it),
`paths.py` (what it names), `trust_file.py` (whose signatures count), `job_file.py`.
"""
