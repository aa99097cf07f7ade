"""An expression of constants fails on every request: a division by zero, an invalid address, a negative index."""

CODE = "PG314"
NAME = "constant-error"
SEVERITY = "error"
HELP = "correct the constant; with this one an allow never allows and a deny always denies"
PRODUCED_BY = "load"
