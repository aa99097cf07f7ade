"""Scans model and data files: format, digest, what loading them would run, and who can write them.

Promises: runs and unpickles nothing, trusts no name, raises nothing on data. A file is `clean` only if each part of it
is explained by its format and harmless for the reader of that format; anything else is `unknown` or `hostile`, with
reasons.

Leaves to others: requests and facts (`evidence/checkpoint.py`, `evidence/dataset.py`), what a verdict allows (the
policies), and opening files safely (`fs/`).

Read in this order: `findings.py` (verdict and limits), `reasons.py` with `advice.py`, `files.py` (opens and digests)
with `digest_cache.py`, `source.py` (random access), `content.py` (bytes to format), `formats/registry.py` (the table of
formats), `fact_sheets.py` (tables as text), then the format in question. Beside them are `manifest.py` (who wrote a
checkpoint), `model_repository.py` (code that a model names) and `picklescan.py` (a second opinion).
"""
