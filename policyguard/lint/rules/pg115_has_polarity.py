"""`has()` is used where an absent fact could grant access."""

CODE = "PG115"
NAME = "has-polarity"
SEVERITY = "error"
HELP = "use `has(x)` in an allow, and `!has(x)` in a deny or require"
PRODUCED_BY = "load"
