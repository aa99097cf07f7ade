"""Somebody may hold, at one time in one team, roles that exclude each other; inheritance and second accounts count."""

CODE = "PG506"
NAME = "sod-violation"
SEVERITY = "error"
HELP = "remove one of the bindings, or end it before the other begins"
PRODUCED_BY = "load"
