"""A deny row in a casbin model whose effect never looks at denies."""

CODE = "PG306"
NAME = "deny-never-effective"
SEVERITY = "error"
HELP = "add `&& !some(where (p.eft == deny))` to the effect, or remove the row"
PRODUCED_BY = "import"
