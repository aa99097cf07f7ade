"""An id of a rule, role, quorum or person is taken, also after case and Unicode folding."""

CODE = "PG006"
NAME = "duplicate-id"
SEVERITY = "error"
HELP = "give one of them another id"
PRODUCED_BY = "load"
