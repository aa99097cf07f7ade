"""An action that none of the rule's types has, or a type that has none of the rule's actions."""

CODE = "PG108"
NAME = "action-not-applicable"
SEVERITY = "error"
HELP = "name the type that has the action, or write two rules"
PRODUCED_BY = "load"
