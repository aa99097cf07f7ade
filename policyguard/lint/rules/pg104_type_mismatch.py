"""Operands, fields or attributes have incompatible types."""

CODE = "PG104"
NAME = "type-mismatch"
SEVERITY = "error"
HELP = "compare like with like: numbers with numbers, text with text"
PRODUCED_BY = "load"
