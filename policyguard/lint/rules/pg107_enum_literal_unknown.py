"""A condition compares an attribute with a text that is not in the attribute's `enum`."""

CODE = "PG107"
NAME = "enum-literal-unknown"
SEVERITY = "error"
HELP = "correct the text, or add it to the attribute's `enum`"
PRODUCED_BY = "load"
