"""A chain of role inheritance is longer than 64 roles."""

CODE = "PG502"
NAME = "role-depth"
SEVERITY = "error"
HELP = "inherit directly from the roles that rules use"
PRODUCED_BY = "load"
