"""The lint rules: one module per rule, named `pg<number>_<name>.py`; `lint/catalogue.py` finds them by that name.

To add a rule PG299:

1. Write `pg299_short_name.py` with `CODE`, `NAME`, `SEVERITY`, `HELP` and `check(context) -> Iterator[Hit]`, as
   `lint/rule.py` explains. The first line of its docstring is the summary in reports and on the page.
2. Write the page `docs/lint/PG299.md`, and refresh the table in `docs/lint/index.md`.
3. Add the fixtures in `tests/data/lint/PG299/`, with `# finding: PG299` on the line that must be reported.

A rule only reads its `Context`. Queries that several rules need belong into `lint/context.py`, and the words that names
are compared with into `lint/vocabulary.py`.
"""
