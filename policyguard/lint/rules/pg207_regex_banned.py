"""RE2 does not accept a pattern: it is invalid, or it uses back-references or lookaround."""

CODE = "PG207"
NAME = "regex-banned-or-expensive"
SEVERITY = "error"
HELP = "write a pattern of RE2, or `glob` and `under` for paths"
PRODUCED_BY = "load"
