"""An expression of constants that fails on every request: a division by zero, a bad address, a negative index."""

CODE = "PG314"
NAME = "constant-error"
SEVERITY = "error"
HELP = "correct the constant; an allow would never allow and a deny always deny"
PRODUCED_BY = "load"
