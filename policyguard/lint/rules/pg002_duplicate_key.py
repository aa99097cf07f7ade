"""A mapping has one key twice; YAML readers keep the last one in silence."""

CODE = "PG002"
NAME = "duplicate-key"
SEVERITY = "error"
HELP = "remove one of them, or merge the two"
PRODUCED_BY = "load"
