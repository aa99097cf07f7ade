"""A rule names an action that none of its types has, or a type that has none of its actions."""

CODE = "PG108"
NAME = "action-not-applicable"
SEVERITY = "error"
HELP = "name the type that has the action, or write two rules"
PRODUCED_BY = "load"
