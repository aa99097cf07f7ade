"""A person may hold exclusive roles in one team at one time; inherited roles and second accounts count."""

CODE = "PG506"
NAME = "sod-violation"
SEVERITY = "error"
HELP = "remove one of the bindings, or end it before the other begins"
PRODUCED_BY = "load"
