"""A word is not in the list of allowed words (effect, kind, assurance, adapter), or has the wrong case."""

CODE = "PG004"
NAME = "bad-enum"
SEVERITY = "error"
HELP = "use the listed word, in lower case where it is listed so"
PRODUCED_BY = "load"
