"""A rule that is limited to one team applies to a resource type without teams."""

CODE = "PG508"
NAME = "scope-gap"
SEVERITY = "error"
HELP = "move the rule to a document without scope, or give the type's ids a `{team}` segment"
PRODUCED_BY = "load"
