"""A function or macro with the wrong number or kinds of arguments."""

CODE = "PG110"
NAME = "bad-arguments"
SEVERITY = "error"
HELP = "look up its arguments in `docs/conditions.md`"
PRODUCED_BY = "load"
