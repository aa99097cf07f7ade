"""A casbin model allows requests that no row matches."""

CODE = "PG220"
NAME = "allow-default"
SEVERITY = "error"
HELP = "write `some(where (p.eft == allow)) && !some(where (p.eft == deny))`; there is no default but deny"
PRODUCED_BY = "import"
