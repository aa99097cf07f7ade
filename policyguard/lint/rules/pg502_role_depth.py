"""A chain of inheritance longer than 64 roles."""

CODE = "PG502"
NAME = "role-depth"
SEVERITY = "error"
HELP = "inherit directly from the roles that rules name"
PRODUCED_BY = "load"
