"""A condition uses a float, null, or another construct outside the profile."""

CODE = "PG116"
NAME = "float-null-dyn"
SEVERITY = "error"
HELP = "count in whole numbers of a smaller unit; test for presence with `has()`"
PRODUCED_BY = "load"
