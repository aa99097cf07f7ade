"""A condition reads an attribute that its type does not declare, also inside records and lists."""

CODE = "PG103"
NAME = "unknown-attribute"
SEVERITY = "error"
HELP = "correct the name, or declare the attribute in the schema"
PRODUCED_BY = "load"
