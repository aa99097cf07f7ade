"""A condition compares an attribute with a text that its schema does not list."""

CODE = "PG107"
NAME = "enum-literal-unknown"
SEVERITY = "error"
HELP = "correct the text, or add it to the attribute's `enum`"
PRODUCED_BY = "load"
