"""A name that means two things: a subject type called `role`, an account of two persons, a record called `int`."""

CODE = "PG510"
NAME = "id-namespace-collision"
SEVERITY = "error"
HELP = "give one of them another name"
PRODUCED_BY = "load"
