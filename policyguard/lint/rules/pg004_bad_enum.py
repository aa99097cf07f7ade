"""A word outside a closed list: effect, kind, assurance, adapter; also in the wrong case."""

CODE = "PG004"
NAME = "bad-enum"
SEVERITY = "error"
HELP = "use the listed word, in lower case where it is listed so"
PRODUCED_BY = "load"
