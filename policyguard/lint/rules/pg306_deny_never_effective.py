"""A casbin model has a deny row, but its effect ignores denies."""

CODE = "PG306"
NAME = "deny-never-effective"
SEVERITY = "error"
HELP = "add `&& !some(where (p.eft == deny))` to the effect, or remove the row"
PRODUCED_BY = "import"
