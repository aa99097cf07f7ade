"""A function or macro has the wrong number or types of arguments."""

CODE = "PG110"
NAME = "bad-arguments"
SEVERITY = "error"
HELP = "see its arguments in `docs/conditions.md`"
PRODUCED_BY = "load"
