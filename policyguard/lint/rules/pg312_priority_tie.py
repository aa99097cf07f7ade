"""A casbin model that decides by the order or the priority of rows."""

CODE = "PG312"
NAME = "priority-tie"
SEVERITY = "error"
HELP = "say with deny rows what must not happen; a deny wins whatever its place"
PRODUCED_BY = "import"
