"""A condition is not a valid CEL expression."""

CODE = "PG117"
NAME = "condition-syntax"
SEVERITY = "error"
HELP = "conditions are CEL: `&&`, `||`, `!`, `==`, text in double quotes"
PRODUCED_BY = "load"
