"""A rule or quorum names a role that no document declares."""

CODE = "PG503"
NAME = "unknown-role"
SEVERITY = "error"
HELP = "correct the name, or declare it in `Roles` or `Quorums`"
PRODUCED_BY = "load"
