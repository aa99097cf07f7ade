"""Two rules, roles, quorums or persons have the same id, also after case and Unicode folding."""

CODE = "PG006"
NAME = "duplicate-id"
SEVERITY = "error"
HELP = "give one of them another id"
PRODUCED_BY = "load"
