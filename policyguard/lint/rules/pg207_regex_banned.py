"""A pattern that RE2 does not accept: invalid, or with back-references or look-around."""

CODE = "PG207"
NAME = "regex-banned-or-expensive"
SEVERITY = "error"
HELP = "write a pattern of RE2, or `glob` and `under` for paths"
PRODUCED_BY = "load"
