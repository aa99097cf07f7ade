"""A rule names an action that no resource type declares."""

CODE = "PG101"
NAME = "unknown-action"
SEVERITY = "error"
HELP = "correct the name, or declare the action in the schema"
PRODUCED_BY = "load"
