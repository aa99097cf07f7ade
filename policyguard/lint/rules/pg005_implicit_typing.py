"""A plain scalar that YAML versions read differently, or that has the wrong type for its field."""

CODE = "PG005"
NAME = "implicit-typing"
SEVERITY = "error"
HELP = "put it in quotes if text is meant; write `true` or `false` for a bool"
PRODUCED_BY = "load"
