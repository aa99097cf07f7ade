"""A number is not an integer, or is beyond 2^53 - 1."""

CODE = "PG405"
NAME = "float-in-policy"
SEVERITY = "error"
HELP = "count in whole numbers of a smaller unit"
PRODUCED_BY = "load"
