"""A file, text, list, nesting or condition beyond what the engine reads."""

CODE = "PG010"
NAME = "limits"
SEVERITY = "error"
HELP = "split it; limits are checked while reading, before memory is spent"
PRODUCED_BY = "load"
