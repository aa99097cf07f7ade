"""Roles inherit each other in a cycle."""

CODE = "PG501"
NAME = "role-cycle"
SEVERITY = "error"
HELP = "remove one of the inheritances"
PRODUCED_BY = "load"
