"""A condition calls a function that the profile does not have."""

CODE = "PG109"
NAME = "undefined-function"
SEVERITY = "error"
HELP = "use a function of the profile, `docs/conditions.md` lists them"
PRODUCED_BY = "load"
