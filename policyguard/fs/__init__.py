"""Files: opened safely against links, FIFOs and other accounts; written completely and durably or not at all.

Leaves the meaning of the bytes to the callers. Read in this order: `safe_open.py` (files that others may have placed),
`write.py` (our own files), `ownership.py` (who can change a file), `private_files.py` (files that decisions rest on),
`sealed.py` (cached measurements with a seal), `job_folder.py` (a folder for the time of a job), `mounts.py` (file
systems), `open_databases.py` (one connection for each SQLite file).
"""
