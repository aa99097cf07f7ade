"""The text contains a control, bidirectional or zero-width character, directly or as an escape."""

CODE = "PG011"
NAME = "control-or-bidi"
SEVERITY = "error"
HELP = "remove the character; write what a reviewer can see"
PRODUCED_BY = "load"
