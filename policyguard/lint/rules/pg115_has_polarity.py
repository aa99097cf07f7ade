"""`has()` stands where the absence of a fact could grant access."""

CODE = "PG115"
NAME = "has-polarity"
SEVERITY = "error"
HELP = "in an allow ask `has(x)`, in a deny or require `!has(x)`"
PRODUCED_BY = "load"
