"""The file uses an anchor, alias, merge key, tag, directive or tab indentation, or is not UTF-8."""

CODE = "PG001"
NAME = "yaml-unsafe"
SEVERITY = "error"
HELP = "write the text out; a policy file is plain YAML"
PRODUCED_BY = "load"
