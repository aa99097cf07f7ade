"""An action that cannot be done to any of the rule's types, or a type to which none of the actions can be done."""

CODE = "PG108"
NAME = "action-not-applicable"
SEVERITY = "error"
HELP = "name the type that has the action, or write two rules"
PRODUCED_BY = "load"
