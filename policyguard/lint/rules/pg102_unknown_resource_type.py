"""A rule uses a resource or subject type that the schema does not declare, or a pattern that no id matches."""

CODE = "PG102"
NAME = "unknown-resource-type"
SEVERITY = "error"
HELP = "correct the name, or declare the type in the schema"
PRODUCED_BY = "load"
