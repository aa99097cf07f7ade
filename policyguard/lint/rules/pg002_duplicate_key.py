"""A mapping has the same key twice; most YAML readers silently keep the last one."""

CODE = "PG002"
NAME = "duplicate-key"
SEVERITY = "error"
HELP = "remove one of them, or merge the two"
PRODUCED_BY = "load"
