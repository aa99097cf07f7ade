"""The files that people write for a guard: the configuration file and the job file.

Promises: unknown, missing and malformed fields are errors that name the file and the field; paths are relative to the
configuration. Leaves to others: opening what these files name.

Read in this order: `file.py`, `measurement.py` (its sections), `job_file.py`.
"""
