"""A casbin model decides by the order or the priority of rows."""

CODE = "PG312"
NAME = "priority-tie"
SEVERITY = "error"
HELP = "write deny rows for what must not happen; a deny wins regardless of its position"
PRODUCED_BY = "import"
