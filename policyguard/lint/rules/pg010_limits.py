"""A file, text, list, nesting level or condition exceeds a limit."""

CODE = "PG010"
NAME = "limits"
SEVERITY = "error"
HELP = "split it; limits are checked while reading, before memory is spent"
PRODUCED_BY = "load"
