"""The value of a condition is not a bool."""

CODE = "PG106"
NAME = "non-boolean-condition"
SEVERITY = "error"
HELP = "compare the value with something"
PRODUCED_BY = "load"
