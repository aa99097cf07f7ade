"""A field that the language does not have, is missing, or is of another shape."""

CODE = "PG003"
NAME = "unknown-field"
SEVERITY = "error"
HELP = "correct the name; a field that is not understood is never ignored"
PRODUCED_BY = "load"
