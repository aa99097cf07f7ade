"""A name has two meanings: a subject type `role`, an account of two persons, a record `int`."""

CODE = "PG510"
NAME = "id-namespace-collision"
SEVERITY = "error"
HELP = "give one of them another name"
PRODUCED_BY = "load"
