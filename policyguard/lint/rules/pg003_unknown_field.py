"""A field is unknown or missing, or its value has the wrong shape."""

CODE = "PG003"
NAME = "unknown-field"
SEVERITY = "error"
HELP = "correct the name; a field that is not understood is never ignored"
PRODUCED_BY = "load"
